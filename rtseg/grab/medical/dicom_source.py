"""The images of a DICOM file or series as frames, and the video in a DICOM file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ...base.errors import SourceError
from ...base.source import Damaged, Mode, Source
from ...base.types import Frame, now_ns
from ..still_source import StillSource
from .dicom_file import DicomFile, is_dicom
from .dicom_grey import DicomPictures
from .dicom_series import Series, read_series

MICROSECOND = Fraction(1, 1_000_000)
MOVES = (".dcm", ".dicom", ".ima", "")  # suffixes of files in a folder that may be DICOM


class DicomSource(StillSource):
    """The images of one series, as they were acquired: in the order of their places, or else of their numbers.

    Frames of one file that are moments have the times that it states. A series of files has the names of its files.
    """

    def __init__(self, uri: str, series: Series, rate: Fraction | None, window: str) -> None:
        first = series.images[0][0]
        times_ms = None if series.geometry.volume else first.times_ms() if first.count > 1 else None
        if times_ms is not None and rate is not None:
            raise SourceError(f"{uri}: fps={float(rate):g}, but it states its own times; leave fps out")
        own = Fraction(1000 * (len(times_ms) - 1) / times_ms[-1]).limit_denominator(1001) if times_ms else None
        super().__init__(uri, *first.size, rate or own, len(series.images))
        self._times_us = [round(1000 * time) for time in times_ms] if times_ms else None
        self.images, self.geometry, self.sample_aspect = series.images, series.geometry, _aspect(first)
        self.account.assumed.update(series.notes)
        self._pictures = DicomPictures(series.images, window, self.account)

    def frame(self, seq: int) -> Frame:
        image_hwc = self._pictures.read(seq)
        file = self.images[seq][0]
        pts, base = (seq, self._time_base) if self._times_us is None else (self._times_us[seq], MICROSECOND)
        name = file.path.name if file.count == 1 and len(self.images) > 1 else ""
        return Frame(
            image_hwc, seq, self.session, pts, base, now_ns(), name=name, sample_aspect=self.sample_aspect
        )  # fmt: skip


def _aspect(file: DicomFile) -> Fraction:
    """The width of a pixel divided by its height."""
    stated = file.header.get("PixelAspectRatio")
    if file.spacing_mm is not None:
        down, across = file.spacing_mm
    elif stated is not None and len(stated) == 2 and min(map(int, stated)) > 0:
        down, across = map(float, stated)
    else:
        return Fraction(1)
    return Fraction(across / down).limit_denominator(1000)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files of a folder; none if it holds pictures of other kinds."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in MOVES and not path.name.startswith(".")]
    except OSError:  # opening the folder will raise the error
        return []
    return [path for path in paths if path.is_file() and is_dicom(path)]


def open_dicom(
    paths: Sequence[Path], uri: str, rate: Fraction | None, window: str, deinterlace: Mode, damaged: Damaged
) -> Source:
    """The images of DICOM files as one source; `SourceError` if they are not those of one series."""
    if len(paths) == 1:
        file = DicomFile(paths[0])
        if file.is_video:
            from .dicom_video import open_dicom_video  # only videos need PyAV

            if window:
                raise SourceError(f"{uri}: window {window!r}, but it is a video; leave window out")
            return open_dicom_video(file, uri, rate, deinterlace, damaged)
    return DicomSource(uri, read_series(paths, uri), rate, window)
