"""Batches: the same for the same step, whole, and never from what is kept for validation."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rtseg.adapt.data import HELD_OUT_SEED, TRAIN, VALIDATION, Clips, read_sequence
from rtseg.errors import ConfigError

DATA = Path(os.environ.get("RTSEG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_a_batch_depends_on_seed_and_step_alone(clips: Clips) -> None:
    clips.batch(6, 2, 3)
    first, again, other = clips.batch(7, 2, 3), clips.batch(7, 2, 3), clips.batch(8, 2, 3)
    assert torch.equal(first.image_btchw, again.image_btchw)
    assert torch.equal(first.mask_bthw, again.mask_bthw)
    assert not torch.equal(first.image_btchw, other.image_btchw)


def test_shapes_and_a_first_frame_to_prompt(clips: Clips) -> None:
    for step in range(20):
        batch = clips.batch(step, 2, 4)
        assert batch.image_btchw.shape == (2, 4, 3, 64, 64)
        assert batch.image_btchw.dtype == torch.uint8
        assert batch.mask_bthw.shape == (2, 4, 64, 64)
        assert set(batch.mask_bthw.unique().tolist()) <= {0, 1}
        assert batch.mask_bthw[:, 0].flatten(1).any(1).all()


def test_some_objects_leave(clips: Clips) -> None:
    gone = sum(int((clips.batch(s, 4, 4).mask_bthw.flatten(2).amax(2) == 0).sum()) for s in range(30))
    assert 0 < gone < 0.3 * 30 * 16


def _write(folder: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (folder / kind / name).mkdir(parents=True)
        for t in range(3):
            picture = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
            if kind == "Annotations":
                picture = np.zeros((40, 60), np.uint8)
                picture[10:30, 10:40] = 255
            cv2.imwrite(str(folder / kind / name / f"{t:05d}.{ending}"), picture)


def test_validation_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in (TRAIN, VALIDATION):
        for folder, names in split.items():
            for name in names:
                _write(tmp_path / folder, name)
    rendered: list[int] = []
    monkeypatch.setattr(
        "rtseg.adapt.data.render_sequence",
        lambda seed, *_: rendered.append(seed) or read_sequence(tmp_path / "davis-subset", "cows"),
    )
    read: list[str] = []
    original = cv2.imread
    monkeypatch.setattr(cv2, "imread", lambda path, *flags: read.append(path) or original(path, *flags))
    Clips.read(tmp_path, 64, 0, scenes=3).batch(0, 2, 2)
    assert any("robotic-train-a" in path for path in read)  # the spy does see what is read
    held_out = [name for names in VALIDATION.values() for name in names]
    assert not [path for path in read if any(f"/{name}/" in path for name in held_out)]
    assert max(rendered) < HELD_OUT_SEED


def test_a_missing_sequence_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"JPEGImages/cows/\*\.jpg"):
        read_sequence(tmp_path, "cows")


def test_real_sequences_are_all_there() -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is absent; set RTSEG_TEST_DATA")
    for split in (TRAIN, VALIDATION):
        for folder, names in split.items():
            assert all(any((DATA / folder / "JPEGImages" / name).glob("*.jpg")) for name in names)


def test_a_scope_hides_the_object_with_the_picture() -> None:
    from rtseg.adapt.augment import through_scope

    image_thwc = np.full((3, 64, 64, 3), 200, np.uint8)
    mask_thw = np.ones((3, 64, 64), np.uint8)
    through_scope(np.random.default_rng(1), image_thwc, mask_thw)
    assert 0.2 < mask_thw.mean() < 1
    assert ((image_thwc == 200).all(axis=-1) == (mask_thw == 1)).all()
