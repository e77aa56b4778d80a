"""A recording on a web server, read as a file: where the server breaks off, it is asked for the rest."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .secret import redact, scrub

WAIT_S = 10.0  # for an answer, and for each piece of the data
TRIES = 4  # to go on, without a byte between them
NO_RECORDING = ("mpegurl", "multipart/", "dash+xml")  # playlists and cameras


def _asked(url: str, start: int) -> Any:
    """The server's answer to a request for the bytes from `start` on."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=place)))
    request.add_header("Range", f"bytes={start}-")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return urllib.request.urlopen(request, timeout=WAIT_S)


def is_web_recording(url: str) -> bool:
    """Whether a uri is of http or https, and leads to something of a stated length, and not to a live feed.

    False also where nobody answers: a feed may yet come.
    """
    if not re.match("https?://", url, re.IGNORECASE):
        return False
    try:
        with _asked(url, 0) as answer:
            kind = str(answer.headers.get("Content-Type", "")).lower()
            return _size_of(answer) > 0 and all(word not in kind for word in NO_RECORDING)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _size_of(answer: Any) -> int:
    """How long the whole file is, 0 if the server does not say."""
    total = str(answer.headers.get("Content-Range", "")).rpartition("/")[2]
    length = str(answer.headers.get("Content-Length", ""))
    return int(total) if total.isdecimal() else int(length) if length.isdecimal() else 0


class WebFile:
    """A file of a web server; `ended` says why it gave out before its end, if it did."""

    def __init__(self, url: str) -> None:
        self._url, self._place = url, 0
        self.ended = ""
        self._answer: Any = _asked(url, 0)
        self._size = _size_of(self._answer)
        self._ranges: bool = self._answer.status == 206

    def seekable(self) -> bool:
        return bool(self._ranges)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end, or where the server does not go on."""
        why = ""
        for _ in range(TRIES):
            if self._place >= self._size:
                return b""
            try:
                if self._answer is None:
                    self._answer = self._again()
                data = bytes(self._answer.read(size))
            except (OSError, http.client.HTTPException) as e:
                why, data = scrub(getattr(e, "reason", None) or e, self._url), b""
            if data:
                self._place += len(data)
                self.ended = ""
                return data
            self._close()
            if not self._ranges:
                break
        shown = f"the server broke off after {self._place} of {self._size} bytes"
        self.ended = f"{shown} ({why})" if why else shown
        return b""

    def _again(self) -> Any:
        answer = _asked(self._url, self._place)
        if answer.status != 206:
            answer.close()
            raise OSError("it does not go on where it was")
        return answer

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (self._place if whence == 1 else self._size if whence == 2 else 0)
        if place != self._place:
            self._close()
            self._place = place
        return self._place

    def _close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        self._close()

    def __repr__(self) -> str:
        return redact(self._url)
