"""The slices of a NIfTI volume as frames."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from ...base.errors import SourceError, did_you_mean
from ...base.geometry import Geometry
from ...base.types import Frame, now_ns
from ..still_source import StillSource
from .nifti_file import AXES, load_volume, read_header
from .slices import CHANNELS, Slices
from .window import check_window

ENDINGS = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume."""
    return path.name.lower().endswith(ENDINGS)


def check_plane(plane: str) -> None:
    """Raise `SourceError` unless there is a plane of this name. "" is valid, and lets the voxels decide."""
    if plane not in ("", *AXES):
        raise SourceError(f"plane {plane!r}: unknown; {did_you_mean(plane, AXES)}")


class NiftiSource(StillSource):
    """The slices of a volume in one plane, from the feet, the patient's right or front on.

    Slices have the patient's left to the right, and the front or the head above. Without a plane they are cut across
    the axis with the largest voxel size. Of a 4-D file the first three modalities are red, green and blue.
    """

    def __init__(self, path: Path, rate: Fraction | None, window: str, plane: str) -> None:
        check_window(window)
        check_plane(plane)
        header = read_header(path)
        axis = AXES.index(plane) if plane else header.axis
        columns, rows = (size for other, size in enumerate(header.shape) if other != axis)
        super().__init__(str(path), columns, rows, rate, header.shape[axis])
        shown = range(min(CHANNELS, header.modalities))
        # Only this source has the volume, which is freed with it.
        self._slices = Slices(lru_cache(maxsize=1)(load_volume), [(path, n, None) for n in shown], axis, window)
        down, across = header.pixel_mm(axis)
        self.sample_aspect = Fraction(across / down).limit_denominator(1000)
        affine = tuple(tuple(float(value) for value in row) for row in header.slice_affine(axis))
        self.geometry = Geometry("nifti", True, (down, across), header.spacing_mm[axis], affine, header.axes)
        if not plane:
            self.account.assumed["plane"] = f"{AXES[axis]}, across the largest side of a voxel; --plane sets it"
        if header.modalities > 1:
            text = f"the first {len(shown)} of {header.modalities} volumes are red, green and blue"
            self.account.assumed["modalities"] = text

    def frame(self, seq: int) -> Frame:
        image_hwc = self._slices.image(seq)
        return Frame(image_hwc, seq, self.session, seq, self._time_base, now_ns(), sample_aspect=self.sample_aspect)
