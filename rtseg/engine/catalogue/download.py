"""One file from one address, into a part file that a later call goes on with.

A part has a small file beside it that says of which version it is (the server's ETag or date). The next request asks
for the rest of that version (`Range`, `If-Range`); a server that has another one, or no ranges, sends all of it.
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ...base.errors import OutputError, WeightsError
from ...base.files import discard, unwritable
from ...base.schema import convert
from .failure import STALL_S, FetchError, check_proxy, explain

Progress = Callable[[int, int | None], None]  # bytes so far, and of all

CHUNK = 1 << 16
TRIES = 4  # in a row, without a megabyte between them
WAIT_S = 1.0  # before the second try; twice as long before each other one
ENOUGH = 1 << 20  # bytes after which tries are counted again
ROOM = 1 << 24  # bytes that stay free


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a file before it is fetched: its size in bytes, and whether its hash will be checked."""

    bytes: int | None
    hashed: bool


@dataclass(frozen=True, slots=True)
class _Version:
    """What a part is the beginning of: the size of the whole file, and the server's mark of its version, or ""."""

    bytes: int
    mark: str


def download(address: str, part: Path, wanted: Wanted, progress: Progress) -> None:
    """Fetch the file at this address into `part`, going on with what is there.

    Raises `FetchError` if the address does not give it, after some tries, and `OutputError` if it cannot be written;
    what came so far stays for the next call, unless it is of no use.
    """
    failed, before = 0, _size(part)
    while True:
        try:
            return _request(address, part, wanted, progress)
        except FetchError as e:
            if _size(part) - before >= ENOUGH:
                failed, before = 0, _size(part)
            failed += 1
            if not e.passing or failed >= TRIES:
                raise
        time.sleep(WAIT_S * 2 ** (failed - 1))


def discard_part(part: Path) -> None:
    """Remove a part, and what is known of it."""
    discard(part)
    discard(_beside(part))


def _request(address: str, part: Path, wanted: Wanted, progress: Progress) -> None:
    """One request: the whole file, or the rest of it. Raises `FetchError` if not all of it comes."""
    check_proxy(address)
    old = _read_version(part)
    start, headers = _resumed(_size(part), old, wanted)
    request = Request(address, headers={"User-Agent": "rtseg", **headers})
    with _errors_explained(address, part), build_opener(_SafeRedirects).open(request, timeout=STALL_S) as answer:
        start, version = _read_headers(answer.status, answer.headers, start, wanted)
        if start and version != old:  # a server that heeds Range, and not If-Range
            discard_part(part)
            raise FetchError("has another version of the file than before", passing=True)
        _check_room(part, version.bytes - start)
        with _writing(part):
            if start == 0:
                discard_part(part)
            _beside(part).write_text(json.dumps(asdict(version)), "utf-8")
        _copy(answer, part, start, version.bytes, progress)


def _resumed(size: int, version: _Version | None, wanted: Wanted) -> tuple[int, dict[str, str]]:
    """With which byte to go on after `size` of a version, and the headers that ask for the rest of it."""
    if not size or version is None or not (version.mark or wanted.hashed):
        return 0, {}
    if size == version.bytes:
        size -= 1  # all of it is there, and was not checked: asking for no bytes is an error
    return size, {"Range": f"bytes={size}-", **({"If-Range": version.mark} if version.mark else {})}


def _read_headers(status: int, headers: Message, asked: int, wanted: Wanted) -> tuple[int, _Version]:
    """Where the answer begins, and of what version it is. Raises `FetchError` for what is not the file."""
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise FetchError("answers with a web page instead of the file (a login, or a page for people)")
    start, length = 0, headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if status == 206:
        begin, total = _content_range(headers.get("Content-Range", ""))
        if begin != asked:
            raise FetchError(f"answers with bytes from {begin}, asked for those from {asked}")
        start = asked
    if total is None:
        if wanted.bytes is None:
            raise FetchError("does not say how long the file is, and its size is not known: it cannot be checked")
        total = wanted.bytes
    if wanted.bytes is not None and total != wanted.bytes:
        raise FetchError(f"has another file of {total} bytes, expected {wanted.bytes}")
    tag = headers.get("ETag", "")
    return start, _Version(total, tag if tag.startswith('"') else headers.get("Last-Modified", ""))  # not a weak one


def _content_range(text: str) -> tuple[int, int | None]:
    """The first byte and the size of the whole file of a header like `bytes 200-999/1000`."""
    try:
        unit, _, rest = text.partition(" ")
        span, _, total = rest.partition("/")
        begin = int(span.partition("-")[0])
        if unit != "bytes":
            raise ValueError
        return begin, None if total == "*" else int(total)
    except ValueError:
        raise FetchError(f"answers with a range that is none ({text!r})") from None


def _copy(answer: Any, part: Path, start: int, total: int, progress: Progress) -> None:
    done = start
    progress(done, total)
    with _opened(part, start) as file:
        while data := answer.read1(CHUNK):
            if done + len(data) > total:
                raise FetchError(f"sends more than the {total} bytes that it said")
            with _writing(part):
                file.write(data)
                file.flush()
            done += len(data)
            progress(done, total)
    if done < total:
        raise FetchError(f"ends after {done} of {total} bytes", passing=True)


@contextmanager
def _opened(part: Path, start: int) -> Iterator[Any]:
    with _writing(part):
        file = part.open("r+b" if start else "wb")
        file.seek(start)
        file.truncate()
    try:
        yield file
    finally:
        with suppress(OSError):  # it is flushed after each write, which reports
            file.close()


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """An `OSError` of the disk as an `OutputError`; what fills the disk is removed."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            discard_part(part)
        raise unwritable(part, e) from e


@contextmanager
def _errors_explained(address: str, part: Path) -> Iterator[None]:
    try:
        yield
    except (FetchError, OutputError):
        raise
    except (OSError, HTTPException, ValueError) as e:
        if isinstance(e, HTTPError):
            e.close()
            if e.code == 416:  # what we have is longer than the file that is there now
                discard_part(part)
        raise explain(e, address) from e


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + ROOM:
        raise OutputError(
            f"{part.parent}: {free / 1e6:.0f} MB are free, {(needed + ROOM) / 1e6:.0f} MB are needed; free some, or set"
            " RTSEG_CACHE to another folder"
        )


def _read_version(part: Path) -> _Version | None:
    try:
        return convert(json.loads(_beside(part).read_text("utf-8")), _Version, str(part), WeightsError)
    except (OSError, ValueError, WeightsError):
        return None


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to something that others can read or change on its way."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise FetchError(f"redirects from https to {urlsplit(newurl).scheme}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
