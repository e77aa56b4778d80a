"""Opens a source of frames from a uri, a path or a list of files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SourceError, did_you_mean
from ..base.source import DAMAGED, MODES, Damaged, Mode, Source
from .address import LIVE, live_address
from .decode.image_header import holds_images
from .demux.http_file import is_web_recording
from .image_source import FolderSource, image_file_source
from .medical import open_medical, open_series
from .medical.dicom_file import is_dicom
from .paths import kind_of
from .redact import HIDDEN, redact
from .url_list import expanded, is_list, read_list

if TYPE_CHECKING:
    from .nvdec import Gpu

Uri = str | Path
STDIN = "-"
_REASON = {
    "fps": "a live input has its own timestamps",
    "bits": "it says itself how many bits its values have",
}


def open_source(
    uri: Uri | Sequence[Uri], *, fps: float | None = None, deinterlace: Mode | None = None, damaged: Damaged = "skip",
    bits: int | None = None, window: str | None = None, plane: str | None = None,
) -> Source:  # fmt: skip
    """Open a source of frames.

    Arguments:
        uri: a video file, an image file, a folder of images, a live input (`rtsp://`, `srt://`, `udp://`,
            `/dev/video0`, ...), a recording on a web server (`https://`), or
            `synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25` (the defaults). An existing file or
            folder is opened even if its name looks like a uri. A list of videos is one recording, in the order given,
            and so is a text file (`.txt`) that names one on each line. DICOM: a file, a folder or a list of the files
            of one series. NIfTI: a volume, whose slices are the frames. A pipe and `-` (standard input) can be read
            once. A live input is one connection: its loss is a `SourceError`.
        fps: the frame rate of images (else 25), of a synthetic source, or of a bare stream such as a .h264 file. Other
            videos have their own timestamps.
        deinterlace: `off`, `auto` (frames marked as interlaced) or `on` (all frames). None: `off` for a recording,
            `auto` for a live input.
        damaged: what to do where the data is damaged: `skip` those frames, or `stop` with a `SourceError`.
        bits: how many bits of a 16-bit image value are used, for files that do not say so.
        window: the values of DICOM and NIfTI that are shown as grey: `lung`, `percentile`, ..., or WIDTH/LEVEL.
        plane: the plane of the slices of a NIfTI volume: `axial`, `coronal` or `sagittal`.

    Raises:
        SourceError: the source cannot be read, or an argument does not fit it.
        ConfigError: there is no such window.
    """
    if window or plane:
        return _open_medical_only(uri, fps, window or "", plane or "", bits)
    if not isinstance(uri, (str, Path)):
        uris = expanded(_several(uri))
        _check(" + ".join(uris), deinterlace or "off", damaged, fps, bits)
        return _open_joined(uris, fps, deinterlace or "off", damaged, bits)
    uri = str(uri)
    if is_list(uri):
        return open_source(read_list(Path(uri)), fps=fps, deinterlace=deinterlace, damaged=damaged, bits=bits)
    if live_address(uri) is None or is_web_recording(uri):
        return open_recording(uri, fps, deinterlace or "off", damaged, bits)
    return _open_live(uri, fps, deinterlace or "auto", damaged, bits)


def _open_live(uri: str, fps: float | None, deinterlace: Mode, damaged: Damaged, bits: int | None) -> Source:
    _check(uri, deinterlace, damaged, fps, bits)
    for name, value in (("fps", fps), ("bits", bits)):
        if value is not None:
            raise SourceError(f"{redact(uri)}: {name}={value:g}, but {_REASON[name]}; leave {name} out")
    from .live_stream import StreamSource

    return StreamSource(uri, deinterlace=deinterlace, damaged=damaged)


def open_recording(
    uri: str, fps: float | None = None, deinterlace: Mode = "off", damaged: Damaged = "skip", bits: int | None = None
) -> Source:
    """Open anything that `open_source` opens, except live inputs."""
    _check(uri, deinterlace, damaged, fps, bits)
    rate = _rate(fps)
    kind, path = "" if uri == STDIN else kind_of(uri), Path(uri)
    if not kind and uri.startswith("~"):
        with suppress(RuntimeError):  # that user has no home folder here
            path = path.expanduser()
        kind = kind_of(str(path))
    if kind in ("file", "folder"):
        medical = open_medical(path, rate, "", "", deinterlace, damaged)
        if medical is not None:
            return _without_bits(medical, bits)
    if kind == "folder":
        return FolderSource(path, rate, bits)
    if kind == "file" and holds_images(path):
        return image_file_source(path, rate, bits)
    if bits is not None:
        raise SourceError(f"{uri}: bits={bits}, but {_REASON['bits']}; leave bits out")
    if kind == "file":
        from .video_file import open_video  # only video files and live inputs need PyAV

        return open_video([path], deinterlace, damaged, rate)
    if kind == "pipe" or uri == STDIN or is_web_recording(uri):
        from .video_file import open_stream

        return open_stream(uri, deinterlace, damaged, rate)
    if uri.startswith("synthetic:"):
        from ..synthetic import EndoscopeSource  # twenty modules, which a restarted process need not import

        return EndoscopeSource(uri, rate)
    if uri.startswith("coded:"):
        from ..synthetic.coded import CodedSource

        return CodedSource(uri, rate)
    raise _unopened(uri)


def _open_joined(
    uris: Sequence[str], fps: float | None, deinterlace: Mode, damaged: Damaged, bits: int | None
) -> Source:
    """Several videos as one recording: frame numbers and timestamps continue from one to the next; or DICOM files."""
    if not uris:
        raise SourceError("no files to join; expected one or more")
    if len(uris) == 1:
        return open_source(uris[0], fps=fps, deinterlace=deinterlace, damaged=damaged, bits=bits)
    if all(kind_of(uri) == "file" and is_dicom(Path(uri)) for uri in uris):
        return _without_bits(open_series([Path(uri) for uri in uris], _named(uris), _rate(fps), "", ""), bits)
    for name, value in (("fps", fps), ("bits", bits)):
        if value is not None:
            raise SourceError(
                f"{redact(uris[0])}: {name}={value:g}, but joined videos have their own; leave {name} out"
            )
    for uri in uris:
        if not is_web_recording(uri) and kind_of(uri) != "file":
            what = "a folder" if kind_of(uri) == "folder" else "no such file"
            raise SourceError(f"{redact(uri)}: {what}; expected video files to join")
    from .video_file import open_videos

    return open_videos(uris, deinterlace, damaged)


def _open_medical_only(
    uri: Uri | Sequence[Uri], fps: float | None, window: str, plane: str, bits: int | None
) -> Source:
    """DICOM or NIfTI in a window or a plane; `SourceError` for anything else."""
    uris = [str(uri)] if isinstance(uri, (str, Path)) else _several(uri)
    given = " and ".join(f"{name} {value!r}" for name, value in (("window", window), ("plane", plane)) if value)
    _check(uris[0], "off", "skip", fps, bits)
    if len(uris) > 1 and all(kind_of(uri) == "file" for uri in uris):
        source: Source | None = open_series([Path(uri) for uri in uris], _named(uris), _rate(fps), window, plane)
    elif len(uris) == 1 and kind_of(uris[0]) in ("file", "folder"):
        source = open_medical(Path(uris[0]), _rate(fps), window, plane, "off", "skip")
    else:
        source = None
    if source is None:
        raise SourceError(f"{redact(uris[0])}: {given}, but it is neither DICOM nor NIfTI; leave it out")
    return _without_bits(source, bits)


def _without_bits(source: Source, bits: int | None) -> Source:
    if bits is not None:
        source.close()
        raise SourceError(f"{source.uri}: bits={bits}, but {_REASON['bits']}; leave bits out")
    return source


def _named(uris: Sequence[str]) -> str:
    return f"{uris[0]} and {len(uris) - 1} more"


def open_on_gpu(
    uris: Sequence[str], gpu: Gpu, fps: float | None, deinterlace: str | None, damaged: Damaged, bits: int | None
) -> Source:
    """Video files as one recording, decoded by NVDEC on this GPU; `SourceError` for anything else."""
    from .demux.demuxer import INSTEAD
    from .video_file import open_video

    for name, value in (("deinterlace", None if deinterlace == "off" else deinterlace), ("bits", bits)):
        if value is not None:
            raise SourceError(f"{uris[0]}: NVDEC pictures are taken as they are, and {name}={value}; {INSTEAD}")
    for uri in uris:
        if kind_of(uri) != "file" or holds_images(Path(uri)):
            raise SourceError(f"{uri}: NVDEC decodes video files; for anything else {INSTEAD}")
    return open_video([Path(uri) for uri in uris], "off", damaged, _rate(fps), gpu)


def _rate(fps: float | None) -> Fraction | None:
    # 29.97 is 2997/100, not the 51 bits of its float
    return None if fps is None else Fraction(float(fps)).limit_denominator(1001)


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
    """A list of uris, from an argument that is not one uri."""
    members = list(given) if isinstance(given, Sequence) and not isinstance(given, bytes) else [given]
    uris = [str(each) for each in members if isinstance(each, (str, Path))]
    if len(uris) < len(members):
        what = f"source {str(given)!r:.80}: {type(given).__name__}"
        raise SourceError(f"{what}; expected a uri, a path, or several in a list")
    return uris


def _unopened(uri: str) -> SourceError:
    """Why a uri that is neither a file, a folder nor a drawn source cannot be opened."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", uri)
    if scheme:
        # `redact` cannot parse a uri without slashes, which may still hold a password.
        shown = redact(uri) if uri.startswith("/", scheme.end()) else f"{scheme[0]}{HIDDEN}"
        if scheme[1].lower() in LIVE:
            return SourceError(f"{shown}: expected {scheme[1].lower()}://HOST/PATH")
        known = did_you_mean(scheme[1], ("synthetic", "rtsp", "srt", "udp", "tcp", "https", "v4l2"))
        return SourceError(f"{shown}: unknown scheme {scheme[1]!r}; {known}")
    return SourceError(
        f"{uri!r}: no such file or folder; expected a video, a folder of images, synthetic:..., or rtsp://..."
    )
