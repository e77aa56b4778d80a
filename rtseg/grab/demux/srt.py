"""SRT input through libsrt (Haivision's library), because PyAV's wheels have no SRT. It yields bytes of MPEG-TS.

libsrt runs in this process: a helper program would show the passphrase on its command line to every user.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from difflib import get_close_matches
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...base.errors import SourceError, did_you_mean
from ..redact import UnescapedError, redact

NAMES = ("libsrt-gnutls.so.1.5", "libsrt-openssl.so.1.5", "libsrt.so.1.5", "libsrt.so.1", "libsrt.1.5.dylib")
# From libsrt's srt.h; the numbers are part of its ABI.
RCVTIMEO, PASSPHRASE, PBKEYLEN, CONNTIMEO, RCVLATENCY, STREAMID = 14, 26, 27, 36, 43, 46
E_CONNLOST, E_TIMEOUT = 2001, 6003
CRITICAL_ONLY = 2  # the library writes its own log to stderr, without redaction
MESSAGE = 1456  # bytes of the longest message of a live sender
KEYS = ("mode", "latency", "passphrase", "pbkeylen", "streamid")


def srt_settings(uri: str) -> dict[str, str]:
    """The query of an srt:// uri, checked. `SourceError` says what is wrong, without secrets."""
    shown = redact(uri)
    given = dict(parse_qsl(urlsplit(uri).query, keep_blank_values=True))
    passphrase = re.search(rf"[?&]passphrase=(.*?)(?=&(?:{'|'.join(KEYS)})=|$)", uri)
    for key in given:
        # An unknown key may be a part of an unescaped passphrase.
        if key not in KEYS and passphrase and not get_close_matches(key, KEYS):
            raise UnescapedError(shown.partition("?")[0], "passphrase", passphrase[1])
        if key not in KEYS:
            raise SourceError(f"{shown}: unknown key {key!r}; {did_you_mean(key, KEYS)}")
    if passphrase and "#" in passphrase[1]:
        raise UnescapedError(shown.partition("?")[0], "passphrase", passphrase[1])
    if given.get("mode", "caller") not in ("caller", "listener"):
        raise SourceError(f"{shown}: mode={given['mode']!r}; expected caller or listener")
    latency = given.get("latency", "120")
    if not (latency.isascii() and latency.isdecimal() and int(latency) <= 60_000):
        raise SourceError(f"{shown}: latency={latency!r}; expected milliseconds from 0 to 60000")
    if "passphrase" in given and not 10 <= len(given["passphrase"].encode()) <= 79:
        raise SourceError(f"{shown}: the passphrase is too short or too long; expected 10 to 79 bytes")
    if given.get("pbkeylen", "16") not in ("16", "24", "32"):
        raise SourceError(f"{shown}: pbkeylen={given['pbkeylen']!r}; expected 16, 24 or 32")
    if len(given.get("streamid", "").encode()) > 512:
        raise SourceError(f"{shown}: the streamid is too long; expected at most 512 bytes")
    if not urlsplit(uri).hostname and given.get("mode") != "listener":
        raise SourceError(f"{shown}: no host to call; expected srt://HOST:PORT, or mode=listener")
    return given


@cache
def _library() -> Any:
    for name in NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.srt_startup()
        library.srt_setloglevel(CRITICAL_ONLY)
        library.srt_getlasterror_str.restype = ctypes.c_char_p
        return library
    raise SourceError("SRT needs libsrt 1.5, which is not installed; try: apt install libsrt1.5-gnutls")


def require_srt() -> None:
    """`SourceError` if libsrt is not installed."""
    _library()


def _address(host: str | None, port: int) -> bytes:
    """A C `sockaddr` as bytes; OSError if the host name cannot be resolved."""
    family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0]
    packed = socket.inet_pton(family, str(place[0]).partition("%")[0])
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H", port) + packed + bytes(8)
    scope = int(place[3]) if len(place) == 4 else 0
    return struct.pack("=H", family) + struct.pack("!HI", port, 0) + packed + struct.pack("=I", scope)


class SrtReader:
    """One SRT connection as a read-only file; OSError if it cannot be made, or breaks."""

    def __init__(self, uri: str, open_s: float, read_s: float) -> None:
        settings, parts = srt_settings(uri), urlsplit(uri)
        self._srt = _library()
        self._buffer = ctypes.create_string_buffer(MESSAGE)
        self._read_s = read_s
        self._socket = self._srt.srt_create_socket()
        try:
            self._set(CONNTIMEO, int(open_s * 1000))
            self._set(RCVLATENCY, int(settings.get("latency", "120")))
            for key, option in (("passphrase", PASSPHRASE), ("streamid", STREAMID)):
                if key in settings:
                    self._set(option, settings[key].encode())
            if "pbkeylen" in settings:
                self._set(PBKEYLEN, int(settings["pbkeylen"]))
            place = _address(parts.hostname, parts.port or 0)
            if settings.get("mode") == "listener":
                self._accept(place, open_s)
            else:
                self._check(self._srt.srt_connect(self._socket, place, len(place)))
            self._set(RCVTIMEO, int(read_s * 1000))
        except BaseException:
            self.close()
            raise

    def _accept(self, place: bytes, open_s: float) -> None:
        """Wait for one caller, and then read from its connection."""
        self._set(RCVTIMEO, int(open_s * 1000))
        self._check(self._srt.srt_bind(self._socket, place, len(place)))
        self._check(self._srt.srt_listen(self._socket, 1))
        sockets = (ctypes.c_int * 1)(self._socket)
        caller = self._srt.srt_accept_bond(sockets, 1, ctypes.c_int64(int(open_s * 1000)))
        self._check(caller)
        self._srt.srt_close(self._socket)
        self._socket = caller

    def _set(self, option: int, value: int | bytes) -> None:
        data = value if isinstance(value, bytes) else struct.pack("=i", value)
        self._check(self._srt.srt_setsockflag(self._socket, option, data, len(data)))

    def _check(self, result: int) -> None:
        if result < 0:
            message = self._srt.srt_getlasterror_str().decode(errors="replace")
            raise OSError(f"SRT: {message}")

    def read(self, size: int) -> bytes:
        """The next message; b"" once the sender is gone; TimeoutError after `read_s` seconds without data."""
        received = self._srt.srt_recv(self._socket, self._buffer, MESSAGE)
        if received >= 0:
            return self._buffer.raw[:received]
        code = self._srt.srt_getlasterror(None)
        if code == E_TIMEOUT:
            raise TimeoutError(f"no data for {self._read_s:g} s")
        if code == E_CONNLOST:
            return b""
        self._check(received)
        return b""

    def close(self) -> None:
        if self._socket >= 0:
            self._srt.srt_close(self._socket)
            self._socket = -1
