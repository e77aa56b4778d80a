"""NIfTI files as arrays in the patient's axes, whatever the axes of the file. Only this module imports nibabel."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...base.errors import SourceError

MILLIMETRES = {
    "meter": 1000.0,
    "mm": 1.0,
    "micron": 1e-3,
}  # an unknown unit counts as millimetres
AXES = ("sagittal", "coronal", "axial")  # a slice across the first, second and third axis of LPS
ALIKE = 0.01  # spacings with a smaller relative difference count as equal


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The header of a file; axes are L, P, S.

    `affine_44` leads from a voxel [L, P, S, 1] to mm in RAS. `axes` are the directions of the axes of the file.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modalities: int
    affine_44: npt.NDArray[np.float64]
    axes: str

    @property
    def axis(self) -> int:
        """The axis across which slices are cut: that with the largest voxel size, S if several are equal."""
        largest = max(self.spacing_mm)
        return next(axis for axis in (2, 1, 0) if self.spacing_mm[axis] >= largest * (1 - ALIKE))

    def pixel_mm(self, axis: int) -> tuple[float, float]:
        """The size of a pixel of a slice across `axis`, down and across."""
        across, down = (mm for other, mm in enumerate(self.spacing_mm) if other != axis)
        return down, across

    def slice_affine(self, axis: int) -> npt.NDArray[np.float64]:
        """What leads from [column, row, slice, 1] of slices across `axis`, as `Volume.slice` cuts them, to mm (RAS)."""
        columns, rows = (other for other in range(3) if other != axis)
        to_voxel_44 = np.zeros((4, 4))
        to_voxel_44[[columns, rows, axis, 3], range(4)] = 1
        if axis != 2:  # rows go from the head down
            to_voxel_44[rows] = -to_voxel_44[rows]
            to_voxel_44[rows, 3] = self.shape[rows] - 1
        return np.asarray(self.affine_44 @ to_voxel_44)


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Voxels as stored, [L, P, S, modality], a view; a value is `stored * slope + intercept`."""

    header: Header
    stored_lpsm: npt.NDArray[Any]
    slope: float
    intercept: float

    def slice(self, number: int, axis: int, modality: int = 0) -> npt.NDArray[np.float32]:
        """The values of slice `number` across `axis`, float32 [down, across].

        The patient's left is to the right, or in a sagittal slice the back; the back or the feet are below.
        """
        stored_hw = np.moveaxis(self.stored_lpsm[..., modality], axis, 0)[number].T
        # Rows go along P in an axial slice, and otherwise along S, which points up and is flipped.
        return self.values(stored_hw if axis == 2 else stored_hw[::-1])

    def values(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The values of stored numbers. NaN voxels lie outside the scanned region, and become 0."""
        values: npt.NDArray[np.float32] = stored.astype(np.float32)
        values *= self.slope
        values += self.intercept
        return np.nan_to_num(values, copy=False)


def read_header(path: Path) -> Header:
    """Read the header of a file. Raises `SourceError` if it is not a 3-D or 4-D NIfTI."""
    return _header(_open(path), path)


def load_volume(path: Path) -> Volume:
    """Read a whole file. Voxels keep their stored type: a CT takes a quarter of a gigabyte, and in floats twice that.

    Raises `SourceError` if it cannot be read.
    """
    image = _open(path)
    header = _header(image, path)
    try:
        stored = np.asanyarray(image.dataobj.get_unscaled())
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise SourceError(f"{path}: its voxels cannot be read ({e}); copy it again") from e
    if not (np.issubdtype(stored.dtype, np.integer) or np.issubdtype(stored.dtype, np.floating)):
        raise SourceError(f"{path}: voxels of type {stored.dtype}; expected whole or real numbers")
    turned = import_nibabel(path).apply_orientation(
        stored if stored.ndim == 4 else stored[..., None], _to_lps(image, path)
    )
    return Volume(header, turned, float(image.dataobj.slope), float(image.dataobj.inter))


def import_nibabel(path: Path) -> Any:
    try:
        import nibabel
    except ImportError as e:
        raise SourceError(f"{path}: nibabel, which reads NIfTI, is not installed: pip install 'rtseg[dicom]'") from e
    return nibabel


def _open(path: Path) -> Any:
    nibabel = import_nibabel(path)
    try:
        return nibabel.load(path)  # the header alone
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as e:
        raise SourceError(f"{path}: not a readable NIfTI file ({str(e).splitlines()[0]}); copy it again") from e


def _header(image: Any, path: Path) -> Header:
    shape = image.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise SourceError(
            f"{path}: its shape is {'x'.join(map(str, shape))}; expected 3-D, or 4-D with modalities last"
        )
    scale = MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    sizes, turn = import_nibabel(path).affines.voxel_sizes(image.affine) * scale, _to_lps(image, path)
    order = np.argsort(turn[:, 0])
    lps = tuple(int(shape[i]) for i in order), tuple(float(sizes[i]) for i in order)
    orientations = import_nibabel(path).orientations
    affine_44 = image.affine @ orientations.inv_ornt_aff(turn, shape[:3])
    affine_44[:3] *= scale
    axes = "".join(orientations.aff2axcodes(image.affine))
    modalities = shape[3] if len(shape) == 4 else 1
    return Header(*lps, modalities, affine_44, axes)  # type: ignore[arg-type]  # three of each


def _to_lps(image: Any, path: Path) -> npt.NDArray[np.float64]:
    """The nibabel orientation that turns a file's axes to left, posterior, superior."""
    orientations = import_nibabel(path).orientations
    own = orientations.io_orientation(image.affine)
    if np.isnan(own).any():
        raise SourceError(f"{path}: its affine is singular, so its axes are unknown; expected a valid NIfTI header")
    return np.asarray(orientations.ornt_transform(own, orientations.axcodes2ornt(("L", "P", "S"))))
