"""Secrets in uris: passwords and keys become `***` before a uri is shown, logged or raised in an error.

Of a uri's query, only settings named in `HARMLESS` are shown. The opposite, a list of names to hide, would never be
complete: each camera maker has its own name for the password. Of a path, these are hidden: settings that `HARMLESS`
does not name, any part with a colon (`/auth:admin:password/`), and the last part of an RTMP uri, which is the stream's
key.
"""

from __future__ import annotations

import base64
import logging
import re
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from ..base.errors import SourceError

HIDDEN = "***"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)")
# In a path, only `key=value` is a setting. Everything after the first `?` or `#` (in RTMP also a space) is settings.
_PATH = re.compile(r"[^?#]*")
_PATH_RTMP = re.compile(r"[^?#\s]*")
_PAIR = re.compile(r"(?:^|(?<=[&;\s]))([^=&;\s]+)=([^&;\s]+)")
_WORD = re.compile(r"(?<=[?&;#\s])[^?&;#\s][^&;#\s]*")
# Settings that tell one feed from another, and hold no secret in any maker's uris.
_HARMLESS = """
    audio bitrate buffer_size camera channel codec connect_timeout encoding ffs fifo_size format fps framerate
    height input_format interface latency linger listen local_addr localaddr localport localrtcpport localrtpport
    lossmaxttl maxbw mode mss multicast oheadbw overrun_nonfatal pbkeylen peerlatency pix_fmt pixel_format
    pkt_size profile rcvbuf rcvlatency reconnect resolution reuse rtcpport rtsp_transport seconds size sndbuf
    sources stream subtype tcp timeout tlpktdrop transport transtype ttl udp unicast video video_size width
"""
HARMLESS = frozenset(_HARMLESS.split())
_LOCAL = ("v4l2:", "file:")  # paths that may have colons: /dev/v4l/by-path/pci-0000:00:14.0-usb
SHORTEST = 3  # characters of a secret that `scrub` removes: to remove every "a" would make a message unreadable


class UnescapedError(SourceError):
    """A secret with an unescaped character that ends it. The message says how to escape it, and so holds the secret.

    Show it only to the person who typed the uri. What is logged, sent or stored is `public`.
    """

    def __init__(self, shown: str, what: str, secret: str) -> None:
        self.public = f"{shown}: a character in the {what} ends it; escape the {what}"
        super().__init__(f"{self.public}: {quote(secret, safe='')}")


def unescaped(uri: str) -> UnescapedError | None:
    """The error for a uri that cannot be parsed, if an `@` shows that an unescaped password is the reason."""
    scheme, _, rest = uri.partition("://")
    user, at, host = rest.rpartition("@")
    if not at or user.startswith("/") or not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?([/?].*)?", host):
        return None
    name, colon, password = user.partition(":")
    name_is_plain = not set(name) & set("/?#@[]")
    what, secret = ("password", password) if colon and name_is_plain else ("user name", name if colon else user)
    return UnescapedError(f"{scheme}://{HIDDEN}@{redact(f'{scheme}://{host}').partition('://')[2]}", what, secret)


def redact(uri: str) -> str:
    """The uri with everything that may be secret as `***`.

    Anything else (a path, `synthetic:...`) is returned unchanged.
    """
    scheme = SCHEME.match(uri)
    if not scheme:
        return uri
    head, rest = uri[: scheme.end()], uri[scheme.end() :]
    slashes, authority, place = _parts(rest)
    if "@" in place:  # perhaps an unescaped password with a slash in it: it is unknown which part is secret
        return head + slashes + HIDDEN
    user, at, host = authority.rpartition("@")
    return head + slashes + (HIDDEN if user else "") + at + host + _hide(scheme[0], place)[0]


def _parts(rest: str) -> tuple[str, str, str]:
    """Split what follows the scheme's colon: slashes, user and host, and the rest."""
    bare = rest.lstrip("/")
    end = min((at for at in map(bare.find, "/?#") if at >= 0), default=len(bare))
    return rest[: len(rest) - len(bare)], bare[:end], bare[end:]


def _hide(scheme: str, place: str) -> tuple[str, set[str]]:
    """What follows the host, redacted, and the texts that were removed from it."""
    scheme, hidden = scheme.lower(), set[str]()
    is_rtmp = scheme.startswith("rtmp")
    found = (_PATH_RTMP if is_rtmp else _PATH).match(place)
    path = found[0] if found else ""

    def word(found: re.Match[str]) -> str:
        key, is_pair, value = found[0].partition("=")
        if key.lower() in HARMLESS and not {"=", "?"} & set(value):
            return found[0]
        hidden.add(value if is_pair else key)
        return f"{key}={HIDDEN if value else ''}" if is_pair else HIDDEN

    parts = path.split("/")
    key_at = max((i for i, part in enumerate(parts) if part), default=-1) if is_rtmp else -1
    for i, part in enumerate(parts):
        parts[i] = _PAIR.sub(word, part)
        has_colon = ":" in unquote(parts[i]).rstrip(":")
        if i == key_at or (has_colon and scheme not in _LOCAL):
            hidden.add(part)
            parts[i] = HIDDEN
    return "/".join(parts) + _WORD.sub(word, place[len(path) :]), hidden


def secrets_of(uri: str) -> tuple[str, ...]:
    """Every text in the uri that `redact` hides, in each form that a server or a library may repeat; longest first."""
    scheme = SCHEME.match(uri)
    if not scheme:
        return ()
    _, authority, place = _parts(uri[scheme.end() :])
    raw = _hide(scheme[0], place)[1]
    user = (authority + place).rpartition("@")[0] if "@" in place else authority.rpartition("@")[0]
    if user:
        raw |= {user, *user.split(":", 1)[1:]}
        raw |= {
            base64.b64encode(text.encode()).decode() for text in (user, unquote(user))
        }  # HTTP's basic authorisation
    forms = raw | {unquote(text) for text in raw} | {unquote_plus(text) for text in raw}
    forms |= {text[mark.end() :] for text in forms for mark in re.finditer("[:=?]", text)}  # name:password
    return tuple(sorted((text for text in forms if len(text) >= SHORTEST), key=len, reverse=True))


def scrub(text: object, uri: str) -> str:
    """A message about `uri` from a server or a library, on one line and without the secrets of the uri."""
    scrubbed = str(text).replace(uri, redact(uri))
    for secret in secrets_of(uri):
        scrubbed = scrubbed.replace(secret, HIDDEN)
    return " ".join(_redact_word(word) for word in scrubbed.split())


def _redact_word(word: str) -> str:
    """Redact a word of a text; a full stop or colon at its end is no part of a uri."""
    bare = word.rstrip(":,.;")
    return redact(bare) + word[len(bare) :]


_guarded: set[str] = set()


def guard_logs(uri: str) -> None:
    """Remove the secrets of this uri from everything that FFmpeg logs from now on (PyAV passes it to `logging`)."""
    if not secrets_of(uri) or uri in _guarded:
        return
    if not _guarded:
        make = logging.getLogRecordFactory()

        def scrubbed(*values: Any, **named: Any) -> logging.LogRecord:
            record = make(*values, **named)
            if record.name.startswith("libav"):
                record.msg, record.args = record.getMessage(), ()
                for known in tuple(_guarded):
                    record.msg = scrub(record.msg, known)
            return record

        # Not a filter: a logger's filters do not see the records of its children, and each FFmpeg module has its own
        # child.
        logging.setLogRecordFactory(scrubbed)
    _guarded.add(uri)
