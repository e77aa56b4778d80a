"""EdgeTAM: each verb agrees with transformers' model and with the authors' code to 1e-4, and would not by accident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rtseg.base.errors import ConfigError
from rtseg.sam2 import PRESETS, Features, PromptBatch, Recall, Sam2, certain, load_weights, upsample
from tests.edgetam import SIZE, SMALL, as_tokens, dimos, dimos_predictor, error, randomize, transformers_model

GRID, SIDE = SIZE // 16, SMALL.perceiver


@dataclass
class Pair:
    """A model of others, and our network with its weights, loaded from the file that they save."""

    theirs: Any
    ours: Sam2
    encode: Callable[[Tensor], list[Tensor]]  # an image to the maps at stride 4, 8 and 16 [n, c, h, w]
    attend: Callable[[Features, Recall], Tensor]
    decode: Callable[[Features, PromptBatch], tuple[Tensor, Tensor, Tensor]]  # mask, pointer and object score
    remember: Callable[[Features, Tensor, Tensor, bool], tuple[Tensor, Tensor]]  # latents [b, n, M], and positions


@pytest.fixture(scope="module", params=[pytest.param("transformers", marks=pytest.mark.slow), "authors"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("edgetam")
    ours = Sam2(SMALL, SIZE).eval()
    if request.param == "transformers":
        model = transformers_model()
        model.save_pretrained(folder)
        load_weights(ours, folder / "model.safetensors")
        return of_transformers(model, ours)
    with dimos() as modules:
        predictor = randomize(dimos_predictor(modules), 1)
    torch.save({"model": predictor.state_dict()}, folder / "edgetam.pt")
    load_weights(ours, folder / "edgetam.pt")
    return of_authors(predictor, ours)


def of_transformers(model: Any, ours: Sam2) -> Pair:
    def encode(image: Tensor) -> list[Tensor]:
        tokens = model.get_image_features(image, return_dict=True).fpn_hidden_states
        return [
            t.permute(1, 2, 0).unflatten(2, (s, s)) for t, s in zip(tokens, (4 * GRID, 2 * GRID, GRID), strict=True)
        ]

    def attend(features: Features, r: Recall) -> Tensor:
        values, keys, spatial = their_memory(ours, r)
        position = model.vision_encoder.neck.position_encoding(features.top.shape, "cpu", torch.float32)
        found: Tensor = model.memory_attention(
            current_vision_features=as_tokens(features.top), memory=values,
            current_vision_position_embeddings=as_tokens(position), memory_posision_embeddings=keys,
            num_object_pointer_tokens=len(values) - spatial, num_spatial_memory_tokens=len(r.slots),
        )  # fmt: skip
        return found.squeeze(1).transpose(1, 2).unflatten(2, (GRID, GRID))

    def decode(features: Features, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        points = prompts.points_bpc[:, None] if prompts.points_bpc.shape[1] else None
        found = model._single_frame_forward(
            input_points=points, input_labels=prompts.labels_bp[:, None] if points is not None else None,
            input_masks=prompts.mask_b1hw, image_embeddings=[features.fine, features.mid, features.top],
            multimask_output=prompts.multimask,
        )  # fmt: skip
        return found.pred_masks, found.object_pointer[:, 0], found.object_score_logits.flatten()

    def remember(features: Features, logits: Tensor, scores: Tensor, sure: bool) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = model._encode_new_memory(as_tokens(features.top), logits, scores[:, None], sure)
        return found[0], found[1].squeeze(1)[0]

    return Pair(model, ours, encode, attend, decode, remember)


def of_authors(model: Any, ours: Sam2) -> Pair:
    def encode(image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = model.forward_image(image)["backbone_fpn"]
        return maps

    def attend(features: Features, r: Recall) -> Tensor:
        values, keys, spatial = their_memory(ours, r)
        position = model.image_encoder.neck.position_encoding(features.top)
        found: Tensor = model.memory_attention(
            curr=[as_tokens(features.top)], curr_pos=[as_tokens(position)], memory=values, memory_pos=keys,
            num_obj_ptr_tokens=len(values) - spatial, num_spatial_mem=len(r.slots),
        )  # fmt: skip
        return found.permute(1, 2, 0).unflatten(2, (GRID, GRID))

    def decode(features: Features, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        points = {"point_coords": prompts.points_bpc, "point_labels": prompts.labels_bp}
        found = model._forward_sam_heads(
            features.top, points if prompts.points_bpc.shape[1] else None, prompts.mask_b1hw,
            [features.fine, features.mid], prompts.multimask,
        )  # fmt: skip
        return found[3], found[5], found[6].flatten()

    def remember(features: Features, logits: Tensor, scores: Tensor, sure: bool) -> tuple[Tensor, Tensor]:
        found = model._encode_new_memory([as_tokens(features.top)], [(GRID, GRID)], logits, scores[:, None], sure)
        return found[0], found[1][0][0]

    return Pair(model, ours, encode, attend, decode, remember)


def their_memory(ours: Sam2, r: Recall) -> tuple[Tensor, Tensor, int]:
    """Values and positions of all tokens, [n, 1, M], as both concatenate them; and how many are latents.

    Global latents have no position, those of windows that of their window, all that of their slot, and pointers none:
    made here from the paper's parts, not by our tokenizer.
    """
    sine = sine_of_windows()
    latents = [m.map_chw.flatten(1).T for m in r.memories]
    places = [torch.cat((torch.zeros_like(sine), sine)) + ours.maskmem_tpos_enc[s].view(1, -1) for s in r.slots]
    pointers = r.pointers_pc.reshape(-1, SMALL.memory_dim)
    values = torch.cat([*latents, pointers])[:, None]
    return values, torch.cat([*places, torch.zeros_like(pointers)])[:, None], 2 * SIDE**2 * len(latents)


def sine_of_windows() -> Tensor:
    """DETR's sine encoding of SIDE x SIDE windows, [n, M]: half of the channels for the row, half for the column."""
    half = SMALL.memory_dim // 2
    steps = torch.arange(1, SIDE + 1) / SIDE * 2 * torch.pi
    angle = steps[:, None] / 10000 ** (2 * torch.arange(half // 2) / half)
    code = torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)
    return torch.cat((code.repeat_interleave(SIDE, dim=0), code.repeat(SIDE, 1)), dim=1)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def features(pair: Pair, image: Tensor) -> Features:
    with torch.inference_mode():
        return pair.ours.encode_image(image)


@torch.inference_mode()
def test_encode_image(pair: Pair, image: Tensor, features: Features) -> None:
    theirs = pair.encode(image)
    for mine, other in zip((features.fine, features.mid, features.top), theirs, strict=True):
        assert error(mine, other) < 1e-4
    assert error(pair.ours.encode_image(image.flip(3)).top, theirs[2]) > 1e-2


def recall(seed: int = 2, frames: int = 3, pointers: int = 4) -> Recall:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(frames, 64, 2 * SIDE, SIDE, generator=g)
    vectors = torch.randn(pointers, 256, generator=g)
    return Recall.from_maps(latents, (6, *range(frames - 2, -1, -1)), vectors, (40, *range(1, pointers)))


@torch.inference_mode()
def test_attend(pair: Pair, features: Features) -> None:
    r = recall()
    theirs = pair.attend(features, r)
    assert error(pair.ours.attend(features, [r]), theirs) < 1e-4
    assert error(pair.ours.attend(features, [replace(r, slots=(6, 5, 4))]), theirs) > 1e-3
    turned = [replace(m, map_chw=m.map_chw.roll(SIDE, dims=1)) for m in r.memories]  # global ones for those of windows
    assert error(pair.ours.attend(features, [replace(r, memories=turned)]), theirs) > 1e-3
    older = pair.ours.attend(features, [replace(r, ages=(41, 2, 3, 4))])
    assert error(older, theirs) < 1e-4  # pointers carry no age


@torch.inference_mode()
def test_attend_batched_is_alone(pair: Pair, features: Features) -> None:
    several = [recall(3, 2, 1), None, recall(4, 5, 9)]
    together = pair.ours.attend(features, several)
    for i, r in enumerate(several):
        alone = pair.ours.attend(features, [r])
        assert error(together[i : i + 1], alone) < 1e-5
        assert error(together[i : i + 1], pair.ours.attend(features, [several[i - 1]])) > 1e-3


POINT = PromptBatch(torch.tensor([[[40.0, 60.0]]]), torch.tensor([[1]], dtype=torch.int32))
BOX = PromptBatch(torch.tensor([[[20.0, 30.0], [90.0, 100.0]]]), torch.tensor([[2, 3]], dtype=torch.int32))
CORRECTION = PromptBatch(
    torch.tensor([[[40.0, 60.0], [10.0, 12.0]]]),
    torch.tensor([[1, 0]], dtype=torch.int32),
    torch.randn(1, 1, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(5)),
)


@pytest.mark.parametrize("prompts", [POINT, BOX, CORRECTION, PromptBatch.none(1)], ids=["point", "box", "fix", "none"])
@torch.inference_mode()
def test_decode(pair: Pair, features: Features, prompts: PromptBatch) -> None:
    mask, pointer, score = pair.decode(features, prompts)
    ours = pair.ours.decode(features.top, features, prompts)
    assert error(ours.logits_b1hw, mask) < 1e-4
    assert error(ours.pointer_bc, pointer) < 1e-4
    assert error(ours.score_b, score) < 1e-4
    moved = PromptBatch(torch.tensor([[[100.0, 20.0]]]), torch.tensor([[1]]))
    assert error(pair.ours.decode(features.top, features, moved).pointer_bc, pointer) > 1e-3


@pytest.mark.parametrize("score", [3.0, -3.0])
@torch.inference_mode()
def test_remember(pair: Pair, features: Features, score: float) -> None:
    logits = upsample(torch.randn(1, 1, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(6)), SIZE)
    scores = torch.tensor([score])
    for sure in (False, True):
        ours = pair.ours.remember(features, certain(logits) if sure else logits, scores)
        theirs, positions = pair.remember(features, logits, scores, sure)
        assert ours.shape == (1, 64, *SMALL.memory_shape(GRID))
        assert error(ours.flatten(2).transpose(1, 2), theirs) < 1e-4
        assert error(pair.ours.tokenizer.cells, positions) < 1e-5
        flipped = pair.ours.remember(features, certain(logits.flip(2)) if sure else logits.flip(2), scores)
        assert error(flipped.flatten(2).transpose(1, 2), theirs) > 1e-3
        absent = pair.ours.remember(features, certain(logits) if sure else logits, -scores)
        assert torch.equal(absent, ours)  # 2.0's memories do not say that an object is absent, and neither do these


@torch.inference_mode()
def test_every_layer_of_the_perceiver_counts(pair: Pair, features: Features) -> None:
    """Half of it works on windows alone, where some of its layers have little to do."""
    logits, score = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(7)), torch.ones(1)
    right = pair.ours.remember(features, logits, score)
    assert pair.ours.spatial_perceiver is not None
    for name, p in pair.ours.spatial_perceiver.named_parameters():
        kept = p.clone()
        p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(8)))
        assert error(pair.ours.remember(features, logits, score), right) > 1e-4, name
        p.copy_(kept)


def test_a_size_that_has_no_whole_windows() -> None:
    with pytest.raises(ConfigError, match="image_size 320: expected a multiple of 256, because edgetam divides it"):
        Sam2(PRESETS["edgetam"], 320)


@pytest.mark.slow
@torch.inference_mode()
def test_the_published_sizes(tmp_path: Path) -> None:
    """All of it at 1024 px, as published: features, attention to seven memories, and a memory."""
    with dimos() as modules:
        theirs = randomize(dimos_predictor(modules, small=False), 2)
    torch.save({"model": theirs.state_dict()}, tmp_path / "edgetam.pt")
    ours = Sam2(PRESETS["edgetam"], 1024).eval()
    load_weights(ours, tmp_path / "edgetam.pt")
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    features, maps = ours.encode_image(image), theirs.forward_image(image)["backbone_fpn"]
    assert error(features.top, maps[2]) < 1e-4
    latents, positions = theirs._encode_new_memory(
        [as_tokens(features.top)], [(64, 64)], image[:, :1], torch.ones(1, 1), False
    )
    assert error(ours.remember(features, image[:, :1], torch.ones(1)).flatten(2).transpose(1, 2), latents) < 1e-4
    g = torch.Generator().manual_seed(2)
    slots = (6, 5, 4, 3, 2, 1, 0)
    r = Recall.from_maps(torch.randn(7, 64, 32, 16, generator=g), slots, torch.randn(16, 256, generator=g), (1,) * 16)
    pointers = r.pointers_pc.reshape(-1, 64)
    values = torch.cat([*(m.map_chw.flatten(1).T for m in r.memories), pointers])[:, None]
    places = [positions[0][0] + ours.maskmem_tpos_enc[slot].view(1, -1) for slot in slots]
    found = theirs.memory_attention(
        curr=[as_tokens(features.top)], curr_pos=[as_tokens(theirs.image_encoder.neck.position_encoding(maps[2]))],
        memory=values, memory_pos=torch.cat([*places, torch.zeros_like(pointers)])[:, None],
        num_obj_ptr_tokens=len(pointers), num_spatial_mem=7,
    )  # fmt: skip
    assert error(ours.attend(features, [r]), found.permute(1, 2, 0).unflatten(2, (64, 64))) < 1e-4
