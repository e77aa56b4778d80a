"""Where the pixels of a medical source lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry of a source that states one.

    Attributes:
        kind: the format of the source.
        volume: its frames are slices, and not moments.
        spacing_mm: the size of a pixel, down and across; None if the source states none.
        slice_mm: from one slice to the next; None if the frames are not slices at even distances.
        affine: 4 x 4: the place of the pixel [column, row, frame, 1] in mm, to the right, front and top of the patient
            (RAS, as in NIfTI); None if it is unknown.
        axes: the directions of the axes of a NIfTI file, such as "LPS"; "" for DICOM.
    """

    kind: Literal["dicom", "nifti"]
    volume: bool
    spacing_mm: tuple[float, float] | None
    slice_mm: float | None = None
    affine: Affine | None = None
    axes: str = ""
