"""Stills become clips: of one picture each, whose objects move over a background that was made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rtseg.adapt.animation import animate
from rtseg.adapt.batches import BatchSampler, VideoSource, uniform
from rtseg.adapt.clip_spec import sample_clip
from rtseg.adapt.config import Material, Phase, TrainConfig
from rtseg.adapt.inpaint import filled
from rtseg.adapt.losses import FROM_SCRATCH
from rtseg.adapt.motion import FAST, STATIC, affine
from rtseg.adapt.objective import clip_loss
from rtseg.adapt.render import render_clips
from rtseg.adapt.rollout import Rollout
from rtseg.adapt.training_data import TrainingData
from rtseg.adapt.training_video import TrainingVideo, read_stills
from rtseg.data.dataset import Sequence, Target
from rtseg.sam2 import Sam2, get_preset

from .conftest import CPU, squares
from .test_batches import NOISE, QUIET, _plain

PHASE = Phase(1, image_size=64)


def write_stills(folder: Path, sizes: list[tuple[int, int]]) -> None:
    """A data set in DAVIS's layout: each picture of its own grey, with a small, a middle and a huge region."""
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "op").mkdir(parents=True)
    for k, (height, width) in enumerate(sizes):
        ids_hw = np.full((height, width), 9, np.uint8)
        ids_hw[20:40, 20:40], ids_hw[:2, :2] = 1 + k % 2, 7
        cv2.imwrite(str(folder / f"JPEGImages/op/{k:05d}.jpg"), np.full((height, width, 3), 40 * (k + 1), np.uint8))
        cv2.imwrite(str(folder / f"Annotations/op/{k:05d}.png"), ids_hw)


def test_a_clip_of_stills_shows_one_picture(tmp_path: Path) -> None:
    write_stills(tmp_path / "stills", [(60, 80), (80, 60), (60, 80), (60, 80)])
    config = TrainConfig((PHASE,), (Material("stills", stills=True),))
    sampler = TrainingData(config, tmp_path, CPU).sampler(PHASE)
    specs = sampler.specs(np.random.default_rng(0), 40, 3, 64)
    assert all(spec.frozen for spec in specs)
    assert {spec.video.size_wh for spec in specs} == {(80, 60), (60, 80)}
    assert 3 <= sum(spec.video.size_wh == (60, 80) for spec in specs) <= 20, "one picture in four is upright"
    assert {i for spec in specs for i in spec.video.ids} <= {1, 2}, "tiny and huge regions are no objects"


def test_pieces_of_an_object_become_objects_if_asked() -> None:
    ids_hw = np.zeros((60, 80), np.uint8)
    ids_hw[10:30, 5:20], ids_hw[10:30, 50:70], ids_hw[50, 70] = 1, 1, 1
    image_hwc = np.full((60, 80, 3), 90, np.uint8)
    picture = Sequence("a", 1, (Target(1, "tools"),), lambda t: image_hwc, lambda t: {1: ids_hw > 0})
    (joined,), (split,) = (read_stills(picture, 60, split=split) for split in (False, True))
    assert joined.ids == (1,) and split.ids == (1, 2)
    assert [split.box(0, i) for i in (1, 2)] == [(5, 10, 20, 30), (50, 10, 70, 30)]


def still() -> TrainingVideo:
    return replace(squares(3, frames=2), stills=True)


def test_objects_of_a_still_move_and_their_background_does_not() -> None:
    rng, view_t23 = np.random.default_rng(1), np.stack([affine((50, 40), (48, 48), (0.96, 1.2), 0.0)] * 3)
    moved = 0
    for _ in range(6):
        background, pasted = animate(rng, still(), 0, view_t23, 0.0, FAST)
        own = {one.object_id for one in pasted}
        assert own and own.isdisjoint(background.ids) and own | set(background.ids) == {1, 2}
        spec = replace(
            _plain(sample_clip(rng, background, uniform([still()]), 3, 96, QUIET)),
            view_t23=np.stack([np.linalg.inv(np.vstack([m, [0, 0, 1]]))[:2] for m in view_t23]).astype(np.float32),
            deformation_t2hw=np.zeros((3, 2, 5, 5), np.float32),
            pasted=tuple(pasted),
        )
        made = render_clips([spec], 96, NOISE)
        bright_thw, own_thw = made.image_nt3hw[0, :, 0] > 170, made.id_nthw[0] > 0
        assert (bright_thw & own_thw).sum() > 0.9 * (bright_thw | own_thw).sum(), "no red is left behind"
        behind_hw = ~own_thw.any(0)
        change = (made.image_nt3hw[0, 0].int() - made.image_nt3hw[0, 2].int()).abs().amax(0)
        assert (change[behind_hw] > 40).float().mean() < 0.02
        moved += int((own_thw[0] != own_thw[2]).sum() > 50)
    assert moved > 3


def test_a_still_camera_and_still_objects_show_the_picture() -> None:
    view_t23 = np.stack([affine((50, 40), (48, 48), (0.96, 1.2), 0.0)] * 2)
    _, pasted = animate(np.random.default_rng(0), still(), 0, view_t23, 0.0, STATIC)
    assert pasted and all(np.allclose(one.map_t23[0], one.map_t23[1]) for one in pasted)


def test_a_hole_is_filled_with_what_is_around_it() -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    image_3hw = torch.stack((x + 50, y + 50, x + y)).to(torch.uint8)
    hole_hw = (x > 30) & (x < 50) & (y > 20) & (y < 45)
    spoiled = torch.where(hole_hw, torch.tensor(255, dtype=torch.uint8), image_3hw)
    made = filled(spoiled, hole_hw, (20, 20)).int()
    assert (made - image_3hw.int()).abs()[:, hole_hw].float().mean() < 12
    assert (spoiled.int() - image_3hw.int()).abs()[:, hole_hw].float().mean() > 60
    away_hw = (x < 20) | (x > 60)
    assert torch.equal(made[:, away_hw], image_3hw.int()[:, away_hw])


def test_single_pictures_are_trained_on(tiny: str) -> None:
    videos = [still()]
    sampler = BatchSampler([VideoSource("stills", 1.0, uniform(videos))], uniform(videos), 0, CPU)
    batch = sampler.batch(0, 6, 1, 64, 2)
    assert batch.image_ntchw.shape == (6, 1, 3, 64, 64)
    terms, ious = clip_loss(Sam2(get_preset(tiny), 64), batch, np.random.default_rng(0), FROM_SCRATCH)
    assert "match" not in terms and "tracked" not in ious and {"box", "point"} & set(ious)
    sum(terms.values()).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [1, 3])
def test_memories_that_nobody_recalls_are_not_made(tiny: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, made = [squares(0)], []
    sampler = BatchSampler([VideoSource("squares", 1.0, uniform(videos))], uniform(videos), 0, CPU)
    remember = Rollout.remember
    monkeypatch.setattr(Rollout, "remember", lambda *args, **named: (made.append(args[3]), remember(*args, **named)))
    clip_loss(Sam2(get_preset(tiny), 64), sampler.batch(0, 2, length, 64, 2), np.random.default_rng(0), FROM_SCRATCH)
    assert len(made) == length - 1
