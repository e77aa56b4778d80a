"""Training data: only the named sequences are read, and synthetic scenes give objects that can be told apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.adapt.config import Endoscope, Material, Phase, TrainConfig
from rtseg.adapt.training_data import SyntheticScenes, TrainingData, open_material
from rtseg.adapt.training_video import read_video
from rtseg.base.errors import ConfigError
from rtseg.data.dataset import Sequence, Target

from .conftest import CPU

PHASE = Phase(1, image_size=64)


def write(folder: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (folder / kind / name).mkdir(parents=True)
        for t in range(4):
            picture = rng.integers(0, 255, (120, 160, 3)).astype(np.uint8)
            if kind == "Annotations":
                picture = np.zeros((120, 160), np.uint8)
                picture[30:90, 30:100] = 255
            cv2.imwrite(str(folder / kind / name / f"{t:05d}.{ending}"), picture)


def test_only_what_is_named_is_read_and_at_its_size(tmp_path: Path) -> None:
    for name in ("mine", "held-out"):
        write(tmp_path / "tools", name)
    (tmp_path / "tools/JPEGImages/held-out/00000.jpg").write_bytes(b"nobody may read this")
    config = TrainConfig((PHASE,), (Material("tools", sequences=("mine",)),), seed=3)
    plans = TrainingData(config, tmp_path, CPU).sampler(PHASE).specs(np.random.default_rng(0), 6, 2, 64)
    assert {plan.video.name for plan in plans} == {"mine"}
    assert {plan.video.size_wh for plan in plans} == {(107, 80)}


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "tools", "mine")
    with pytest.raises(ConfigError, match="'absent'"):
        open_material(Material("tools", sequences=("absent",)), tmp_path)
    with pytest.raises(ConfigError, match="at most 10000"):
        TrainingData(TrainConfig((PHASE,), endoscope=Endoscope(1.0, 20_000)), tmp_path, CPU)


def test_a_frame_that_leaves_an_object_out_does_not_teach_that_it_is_gone() -> None:
    def picture(t: int) -> np.ndarray:
        return np.full((40, 50, 3), t, np.uint8)

    targets, whole_hw = (Target(1, "tool"), Target(2, "tissue")), np.ones((40, 50), bool)
    clip = Sequence(
        "a", 3, targets, picture, lambda t: {1: whole_hw}, unknown=lambda t: frozenset({2} if t == 1 else ())
    )
    assert read_video(clip, 40).image_t3hw[:, 0, 0, 0].tolist() == [0, 2]


def test_scenes_are_drawn_by_seed_with_tools_or_their_parts() -> None:
    scenes = SyntheticScenes(3, 64)
    videos = [scenes.video(np.random.default_rng(k), 2) for k in range(30)]
    again = scenes.video(np.random.default_rng(7), 2)
    assert (again.image_t3hw == videos[7].image_t3hw).all() and (again.ids_thw == videos[7].ids_thw).all()
    assert {video.name for video in videos} == {"endoscope-0", "endoscope-1", "endoscope-2"}
    assert max(max(video.ids, default=0) for video in videos) > 4  # parts
    assert {len(video) for video in videos} == {2}


def test_a_batch_of_everything(tmp_path: Path) -> None:
    write(tmp_path / "tools", "mine")
    config = TrainConfig((PHASE,), (Material("tools"),), endoscope=Endoscope(1.0, 3))
    batch = TrainingData(config, tmp_path, CPU).sampler(PHASE).batch(0, 4, 3, 64, 2)
    assert batch.image_ntchw.shape == (4, 3, 3, 64, 64)
    assert len(batch.clip_b) > 2


def test_a_pool_is_drawn_in_batches() -> None:
    videos = SyntheticScenes(3, 64).pool(np.random.default_rng(0), 3, 2, CPU)
    assert [len(video) for video in videos] == [2, 2, 2]
    assert all(video.size_wh == (85, 64) and video.image_t3hw.shape == (2, 3, 64, 85) for video in videos)
    assert any(video.ids for video in videos)


def test_instruments_leave_and_come_back() -> None:
    """Of those that are there at first, some are away later, and some of these are back in the end."""
    scenes, rng = SyntheticScenes(40, 64), np.random.default_rng(1)
    there = []
    for _ in range(60):
        ids_thw = scenes.video(rng, 4).ids_thw.numpy()
        areas_ti = np.stack([np.bincount(ids_hw.ravel(), minlength=64) for ids_hw in ids_thw])[:, 1:]
        there += [(areas_ti[:, i] > 0).tolist() for i in np.flatnonzero(areas_ti[0] > 16)]
    assert 0.1 < np.mean([not all(seen) for seen in there]) < 0.5
    assert sum(seen[3] and not all(seen) for seen in there) > 3
