"""Frames in: a live input, a file, a folder of images, or a synthetic endoscope, behind one `Source`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ..errors import SourceError, did_you_mean
from .address import LIVE, live_address
from .folder import FolderSource, picture_file
from .header import holds_stills
from .pace import paced
from .pipe import is_pipe
from .query import HELD_OUT_SEED
from .secret import HIDDEN, redact
from .source import DAMAGED, MODES, Damaged, Mode, Source
from .web import is_web_recording

__all__ = ["HELD_OUT_SEED", "Source", "open_source", "paced"]

Uri = str | Path


def open_source(
    uri: Uri | Sequence[Uri],
    *,
    fps: float | None = None,
    deinterlace: Mode | None = None,
    damaged: Damaged = "skip",
    bits: int | None = None,
) -> Source:
    """Open a source of frames.

    `uri` is a video file, a folder of images, a live input (`rtsp://`, `srt://`, `udp://`, `/dev/video0`, ...), or
    `synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25` (the defaults). `fps` sets the rate of a
    folder (else 25) and of a synthetic source; a video has its own times. A live input is one connection, and its loss
    a `SourceError`; `rtseg live` reconnects. `SourceError` if nothing can be read.

    Several uris are one recording, in the order given. `deinterlace` makes interlaced pictures whole: `off`, `auto`
    (those marked as interlaced) or `on` (all); None is `off` for a recording and `auto` for a live input. `damaged`
    says what is done where the data is damaged: `skip` and go on, or `stop` with a `SourceError`. `bits` is how many
    bits of an image's 16 are used, where the file does not say so itself.
    """
    if not isinstance(uri, (str, Path)):
        from .join import open_joined

        return open_joined([str(each) for each in uri], fps, deinterlace or "off", damaged)
    uri = str(uri)
    if live_address(uri) is None or is_web_recording(uri):
        return open_recording(uri, fps, deinterlace or "off", damaged, bits)
    if fps is not None:
        raise SourceError(f"{redact(uri)}: fps={fps:g}, but a live input has its own times; leave fps out")
    from .stream import StreamSource

    return StreamSource(uri, deinterlace=deinterlace or "auto", damaged=damaged)


def open_recording(
    uri: str, fps: float | None = None, deinterlace: Mode = "off", damaged: Damaged = "skip", bits: int | None = None
) -> Source:
    """What `open_source` opens, but for live inputs."""
    for key, value, known in (("deinterlace", deinterlace, MODES), ("damaged", damaged, DAMAGED)):
        if value not in known:
            raise SourceError(f"{uri}: {key} {value!r}; {did_you_mean(str(value), known)}")
    if fps is not None and not 0.01 <= fps <= 1000:
        raise SourceError(f"{uri}: fps={fps:g}; expected a number from 0.01 to 1000")
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)  # 29.97 is 2997/100, not a float's 51 bits
    if uri.startswith("synthetic:"):
        from .endoscope import EndoscopeSource  # twenty files, which a process that is started again need not read

        return EndoscopeSource(uri, rate)
    if uri.startswith("coded:"):
        from .coded import CodedSource

        return CodedSource(uri, rate)
    if is_web_recording(uri):
        from .file import FileSource
        from .inputs import WebInput

        _check_no_rate(redact(uri), fps)
        return FileSource([WebInput(uri, redact(uri))], deinterlace=deinterlace, damaged=damaged)
    path = Path(uri)
    if uri and path.is_dir():  # "" would be the current folder
        return FolderSource(path, rate, bits)
    if path.is_file() and holds_stills(path):
        return picture_file(path, rate, bits)
    if path.is_file():
        _check_no_rate(uri, fps)
        from .file import FileSource  # PyAV is needed for video files and live inputs alone
        from .inputs import file_inputs

        return FileSource(file_inputs([path]), deinterlace=deinterlace, damaged=damaged)
    if is_pipe(uri):
        from .file import FileSource
        from .inputs import PipeInput

        _check_no_rate(uri, fps)
        return FileSource([PipeInput(uri)], deinterlace=deinterlace, damaged=damaged)
    raise _unopened(uri)


def _check_no_rate(uri: str, fps: float | None) -> None:
    if fps is not None:
        raise SourceError(f"{uri}: fps={fps:g}, but a video has its own times; leave fps out")


def _unopened(uri: str) -> SourceError:
    """Why a uri that is neither a file, a folder nor synthetic cannot be opened."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", uri)
    if scheme:
        # Without slashes it is no uri that `redact` could take apart; it may hold a password all the same.
        shown = redact(uri) if uri.startswith("/", scheme.end()) else f"{scheme[0]}{HIDDEN}"
        if scheme[1].lower() in LIVE:
            return SourceError(f"{shown}: expected {scheme[1].lower()}://HOST/PATH")
        known = did_you_mean(scheme[1], ("synthetic", "rtsp", "srt", "udp", "tcp", "https", "v4l2"))
        return SourceError(f"{shown}: unknown scheme {scheme[1]!r}; {known}")
    return SourceError(
        f"{uri!r}: no such file or folder; expected a video, a folder of images, synthetic:..., or rtsp://..."
    )
