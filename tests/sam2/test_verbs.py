"""Each verb agrees with transformers' Sam2VideoModel to 1e-4, and would not agree if something were wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rtseg.sam2 import Features, PromptBatch, Recall, Sam2, certain, upsample

SIZE, GRID = 128, 8


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def features(pair: SimpleNamespace, image: Tensor) -> Features:
    with torch.inference_mode():
        return pair.ours.encode_image(image)


def as_tokens(x_nchw: Tensor) -> Tensor:
    return x_nchw.flatten(2).permute(2, 0, 1)


@torch.inference_mode()
def test_encode_image(pair: SimpleNamespace, image: Tensor, features: Features) -> None:
    theirs = pair.theirs.get_image_features(image, return_dict=True).fpn_hidden_states
    for mine, other in zip((features.fine, features.mid, features.top), theirs, strict=True):
        assert error(as_tokens(mine), other) < 1e-4
    mirrored = pair.ours.encode_image(image.flip(3))
    assert error(as_tokens(mirrored.top), theirs[2]) > 1e-2


def recall(seed: int = 2, frames: int = 3, pointers: int = 4) -> Recall:
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(frames, 64, GRID, GRID, generator=g)
    vectors = torch.randn(pointers, 256, generator=g)
    return Recall.from_maps(maps, (6, *range(frames - 2, -1, -1)), vectors, (40, *range(1, pointers)))


def their_attention(model: torch.nn.Module, features: Features, r: Recall) -> Tensor:
    """Transformers' conditioned features for the same memories, through its own session."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(video=torch.zeros(64, 3, 8, 8), dtype=torch.float32)
    session.obj_id_to_idx(1)
    now, cells = 40, model.memory_encoder.position_encoding((1, 64, GRID, GRID), "cpu", torch.float32)
    outputs = session.output_dict_per_obj[0]
    frames = [0] + [now - 1 - slot for slot in r.slots[1:]]
    pointer_of = {now - age: vector for age, vector in zip(r.ages, r.pointers_pc, strict=True)}
    for i, frame in enumerate(frames):
        key = "cond_frame_outputs" if i == 0 else "non_cond_frame_outputs"
        outputs[key][frame] = {
            "maskmem_features": as_tokens(r.memories[i].map_chw[None]),
            "maskmem_pos_enc": as_tokens(cells),
            "object_pointer": pointer_of[frame][None],
        }
    for frame, vector in pointer_of.items():
        if frame not in frames:
            outputs["non_cond_frame_outputs"][frame] = {"object_pointer": vector[None]}
    attention_inputs = model._build_memory_attention_inputs

    def skip_mapless(entries: list, device: str) -> tuple:  # type: ignore[type-arg]
        return attention_inputs([(t, o) for t, o in entries if o and "maskmem_features" in o], device)

    model._build_memory_attention_inputs = skip_mapless
    try:
        result: Tensor = model._prepare_memory_conditioned_features(
            inference_session=session,
            frame_idx=now,
            obj_idx=0,
            is_initial_conditioning_frame=False,
            current_vision_features=as_tokens(features.top),
            current_vision_positional_embeddings=as_tokens(
                model.vision_encoder.neck.position_encoding(features.top.shape, "cpu", torch.float32)
            ),
            num_total_frames=64,
        )
    finally:
        model._build_memory_attention_inputs = attention_inputs
    return result


@torch.inference_mode()
def test_attend(pair: SimpleNamespace, features: Features) -> None:
    r = recall()
    theirs = their_attention(pair.theirs, features, r)
    assert error(pair.ours.attend(features, [r]), theirs) < 1e-4
    older = replace(r, slots=(6, 5, 4))
    assert error(pair.ours.attend(features, [older]), theirs) > 1e-3
    younger = replace(r, ages=(4, 1, 2, 3))
    assert error(pair.ours.attend(features, [younger]), theirs) > 1e-3


@torch.inference_mode()
def test_attend_batched_is_alone(pair: SimpleNamespace, features: Features) -> None:
    several = [recall(3, 2, 1), None, recall(4, 5, 9)]
    together = pair.ours.attend(features, several)
    for i, r in enumerate(several):
        alone = pair.ours.attend(features, [r])
        assert error(together[i : i + 1], alone) < 1e-5
        assert error(together[i : i + 1], pair.ours.attend(features, [several[i - 1]])) > 1e-3


def their_decode(pair: SimpleNamespace, features: Features, prompts: PromptBatch, multimask: bool) -> SimpleNamespace:
    points = prompts.points_bpc[:, None] if prompts.points_bpc.shape[1] else None
    out: SimpleNamespace = pair.theirs._single_frame_forward(
        input_points=points,
        input_labels=prompts.labels_bp[:, None] if points is not None else None,
        input_masks=prompts.mask_b1hw,
        image_embeddings=[features.fine, features.mid, features.top],
        multimask_output=multimask,
    )
    return out


POINT = PromptBatch(torch.tensor([[[40.0, 60.0]]]), torch.tensor([[1]]))
BOX = PromptBatch(torch.tensor([[[20.0, 30.0], [90.0, 100.0]]]), torch.tensor([[2, 3]]))
CORRECTION = PromptBatch(
    torch.tensor([[[40.0, 60.0], [10.0, 12.0]]]),
    torch.tensor([[1, 0]]),
    torch.randn(1, 1, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(5)),
)


@pytest.mark.parametrize("prompts", [POINT, BOX, CORRECTION, PromptBatch.none(1)], ids=["point", "box", "fix", "none"])
@torch.inference_mode()
def test_decode(pair: SimpleNamespace, features: Features, prompts: PromptBatch) -> None:
    multimask = prompts.multimask
    theirs = their_decode(pair, features, prompts, multimask)
    ours = pair.ours.decode(features.top, features, prompts)
    assert error(ours.logits_b1hw, theirs.pred_masks) < 1e-4
    assert error(ours.pointer_bc, theirs.object_pointer[:, 0]) < 1e-4
    assert error(ours.score_b, theirs.object_score_logits.flatten()) < 1e-4
    assert error(ours.iou_b, theirs.iou_scores.flatten().max()) < 1e-4
    moved = PromptBatch(torch.tensor([[[100.0, 20.0]]]), torch.tensor([[1]]))
    other = pair.ours.decode(features.top, features, moved)
    assert error(other.pointer_bc, theirs.object_pointer[:, 0]) > 1e-3


@torch.inference_mode()
def test_an_absent_object_has_no_mask_and_the_pointer_of_absence(pair: SimpleNamespace, features: Features) -> None:
    heads = pair.theirs.mask_decoder.pred_obj_score_head.proj_out, pair.ours.sam_mask_decoder.pred_obj_score_head.layers
    biases = heads[0].bias, heads[1][-1].bias
    kept = biases[0].clone()
    for bias in biases:
        bias.fill_(-20.0)
    theirs = their_decode(pair, features, POINT, multimask=True)
    ours = pair.ours.decode(features.top, features, POINT)
    for bias in biases:
        bias.copy_(kept)
    assert theirs.object_score_logits.item() < 0 and ours.score_b.item() < 0
    assert (ours.logits_b1hw == -1024).all() and torch.equal(ours.logits_b1hw, theirs.pred_masks)
    assert torch.equal(ours.pointer_bc, pair.ours.no_obj_ptr)
    assert error(ours.pointer_bc, theirs.object_pointer[:, 0]) < 1e-4


@torch.inference_mode()
def test_candidates_are_not_trivial(pair: SimpleNamespace, features: Features) -> None:
    """The random network says something: objects present and absent, masks neither empty nor full."""
    cand = pair.ours.predict_masks(features.top, features, POINT)
    share = (cand.logits_bkhw > 0).float().mean().item()
    assert 0.05 < share < 0.95
    assert cand.score_b.item() > 0


@torch.inference_mode()
def test_from_mask(pair: SimpleNamespace, features: Features) -> None:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[:, :, 30:70, 20:90] = 1
    given = PromptBatch(torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long), answer_b1hw=mask)
    ours = pair.ours.decode(features.top, features, given)
    theirs = pair.theirs._use_mask_as_output(features.top, [features.fine, features.mid], mask)
    assert error(ours.logits_b1hw, theirs.pred_masks) < 1e-4
    # Meta's predictor takes the pointer of the single-mask token; transformers', of the best of three.
    prompts = PromptBatch(torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long), pair.ours.mask_downsample(mask))
    single = their_decode(pair, features, prompts, multimask=False)
    assert error(ours.pointer_bc, single.object_pointer[:, 0]) < 1e-4
    empty = pair.ours.from_mask(features, torch.zeros_like(mask))
    assert torch.equal(empty.pointer_bc, pair.ours.no_obj_ptr) and empty.score_b.item() == -10


@pytest.mark.parametrize("score", [3.0, -3.0])
@torch.inference_mode()
def test_remember(pair: SimpleNamespace, features: Features, score: float) -> None:
    logits = upsample(torch.randn(1, 1, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(6)), SIZE)
    scores = torch.tensor([score])
    for binarize in (False, True):
        given = certain(logits) if binarize else logits
        ours = pair.ours.remember(features, given, scores)
        theirs, _ = pair.theirs._encode_new_memory(as_tokens(features.top), logits, scores[:, None], binarize)
        theirs = theirs.float().permute(1, 2, 0).unflatten(2, (GRID, GRID))
        # transformers rounds memories to bfloat16, so ours is rounded before the comparison.
        assert error(ours.bfloat16().float(), theirs) < 1e-2
        assert (ours.bfloat16().float() - theirs).abs().mean() / theirs.abs().mean() < 1e-4
        flipped = pair.ours.remember(features, given, -scores)
        assert error(flipped, theirs) > 1e-2


def test_image_size_must_fit(pair: SimpleNamespace) -> None:
    from rtseg.base.errors import ConfigError

    with pytest.raises(ConfigError, match="multiple of 32"):
        Sam2(pair.ours.preset, 500)
