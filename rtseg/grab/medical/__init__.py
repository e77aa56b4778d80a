"""Medical images as sources: DICOM files and series, ultrasound and video in DICOM, and NIfTI volumes.

dicom_source.py  the images of one series as frames; dicom_series.py: which files, their order and places
dicom_file.py    header and pixels of one file; dicom_grey.py: pixels as 8-bit RGB; dicom_video.py: MPEG, H.26x
nifti_source.py  the slices of a volume as frames; nifti_file.py: the file; slices.py: slices as pictures
window.py        the range of values that is shown as grey
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from ...base.errors import SourceError
from ...base.source import Damaged, Mode, Source
from .dicom_file import is_dicom
from .dicom_source import dicom_files, open_dicom
from .nifti_source import NiftiSource, is_nifti

ENDINGS = (".dcm", ".dicom")


def is_medical(path: Path) -> bool:
    """Whether a file is DICOM or NIfTI, by its content or its name."""
    return is_nifti(path) or path.suffix.lower() in ENDINGS or is_dicom(path)


def open_medical(
    path: Path, rate: Fraction | None, window: str, plane: str, deinterlace: Mode, damaged: Damaged
) -> Source | None:
    """A DICOM file, a folder of DICOM files, or a NIfTI file as a source; None if it is none of these."""
    if path.is_dir():
        files = dicom_files(path)
        return _dicom(files, path, rate, window, plane, deinterlace, damaged) if files else None
    if is_nifti(path):
        return NiftiSource(path, rate, window, plane)
    return _dicom([path], path, rate, window, plane, deinterlace, damaged) if is_medical(path) else None


def open_series(paths: list[Path], name: str, rate: Fraction | None, window: str, plane: str) -> Source:
    """DICOM files, in any order, as one series."""
    return _dicom(paths, name, rate, window, plane, "off", "skip")


def _dicom(
    paths: list[Path], name: Path | str, rate: Fraction | None, window: str, plane: str, deinterlace: Mode,
    damaged: Damaged,
) -> Source:  # fmt: skip
    if plane:
        raise SourceError(f"{name}: plane {plane!r}, but DICOM images are shown as they were acquired; leave plane out")
    for path in paths:
        if not is_dicom(path):
            raise SourceError(f"{path}: not a DICOM file (no DICM after 128 bytes); copy it again")
    return open_dicom(paths, str(name), rate, window, deinterlace, damaged)
