"""What judges a training was not trained on, in any guise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rtseg.adapt.config import Endoscope, Material, Phase, TrainConfig
from rtseg.adapt.validate import held_out, validate
from rtseg.base.errors import ConfigError
from rtseg.sam2 import Sam2, get_preset

PHASES = (Phase(1, image_size=64),)
HELD = Material("tools", sequences=("held",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sequences in DAVIS's layout."""
    mask_hw = np.zeros((40, 60), np.uint8)
    mask_hw[10:30, 10:40] = 255
    for name in ("mine", "held"):
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (tmp_path / "tools" / kind / name).mkdir(parents=True)
            for t in range(3):
                cv2.imwrite(str(tmp_path / "tools" / kind / name / f"{t:05d}.{ending}"), mask_hw)
    return tmp_path


def config(*judges: Material, **more: object) -> TrainConfig:
    given = {"videos": (Material("tools", sequences=("mine",)),), **more}
    return TrainConfig(PHASES, validation=judges, **given)  # type: ignore[arg-type]


def test_what_is_apart_judges(data: Path) -> None:
    synthetic = Material("synthetic:laparoscopy?seed=10000-10001&seconds=1&width=80&height=64")
    mine = Material("tools/JPEGImages/mine")  # a texture
    said = held_out(config(HELD, synthetic, textures=(mine,), endoscope=Endoscope(1.0, 5)), data)
    assert [len(group.dataset.sequences) for group in said.values()] == [1, 2]


@pytest.mark.parametrize("path", ["tools/JPEGImages/held", "tools/JPEGImages", "tools"])
def test_a_texture_that_judges_is_refused(data: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="held is both trained and validated on"):
        held_out(config(HELD, textures=(Material(path),)), data)


def test_a_video_that_judges_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="mine is both trained and validated on"):
        held_out(config(Material("tools", sequences=("held", "mine"))), data)


def test_a_scene_that_judges_is_refused(data: Path) -> None:
    scene = Material("synthetic:laparoscopy?seconds=1&width=80&height=64&seed=4-5")
    with pytest.raises(ConfigError, match="synthetic scene 4 is both trained and validated on"):
        held_out(config(scene, endoscope=Endoscope(1.0, 5)), data)
    assert held_out(config(scene, endoscope=Endoscope(1.0, 4)), data)
    assert held_out(config(scene), data)


def test_stills_are_judged_one_by_one_from_a_box_and_a_point(data: Path) -> None:
    said = held_out(config(replace(HELD, stills=True)), data)["tools"]
    assert [sequence.name for sequence in said.dataset.sequences] == ["held/00000", "held/00001", "held/00002"]
    assert [(s.protocol, s.prompt) for s in said.settings] == [("image", "box"), ("image", "points-1")]
    found = validate(Sam2(get_preset("nano"), 64).eval(), {"tools": said}, torch.device("cpu"))
    assert set(found) == {"tools box", "tools points-1"}
