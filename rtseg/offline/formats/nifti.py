"""`nifti`: the id maps of a volume as `labels.nii.gz`, voxel on voxel with the source; `labels.json` has the names.

A NIfTI source gives the grid and the axes of its file; a DICOM series with slices at even distances gives its own grid.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import OutputError
from ...grab.medical.nifti_file import import_nibabel
from .id_maps import IdMaps
from .segmented_video import SegmentedVideo

LABELS, NAMES = "labels.nii.gz", "labels.json"


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the files. Raises `OutputError` if the source is no volume with a known place of each voxel."""
    nibabel = import_nibabel(folder / LABELS)
    geometry = video.run.get("geometry") or {}
    if not geometry.get("volume") or geometry.get("affine") is None:
        found = "its slices lie at uneven distances" if geometry.get("volume") else "its source is no volume"
        raise OutputError(f"{found}; expected NIfTI, or a DICOM series with slices at even distances")
    labels_xyz, lines = _labels(video)
    image = nibabel.Nifti1Image(labels_xyz, np.array(geometry["affine"]))
    if geometry["axes"]:
        orientations = nibabel.orientations
        own = orientations.io_orientation(image.affine)
        image = image.as_reoriented(
            orientations.ornt_transform(own, orientations.axcodes2ornt(tuple(geometry["axes"])))
        )
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    nibabel.save(image, folder / LABELS)
    names = {"labels": {"background": 0, **{each.name: each.id for each in video.objects}}}
    (folder / NAMES).write_text(json.dumps(names, indent=2) + "\n", "utf-8")
    return lines


def _labels(video: SegmentedVideo) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[str]]:
    """The labels, uint8 [column, row, slice], and lines for the user."""
    count = int((video.run.get("source_account") or {}).get("declared") or video.count)
    labels_xyz = np.zeros((video.width, video.height, count), np.uint8)
    maps = IdMaps(video)
    for frame, id_map_hw in maps:
        if frame.seq >= count:
            raise OutputError(f"has frame {frame.seq}; expected one of {count} slices; segment it again")
        labels_xyz[..., frame.seq] = id_map_hw.T
    missing = count - video.count
    return labels_xyz, maps.lines() + ([f"{missing} slices were not segmented and are empty"] if missing else [])
