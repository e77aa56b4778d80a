"""A recording on a web server, read as a file. If the connection breaks, the rest is requested."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..redact import redact, scrub

TIMEOUT_S = 10.0  # seconds to wait for a response, and for each read
MAX_ATTEMPTS = 4  # in a row that yield no byte
LIVE_TYPES = ("mpegurl", "multipart/", "dash+xml")  # playlists and cameras


def _request(url: str, start: int) -> Any:
    """The server's response to a request for the bytes from `start` on."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=place)))
    request.add_header("Range", f"bytes={start}-")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)


def is_web_recording(url: str) -> bool:
    """Whether a uri is http(s) and its content has a stated length, so that it is a recording and no live feed.

    False also if there is no response: a live feed may still begin.
    """
    if not re.match("https?://", url, re.IGNORECASE):
        return False
    try:
        with _request(url, 0) as response:
            kind = str(response.headers.get("Content-Type", "")).lower()
            return _size_of(response) > 0 and all(word not in kind for word in LIVE_TYPES)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _size_of(response: Any) -> int:
    """The length of the whole file in bytes, 0 if the server does not state it."""
    total = str(response.headers.get("Content-Range", "")).rpartition("/")[2]
    length = str(response.headers.get("Content-Length", ""))
    return int(total) if total.isdecimal() else int(length) if length.isdecimal() else 0


class WebFile:
    """A file on a web server. `ended` says why reading stopped before its end, if it did."""

    def __init__(self, url: str) -> None:
        self._url, self._position = url, 0
        self.ended = ""
        self._response: Any = _request(url, 0)
        self._size = _size_of(self._response)
        self._ranges: bool = self._response.status == 206

    def seekable(self) -> bool:
        return bool(self._ranges)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end, or if the server does not continue."""
        why = ""
        for _ in range(MAX_ATTEMPTS):
            if self._position >= self._size:
                return b""
            try:
                if self._response is None:
                    self._response = self._resume()
                data = bytes(self._response.read(size))
            except (OSError, http.client.HTTPException) as e:
                why, data = scrub(getattr(e, "reason", None) or e, self._url), b""
            if data:
                self._position += len(data)
                self.ended = ""
                return data
            self._close()
            if not self._ranges:
                break
        shown = f"the server broke off after {self._position} of {self._size} bytes"
        self.ended = f"{shown} ({why})" if why else shown
        return b""

    def _resume(self) -> Any:
        response = _request(self._url, self._position)
        if response.status != 206:
            response.close()
            raise OSError("it cannot continue from a position")
        return response

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (self._position if whence == 1 else self._size if whence == 2 else 0)
        if place != self._position:
            self._close()
            self._position = place
        return self._position

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        self._close()

    def __repr__(self) -> str:
        return redact(self._url)
