"""What a worker is told first, and the hashes of it in a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.types import Prompt
from rtseg.engine.recipe import Recipe
from rtseg.live.profile import StreamProfile
from rtseg.live.worker_config import profile_hash, recipe_hash


def test_the_hash_of_a_configuration_counts_every_pixel() -> None:
    mask_hw = np.zeros((200, 300), bool)
    mask_hw[90:110, 140:160] = True
    other_hw = mask_hw.copy()
    other_hw[100, 150] = False
    assert str(mask_hw) == str(other_hw)  # numpy's text leaves the middle out

    def hashed(mask_hw: np.ndarray) -> str:  # type: ignore[type-arg]
        return profile_hash(StreamProfile("clip.mp4", objects=(Prompt(1, mask=mask_hw),), path=Path("s.toml")))

    assert hashed(mask_hw) != hashed(other_hw)
    assert hashed(mask_hw) == hashed(np.asfortranarray(mask_hw))
    assert hashed(mask_hw) != hashed(mask_hw.reshape(300, 200))
    with pytest.raises(TypeError, match="has no hash"):
        profile_hash(StreamProfile("clip.mp4", name=object()))  # type: ignore[arg-type]


def test_a_password_is_not_part_of_the_hash() -> None:
    one, other, elsewhere = (
        StreamProfile(f"rtsp://anna:{secret}@{host}/live")
        for secret, host in (("a", "10.0.0.1"), ("b", "10.0.0.1"), ("a", "10.0.0.2"))
    )
    assert profile_hash(one) == profile_hash(other) != profile_hash(elsewhere)


def test_the_hash_of_a_recipe_counts_its_memory_and_its_path() -> None:
    recipe = Recipe(path=Path("/x/nano.toml"))
    fewer = replace(recipe, memory=replace(recipe.memory, spatial=3))
    assert len({recipe_hash(one) for one in (recipe, fewer, replace(recipe, path=None))}) == 3
