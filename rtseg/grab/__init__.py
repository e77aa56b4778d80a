"""Frames in: a live input, a file, a folder of images, or a synthetic endoscope, behind one `Source`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path

from ..base.errors import SourceError, did_you_mean
from ..base.source import DAMAGED, MODES, Damaged, Mode, Source
from ..synthetic.query import HELD_OUT_SEED
from .address import LIVE, live_address
from .folder import FolderSource, picture_file
from .header import holds_stills
from .pace import paced
from .place import kind_of
from .secret import HIDDEN, redact
from .web import is_web_recording

__all__ = ["HELD_OUT_SEED", "Source", "open_source", "paced"]

Uri = str | Path
STDIN = "-"


def open_source(
    uri: Uri | Sequence[Uri],
    *,
    fps: float | None = None,
    deinterlace: Mode | None = None,
    damaged: Damaged = "skip",
    bits: int | None = None,
) -> Source:
    """Open a source of frames.

    `uri` is a video file, a picture file, a folder of images, a live input (`rtsp://`, `srt://`, `udp://`,
    `/dev/video0`, ...), or `synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25` (the defaults). What
    exists as a file or a folder is one, whatever it is called. Several uris are one recording, in the order given. A
    pipe and standard input (`-`) are recordings that can be read once; so is what a web server gives the length of,
    but more often. A live input is one connection, and its loss a `SourceError`; `rtseg live` reconnects.
    `SourceError` if nothing can be read.

    `fps` is the rate of images (else 25), of a synthetic source and of a bare stream, such as a .h264 file; other
    videos have their own times. `deinterlace` makes interlaced pictures whole: `off`, `auto` (those marked as
    interlaced) or `on` (all); None is `off` for a recording and `auto` for a live input. `damaged` says what is done
    where the data is damaged: `skip` and go on, or `stop` with a `SourceError`. `bits` is how many of a value's 16 an
    image uses, where it does not say so itself.
    """
    if not isinstance(uri, (str, Path)):
        from .join import open_joined

        uris = _several(uri)
        _check(" + ".join(uris), deinterlace or "off", damaged, fps, bits)
        return open_joined(uris, fps, deinterlace or "off", damaged, bits)
    uri = str(uri)
    if live_address(uri) is None or is_web_recording(uri):
        return open_recording(uri, fps, deinterlace or "off", damaged, bits)
    _check(uri, deinterlace or "auto", damaged, fps, bits)
    for name, value in (("fps", fps), ("bits", bits)):
        if value is not None:
            raise SourceError(f"{redact(uri)}: {name}={value:g}, but {_OWN[name]}; leave {name} out")
    from .stream import StreamSource

    return StreamSource(uri, deinterlace=deinterlace or "auto", damaged=damaged)


_OWN = {
    "fps": "a live input has its own times",
    "bits": "a video says itself how deep its values are",
}


def open_recording(
    uri: str, fps: float | None = None, deinterlace: Mode = "off", damaged: Damaged = "skip", bits: int | None = None
) -> Source:
    """What `open_source` opens, but for live inputs."""
    _check(uri, deinterlace, damaged, fps, bits)
    # 29.97 is 2997/100, not a float's 51 bits
    rate = None if fps is None else Fraction(float(fps)).limit_denominator(1001)
    kind, path = "" if uri == STDIN else kind_of(uri), Path(uri)
    if not kind and uri.startswith("~"):
        with suppress(RuntimeError):  # of somebody who has no home here
            path = path.expanduser()
        kind = kind_of(str(path))
    if kind == "folder":
        return FolderSource(path, rate, bits)
    if kind == "file" and holds_stills(path):
        return picture_file(path, rate, bits)
    if bits is not None:
        raise SourceError(f"{uri}: bits={bits}, but {_OWN['bits']}; leave bits out")
    if kind == "file":
        from .inputs import open_video  # PyAV is needed for video files and live inputs alone

        return open_video([path], deinterlace, damaged, rate)
    if kind == "pipe" or uri == STDIN or is_web_recording(uri):
        from .inputs import open_read_through

        return open_read_through(uri, deinterlace, damaged, rate)
    if uri.startswith("synthetic:"):
        from ..synthetic import EndoscopeSource  # twenty files, which a process that is started again need not read

        return EndoscopeSource(uri, rate)
    if uri.startswith("coded:"):
        from ..synthetic.coded import CodedSource

        return CodedSource(uri, rate)
    raise _unopened(uri)


def _check(uri: str, deinterlace: Mode, damaged: Damaged, fps: float | None, bits: int | None) -> None:
    shown = redact(uri)
    for key, value, known in (("deinterlace", deinterlace, MODES), ("damaged", damaged, DAMAGED)):
        if value not in known:
            raise SourceError(f"{shown}: {key} {value!r}; {did_you_mean(str(value), known)}")
    if fps is not None and not (_is_number(fps, Real) and 0.01 <= fps <= 1000):
        raise SourceError(f"{shown}: fps={fps!r}; expected a number from 0.01 to 1000")
    if bits is not None and not (_is_number(bits, Integral) and 8 <= bits <= 16):
        raise SourceError(f"{shown}: bits={bits!r}; expected a whole number from 8 to 16")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _several(given: object) -> list[str]:
    """What is no single uri, as a list of uris."""
    members = list(given) if isinstance(given, Sequence) and not isinstance(given, bytes) else [given]
    uris = [str(each) for each in members if isinstance(each, (str, Path))]
    if len(uris) < len(members):
        what = f"source {str(given)!r:.80}: {type(given).__name__}"
        raise SourceError(f"{what}; expected a uri, a path, or several in a list")
    return uris


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
