"""Frames in: a file, a folder of images, or a synthetic endoscope, behind one `Source`."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from ..errors import SourceError, did_you_mean
from .folder import FolderSource
from .pace import paced
from .source import Source
from .synthetic import SyntheticSource

__all__ = ["Source", "open_source", "paced"]

LIVE = ("rtsp", "rtsps", "rtmp", "srt", "udp", "rtp", "http", "https", "v4l2")


def open_source(uri: str | Path, *, fps: float | None = None) -> Source:
    """Open a source of frames.

    `uri` is a video file, a folder of images, or
    `synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25` (the defaults). `fps` sets the rate of
    a folder (else 25) and of a synthetic source; a video has its own times. `SourceError` if nothing can be read.
    """
    uri = str(uri)
    if fps is not None and not 0.01 <= fps <= 1000:
        raise SourceError(f"{uri}: fps={fps:g}; expected a number from 0.01 to 1000")
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)  # 29.97 is 2997/100, not a float's 51 bits
    if uri.startswith("synthetic:"):
        return SyntheticSource(uri, rate)
    path = Path(uri)
    if uri and path.is_dir():  # "" would be the current folder
        return FolderSource(path, rate or Fraction(25))
    if path.is_file():
        if rate is not None:
            raise SourceError(f"{uri}: fps={fps:g}, but a video has its own times; leave fps out")
        from .file import FileSource  # PyAV is needed for video files alone

        return FileSource(path)
    raise _unopened(uri)


def _unopened(uri: str) -> SourceError:
    """Why a uri that is neither a file, a folder nor synthetic cannot be opened."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", uri)
    if uri.startswith("/dev/") or (scheme and scheme[1].lower() in LIVE):
        return SourceError(f"{uri}: live inputs cannot be opened yet; record to a file and open that")
    if scheme:
        known = did_you_mean(scheme[1], ("synthetic", "rtsp", "srt"))
        return SourceError(f"{uri}: unknown scheme {scheme[1]!r}; {known}")
    return SourceError(f"{uri!r}: no such file or folder; expected a video, a folder of images, or synthetic:...")
