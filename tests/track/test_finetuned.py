"""MedSAM2 and Surgical SAM 2: their recipes agree with Meta's predictor, built from their own configuration files.

The settings below are all those of `sam2.1_hiera_t512.yaml` (MedSAM2's) and of Surgical SAM 2's `sam2.1_hiera_s.yaml`
and, for its older weights, `sam2_hiera_s_512.yaml`. What these networks change in Meta's code is frame pruning alone:
`Pruned` is a second reading of its definition. The rest is as in test_meta.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Preset, PromptBatch, Recall, Sam2, get_preset

from .test_meta import (
    BOX,
    CLOSE,
    MASK,
    POINT,
    SMALL_20,
    SMALL_21,
    Said,
    assert_same,
    difference,
    iou,
    meta_predictor,
    our_tracks,
    randomize,
    their_tracks,
)
from .test_meta import SIZE as SMALL_SIZE

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "engines"
COMMON = {
    "num_maskmem": 7,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "compile_image_encoder": False,
    # Not theirs: a corrected frame is a conditioning frame here, as in all three trainings.
    "add_all_frames_to_correct_as_cond": True,
}
V21 = {
    "no_obj_embed_spatial": True,
    "add_tpos_enc_to_obj_ptrs": True,
    "proj_tpos_enc_in_obj_ptrs": True,
    "use_signed_tpos_enc_to_obj_ptrs": True,
}

V20 = {"add_tpos_enc_to_obj_ptrs": False}


def rope(side: int) -> dict[str, Any]:
    kinds = ("self_attention", "cross_attention")
    return {f"memory_attention.layer.{kind}.feat_sizes": [side, side] for kind in kinds}


# Name: Meta's configuration with the same trunk, and the settings.
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "medsam2": ("sam2.1/sam2.1_hiera_t", {"image_size": 512, **COMMON, **V21, **rope(32)}),
    "surgsam2": ("sam2.1/sam2.1_hiera_s", {"image_size": 512, **COMMON, **V21, **rope(64)}),
    "surgsam2-2024": (
        "sam2/sam2_hiera_s",
        {"image_size": 512, **COMMON, "add_tpos_enc_to_obj_ptrs": False, **rope(32)},
    ),
}
KEPT = 5  # Surgical SAM 2: `num_maskmem` - `num_frame_to_prune`


class Pruned(nn.Module):
    """Meta's memory attention on what Surgical SAM 2's code for SAM 2.1 leaves of the memories of one object."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.d_model, self.pruned = inner, inner.d_model, 0

    def forward(
        self, curr: list[Tensor], memory: Tensor, curr_pos: list[Tensor], memory_pos: Tensor, num_obj_ptr_tokens: int
    ) -> Tensor:
        cells, end = curr[0].shape[0], len(memory) - num_obj_ptr_tokens
        frames = list(memory[:end].split(cells))
        likeness = [float(nn.functional.cosine_similarity(one, frames[-1], dim=-1).mean()) for one in frames[1:-1]]
        worst = sorted(range(len(likeness)), key=lambda i: -likeness[i])[: max(0, len(frames) - KEPT)]
        stay = [i for i in range(len(frames)) if i - 1 not in worst]
        self.pruned += len(worst)
        left = [torch.cat([*(x[:end].split(cells)[i] for i in stay), x[end:]]) for x in (memory, memory_pos)]
        out: Tensor = self.inner(curr, left[0], curr_pos, left[1], num_obj_ptr_tokens)
        return out


@contextmanager
def pruning(model: Any) -> Iterator[Pruned]:
    """Their predictor with frame pruning."""
    inner = model.memory_attention
    model.memory_attention = Pruned(inner)
    yield model.memory_attention
    model.memory_attention = inner


def recipe_of(name: str) -> Recipe:
    """The recipe of a configuration, in torch; the older weights of Surgical SAM 2 need another `model` alone."""
    changes = {"model": "sam2-small"} if name == "surgsam2-2024" else {}
    return load_recipe(RECIPES / f"{name.removesuffix('-2024')}.toml", runtime="torch", precision="fp32", **changes)


def pair_of(name: str, preset: Preset, size: int, presence: float = 1.0, **changes: Any) -> SimpleNamespace:
    """(`theirs`, `engine`): their configuration, with some settings changed, and our engine with the same weights."""
    config, settings = CONFIGURATIONS[name]
    network = Sam2(preset, size)
    randomize(network, 5, presence)
    theirs = meta_predictor(config, **settings | changes)
    theirs.load_state_dict(network.state_dict(), strict=True)
    return SimpleNamespace(theirs=theirs, engine=TorchEngine(network, recipe_of(name), "", "cpu"))


def small_pair(name: str, presence: float = 1.0) -> SimpleNamespace:
    """The same with a small trunk, little memory attention, and at 128 px."""
    preset = SMALL_20 if name == "surgsam2-2024" else SMALL_21
    return pair_of(name, preset, SMALL_SIZE, presence, **{
        "image_size": SMALL_SIZE,
        "image_encoder.trunk.embed_dim": preset.embed_dim,
        "image_encoder.trunk.stages": list(preset.stages),
        "image_encoder.trunk.global_att_blocks": list(preset.global_blocks),
        "image_encoder.neck.backbone_channel_list": list(reversed(preset.stage_dims)),
        "memory_attention.num_layers": preset.attention_layers,
        "memory_attention.layer.dim_feedforward": preset.attention_ffn,
    })  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def small(request: pytest.FixtureRequest) -> SimpleNamespace:
    return small_pair(request.param)


@pytest.fixture(scope="module")
def medsam2() -> SimpleNamespace:
    return small_pair("medsam2")


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_30_frames_with_a_correction(small: SimpleNamespace, video: np.ndarray, said: Said) -> None:
    theirs = their_tracks(small.theirs, video, {1: said})[1]
    assert_same(our_tracks(small.engine, video, {1: said})[1], theirs)
    uncorrected = our_tracks(small.engine, video[:14], {1: {0: said[0]}})[1]
    assert difference(uncorrected, theirs, first=10) > 1e-2


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_30_frames_with_pruning(video: np.ndarray, said: Said) -> None:
    both, first = small_pair("surgsam2"), {1: {0: said[0]}}
    with pruning(both.theirs) as pruned:
        theirs = their_tracks(both.theirs, video, first)[1]
    assert pruned.pruned == 1 + 2 * 23  # one on frame 6, two on each later one
    policy = recipe_of("surgsam2").memory.policy
    assert_same(our_tracks(both.engine, video, first, policy)[1], theirs)
    whole = our_tracks(both.engine, video, first)[1]
    assert difference(whole, theirs, last=5) < 1e-5
    assert difference(whole, theirs, first=6) > 1e-3


@pytest.fixture(scope="module", params=["medsam2", "surgsam2"])
def full(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A pair with the network and the image size of the recipe's file."""
    recipe = recipe_of(request.param)
    assert recipe.image_size == CONFIGURATIONS[request.param][1]["image_size"]
    return pair_of(request.param, get_preset(recipe.model), recipe.image_size)


def test_four_frames_at_full_size(full: SimpleNamespace, video: np.ndarray) -> None:
    frames = np.stack([cv2.resize(frame, (160, 120)) for frame in video[:4]])
    said: dict[int, Said] = {1: {0: BOX[0]}}
    theirs = their_tracks(full.theirs, frames, said)[1]
    ours = our_tracks(full.engine, frames, said, full.engine.recipe.memory.policy)[1]
    assert min(iou(ours.full[t], theirs.full[t]) for t in theirs.full) >= 0.999
    assert difference(ours, theirs) < 1e-2  # rounding grows on its way through a deep network of random weights


@torch.inference_mode()
def test_each_verb_at_full_size(full: SimpleNamespace) -> None:
    """The same tensors go into each verb of both."""
    theirs, network, side = full.theirs, full.engine._network, full.engine.image_size // 16
    draw = torch.Generator().manual_seed(3)
    features = network.encode_image(torch.randn(1, 3, 16 * side, 16 * side, generator=draw))
    draw = torch.Generator().manual_seed(3)
    out = theirs.forward_image(torch.randn(1, 3, 16 * side, 16 * side, generator=draw))
    fine, mid, top = out["backbone_fpn"]
    for mine, other in ((features.fine, fine), (features.mid, mid), (features.top, top)):
        assert close(mine, other)

    maps = torch.randn(6, 64, side, side, generator=draw)
    pointers = torch.randn(6, 256, generator=draw)
    position = theirs.memory_encoder.position_encoding(maps[:1])
    said = [
        {"maskmem_features": m[None], "maskmem_pos_enc": [position], "obj_ptr": p[None]}
        for m, p in zip(maps, pointers, strict=True)
    ]
    remembered = {"cond_frame_outputs": {0: said[0]}, "non_cond_frame_outputs": dict(enumerate(said[1:], 5))}
    flat, places = ([x.flatten(2).permute(2, 0, 1)] for x in (top, out["vision_pos_enc"][-1]))
    other = theirs._prepare_memory_conditioned_features(10, False, flat, places, [(side, side)], remembered, 100)
    # Frames 5 to 9 are 5 to 1 frames ago: slots 4 to 0.
    pointers_pc, ages = pointers[[0, 5, 4, 3, 2, 1]], (10, 1, 2, 3, 4, 5)
    recall = Recall.from_maps(maps, (6, 4, 3, 2, 1, 0), pointers_pc, ages)
    mine = network.attend(features, [recall])
    assert close(mine, other)
    assert not close(mine, network.attend(features, [replace(recall, slots=(6, 5, 3, 2, 1, 0))]))

    heads = theirs._forward_sam_heads(other, high_res_features=[fine, mid], multimask_output=True)
    decoded = network.decode(other, features, PromptBatch.none(1))
    for mine, other in (
        (decoded.logits_b1hw, heads[3]),
        (decoded.pointer_bc, heads[5]),
        (decoded.score_b, heads[6][0]),
    ):
        assert close(mine, other)

    mine = network.remember(features, heads[4], heads[6][0])
    assert close(mine, theirs._encode_new_memory(flat, [(side, side)], heads[4], heads[6], False)[0])


def close(mine: Tensor, other: Tensor) -> bool:
    """Whether no number differs by more than 1e-4 of the largest."""
    return mine.shape == other.shape and float((mine - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_the_image_size_counts(video: np.ndarray) -> None:
    """Left at another value, as SAM 2.1's own 1024 would be, it gives other masks."""
    both = small_pair("medsam2")
    theirs = their_tracks(both.theirs, video[:4], {1: {0: POINT[0]}})[1]
    larger = Sam2(SMALL_21, 2 * SMALL_SIZE)
    larger.load_state_dict(both.theirs.state_dict())
    ours = our_tracks(TorchEngine(larger, recipe_of("medsam2"), "", "cpu"), video[:4], {1: {0: POINT[0]}})[1]
    assert max(iou(ours.full[t], theirs.full[t]) for t in theirs.full) < 0.95


# A setting, another value, and a prompt for which it matters.
OTHER: list[tuple[str, Any, Said]] = [
    ("sigmoid_scale_for_mem_enc", 10.0, POINT),
    ("sigmoid_bias_for_mem_enc", 0.0, POINT),
    ("binarize_mask_from_pts_for_mem_enc", False, POINT),
    ("use_mask_input_as_output_without_sam", False, MASK),
    ("multimask_output_in_sam", False, POINT),
    ("multimask_output_for_tracking", False, POINT),
    ("multimask_min_pt_num", 1, POINT),
    ("multimask_max_pt_num", 2, BOX),
    ("use_obj_ptrs_in_encoder", False, POINT),
    ("add_tpos_enc_to_obj_ptrs", False, POINT),
    ("max_obj_ptrs_in_encoder", 8, POINT),
    ("memory_temporal_stride_for_eval", 2, POINT),
    ("add_all_frames_to_correct_as_cond", False, POINT),
]


@pytest.mark.parametrize(("setting", "value", "said"), OTHER, ids=[row[0] for row in OTHER])
def test_a_setting_with_another_value_would_show(
    medsam2: SimpleNamespace, video: np.ndarray, setting: str, value: Any, said: Said
) -> None:
    ours = our_tracks(medsam2.engine, video[:19], {1: said})[1]
    assert hasattr(medsam2.theirs, setting)
    with mock.patch.object(medsam2.theirs, setting, value):
        assert difference(ours, their_tracks(medsam2.theirs, video[:19], {1: said})[1]) > 30 * CLOSE


def test_an_absent_object_marks_its_memory(video: np.ndarray) -> None:
    """`no_obj_embed_spatial`, which matters only where the object is absent."""
    both = small_pair("medsam2", presence=0.06)
    ours = our_tracks(both.engine, video, {1: POINT})[1]
    assert_same(ours, their_tracks(both.theirs, video, {1: POINT})[1])
    with mock.patch.object(both.theirs, "no_obj_embed_spatial", None):
        assert difference(ours, their_tracks(both.theirs, video, {1: POINT})[1]) > 1e-3
