"""NIfTI volumes as sources: the slices of each plane, and where they lie."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from rtseg.base.errors import ConfigError, SourceError
from rtseg.grab import open_source

SIZE = (14, 12, 6)
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


def oblique() -> np.ndarray:
    """An affine with axes near A, R, S, turned a little, and voxels of 0.7 x 0.5 x 3 mm."""
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]) @ np.diag([0.7, 0.5, 3])
    affine[:3, 3] = [-12, 7, 30]
    return affine


def volume(path: Path, affine: np.ndarray | None = None) -> np.ndarray:
    values = np.random.default_rng(3).integers(-200, 250, SIZE).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, oblique() if affine is None else affine), path)
    return values


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turned", [False, True])
def test_every_pixel_is_the_voxel_that_lies_there(tmp_path: Path, plane: str, turned: bool) -> None:
    affine = oblique() if turned else np.diag([-0.7, 0.5, 3, 1.0])
    values = volume(tmp_path / "v.nii.gz", affine)
    with open_source(tmp_path / "v.nii.gz", window="500/0", plane=plane) as source:
        frames = list(source)
        geometry = source.geometry
    assert geometry is not None and geometry.volume
    shown_nhw = np.stack([frame.image_hwc[..., 0] for frame in frames])
    back = np.linalg.inv(affine) @ np.array(geometry.affine)
    seen = set()
    for n, row, column in np.ndindex(shown_nhw.shape):
        i, j, k = np.rint(back @ [column, row, n, 1])[:3].astype(int)
        seen.add((i, j, k))
        assert abs(shown_nhw[n, row, column] - np.clip((values[i, j, k] + 250) / 500 * 255, 0, 255)) <= 1
    assert len(seen) == values.size
    steps_mm = np.linalg.norm(np.array(geometry.affine)[:3, :3], axis=0)
    np.testing.assert_allclose(steps_mm, [geometry.spacing_mm[1], geometry.spacing_mm[0], geometry.slice_mm])
    ras = np.array(geometry.affine)[:3, :3]
    if plane != "axial":
        assert ras[2, 1] < 0  # the head is above
    assert float(source.sample_aspect) == pytest.approx(steps_mm[0] / steps_mm[1], rel=1e-3)


def test_the_plane_is_across_the_largest_voxel_side_and_said(tmp_path: Path) -> None:
    volume(tmp_path / "v.nii")
    with open_source(tmp_path / "v.nii") as source:
        assert source.frame_count == 6
        assert "axial" in source.account.assumed["plane"] and "rate" in source.account.assumed
    with open_source(str(tmp_path / "v.nii"), plane="coronal", fps=10) as source:
        assert source.account.assumed == {} and source.fps == 10


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    volume(tmp_path / "v.nii.gz")
    with pytest.raises(SourceError, match="plane 'axal': unknown; .*axial"):
        open_source(tmp_path / "v.nii.gz", plane="axal")
    with pytest.raises(ConfigError, match="window '400/0/1': unknown"):
        open_source(tmp_path / "v.nii.gz", window="400/0/1")
    data = (tmp_path / "v.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="its voxels cannot be read"):
        list(open_source(tmp_path / "cut.nii.gz"))
    (tmp_path / "zero.nii").write_bytes(b"")
    with pytest.raises(SourceError, match="not a readable NIfTI file"):
        open_source(tmp_path / "zero.nii")
