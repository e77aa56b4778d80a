"""Which DICOM files are the images of one source, their order, and where they lie in the patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...base.errors import SourceError
from ...base.geometry import Geometry
from ..image_order import in_order
from .dicom_file import DicomFile

ALIKE = 1e-3  # direction cosines that differ by less are the same
SAME_MM = 1e-2  # positions that differ by less are the same
EVEN = 0.01  # the relative difference between distances of slices that are even
MOST_SERIES = 3  # that an error names

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Images in order, each with the number of its frame in its file. `notes` are for the source's account."""

    images: list[tuple[DicomFile, int]]
    geometry: Geometry
    notes: dict[str, str] = field(default_factory=dict)


def read_series(paths: Sequence[Path], name: str) -> Series:
    """The images of these files; `SourceError`, about `name`, if they are not those of one series, or of no order."""
    files = [DicomFile(path) for path in in_order(paths)]
    shown = [file for file in files if file.count]
    if not shown:
        what = files[0].text("Modality") or "an index" if files else "nothing"
        raise SourceError(f"{name}: holds no DICOM image (but {what}); expected files with pixels")
    _check_one_series(shown, name)
    several = next((file for file in shown if file.count > 1), None)
    if several is not None and len(shown) > 1:
        raise SourceError(
            f"{name}: {len(shown)} files, of which {several.path.name} alone has {several.count} images; "
            "expected one such file; give it by its own name"
        )
    notes = {"files": f"{len(files) - len(shown)} are no images and were left out"} if len(shown) < len(files) else {}
    images = [(file, frame) for file in shown for frame in range(file.count)]
    if several is None:
        images.sort(key=lambda image: int(image[0].header.get("InstanceNumber") or 0))
    return _placed(images, name, notes)


def _check_one_series(files: Sequence[DicomFile], name: str) -> None:
    series = Counter(file.text("SeriesInstanceUID") for file in files)
    if len(series) > 1:
        first = {
            uid: next(f for f in files if f.text("SeriesInstanceUID") == uid) for uid in list(series)[:MOST_SERIES]
        }
        told = [f"{file.text('SeriesDescription') or uid!r} ({series[uid]} files)" for uid, file in first.items()]
        more = f" and {len(series) - MOST_SERIES} more" if len(series) > MOST_SERIES else ""
        raise SourceError(f"{name}: {len(series)} series: {', '.join(told)}{more}; give the files of one series")
    sizes = Counter(file.size for file in files)
    if len(sizes) > 1:
        one = sizes.most_common(1)[0][0]
        other = next(file for file in files if file.size != one)
        found = f"{other.size[0]}x{other.size[1]}, but others are {one[0]}x{one[1]}"
        raise SourceError(f"{other.path}: {found}; expected one size; leave it out")


def _placed(images: list[tuple[DicomFile, int]], name: str, notes: dict[str, str]) -> Series:
    """The images in the order of their places, if they have places that differ; else in the order given."""
    spacing = images[0][0].spacing_mm
    places = [(file.position(frame), file.orientation(frame)) for file, frame in images]
    known = [(position, axes) for position, axes in places if position is not None and axes is not None]
    if len(known) < len(images):
        return Series(images, Geometry("dicom", False, spacing), notes)
    positions_n3, axes_n6 = np.array([p for p, _ in known]), np.array([axes for _, axes in known])
    if np.abs(axes_n6 - axes_n6[0]).max() > ALIKE:
        raise SourceError(f"{name}: its images have several orientations; expected parallel ones; give those of one")
    normal_3 = np.cross(axes_n6[0, :3], axes_n6[0, 3:])
    along_n = positions_n3 @ normal_3
    order = np.argsort(along_n, kind="stable")
    steps = np.diff(along_n[order])
    if len(images) == 1 or steps.max() < SAME_MM:  # one place: a cine
        affine = _affine(positions_n3[0], axes_n6[0], spacing, normal_3)
        return Series(images, Geometry("dicom", False, spacing, None, affine), notes)
    if steps.min() < SAME_MM:
        count = 1 + int((steps >= SAME_MM).sum())
        raise SourceError(
            f"{name}: {len(images)} images at {count} places; expected one at each; give those of one phase"
        )
    images = [images[i] for i in order]
    if steps.max() > steps.min() * (1 + EVEN):
        gap = int(np.argmax(steps)) + 1
        text = f"none are missing, though their distance is {np.median(steps):.3g} mm, and {steps.max():.3g} mm before"
        notes["slices"] = f"{text} frame {gap}"
        return Series(images, Geometry("dicom", True, spacing), notes)
    step_3 = (positions_n3[order[-1]] - positions_n3[order[0]]) / (len(images) - 1)
    affine = _affine(positions_n3[order[0]], axes_n6[0], spacing, step_3)
    return Series(images, Geometry("dicom", True, spacing, float(np.linalg.norm(step_3)), affine), notes)


def _affine(
    position_3: Vectors, axes_6: Vectors, spacing: tuple[float, float] | None, step_3: Vectors
) -> tuple[tuple[float, ...], ...] | None:
    """What leads from [column, row, frame, 1] to mm in RAS; None without the size of a pixel."""
    if spacing is None:
        return None
    affine_44 = np.eye(4)
    affine_44[:3, 0], affine_44[:3, 1] = axes_6[:3] * spacing[1], axes_6[3:] * spacing[0]
    affine_44[:3, 2], affine_44[:3, 3] = step_3, position_3
    affine_44[:2] *= -1  # DICOM's axes are LPS
    return tuple(tuple(float(value) for value in row) for row in affine_44)
