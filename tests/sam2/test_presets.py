"""The numbers of the networks: parameter counts as published, presets from files, and names that are nearly right."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from rtseg.base.errors import ConfigError
from rtseg.engine.cpu.isa import unfit
from rtseg.sam2 import PRESETS, Preset, Sam2, get_preset

# Millions of parameters, from the table of the SAM 2 release; 2.0 and 2.1 are given as the same.
PUBLISHED = {"tiny": 38.9, "small": 46.0, "base+": 80.8, "large": 224.4}
OURS = """
embed_dim = 16
heads = 2
stages = [1, 2, 3, 1]
global_blocks = [4]
windows = [8, 4, 8, 4]
background = 7
dim = 64
memory_dim = 32
"""


def millions(name: str) -> float:
    with torch.device("meta"):  # sizes without memory
        return sum(p.numel() for p in Sam2(PRESETS[name], 1024).parameters()) / 1e6


@pytest.mark.parametrize("generation", ["sam2", "sam2.1"])
@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_as_many_as_published(generation: str, size: str) -> None:
    counted = millions(f"{generation}-{size}")
    assert abs(counted - PUBLISHED[size]) < 0.1
    assert min(abs(counted - other) for name, other in PUBLISHED.items() if name != size) > 1


def test_one_block_more_would_be_noticed() -> None:
    """Negative control of the counts above."""
    deeper = replace(PRESETS["sam2.1-tiny"], stages=(1, 2, 8, 2))
    with torch.device("meta"):
        counted = sum(p.numel() for p in Sam2(deeper, 1024).parameters()) / 1e6
    assert abs(counted - PUBLISHED["tiny"]) > 1


def test_the_generations_differ_in_what_21_added() -> None:
    for size in PUBLISHED:
        added = millions(f"sam2.1-{size}") - millions(f"sam2-{size}")
        assert round(added * 1e6) == 64 + 256 * 64 + 64  # no_obj_embed_spatial, obj_ptr_tpos_proj


def test_ours_are_small_and_fit_the_kernels() -> None:
    for name, megabytes in (("nano", 20), ("micro", 6)):
        assert 2 * millions(name) < 0.99 * megabytes  # in fp16; a file has a header, too
        assert unfit(PRESETS[name]) is None


def test_the_size_of_the_image_is_not_in_the_weights() -> None:
    with torch.device("meta"):
        at_256, at_512 = (Sam2(PRESETS["nano"], size).state_dict() for size in (256, 512))
    assert {n: t.shape for n, t in at_256.items()} == {n: t.shape for n, t in at_512.items()}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "ours.toml"
    path.write_text(OURS)
    return path


def test_a_preset_from_a_file(own: Path) -> None:
    preset = get_preset(str(own))
    assert (preset.name, preset.stages, preset.stage_dims, preset.dim) == ("ours", (1, 2, 3, 1), (16, 32, 64, 128), 64)
    assert preset.num_maskmem == 7  # left out, so SAM 2's
    features = Sam2(preset, 64).encode_image(torch.zeros(1, 3, 64, 64))
    assert features.top.shape == (1, 64, 4, 4)


def test_a_file_can_say_what_a_shipped_preset_says(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        values = {f.name: getattr(preset, f.name) for f in fields(preset)}
        lines = [f"{k} = {json.dumps(v)}" for k, v in values.items()]
        (tmp_path / "same.toml").write_text("\n".join(lines))
        assert get_preset(str(tmp_path / "same.toml")) == preset


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("sam2.1-tinny", "sam2.1-tiny"), ("sam2-base", "sam2-base+"), ("SAM2.1-large", "sam2.1-large"), ("nanno", "nano")],
)
def test_a_name_that_is_nearly_right(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match="no such preset") as caught:
        get_preset(wrong)
    assert str(caught.value).endswith(f"did you mean {near!r}?")


def test_a_name_like_no_other_lists_them_all() -> None:
    with pytest.raises(ConfigError) as caught:
        get_preset("zzz")
    assert "did you mean" not in str(caught.value) and all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("embed_dim", "embed_dims", "unknown key 'embed_dims'; did you mean 'embed_dim'"),
        ("heads = 2", "", "heads = 0; expected a divisor of embed_dim"),
        ("heads = 2", "heads = 2\nnum_maskmem = 1", "num_maskmem = 1; expected a whole number, 2 to 8192"),
        ("heads = 2", "heads = ", "not TOML"),
        ("heads = 2", 'heads = "two"', "heads"),
        ("heads = 2", "heads = 3", "heads"),
        ("embed_dim = 16", "embed_dim = 0", "embed_dim"),
        ("embed_dim = 16", "embed_dim = 16.5", "embed_dim"),
        ("[1, 2, 3, 1]", "[1, 2]", "stages"),
        ("[1, 2, 3, 1]", "4", "stages"),
        ("[8, 4, 8, 4]", "[7, 4, 8, 4]", "windows"),
        ("global_blocks = [4]", "global_blocks = [7]", "global_blocks"),
        ("memory_dim = 32", "memory_dim = 48", "memory_dim"),
    ],
)
def test_a_wrong_number_is_named(own: Path, old: str, new: str, said: str) -> None:
    assert old in OURS
    own.write_text(OURS.replace(old, new))
    with pytest.raises(ConfigError, match=said) as caught:
        get_preset(str(own))
    assert str(own) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_preset(tmp_path: Path) -> None:
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("absent.toml", "picture.toml", "."):
        with pytest.raises(ConfigError, match="cannot be read|not TOML|not text|no such preset"):
            get_preset(str(tmp_path / name))


def test_a_convolutional_trunk_has_fixed_sizes() -> None:
    preset = Preset("lite", trunk="efficientnet-lite0")
    assert preset.stage_dims == (24, 40, 112, 192)
    assert replace(preset, levels=3).stage_dims == (24, 40, 112)
    with pytest.raises(ValueError, match="embed_dim = 48; expected nothing: efficientnet-lite0 has fixed sizes"):
        replace(preset, embed_dim=48)
    with pytest.raises(ValueError, match="levels = 3; expected 4"):
        replace(get_preset("nano-hiera"), levels=3)
