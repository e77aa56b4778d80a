"""EdgeTAM: 30 tracked frames agree with transformers' model, and with the authors' predictor as its users drive it.

As in test_parity.py and test_meta.py. Masks are compared at the network's size. transformers' session is driven as the
authors' predictor drives its own: a correction sees the mask that stood before it, a corrected frame is a conditioning
frame, and the memory of a mask prompt is made of the mask that is shown.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg import Tracker
from rtseg.engine import to_input
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, load_weights
from tests.edgetam import SIZE, SMALL, dimos, dimos_predictor, randomize, transformers_model

pytestmark = pytest.mark.slow  # tests/sam2/test_edgetam.py asks the same of each verb
Said = dict[int, dict[str, Any]]  # frame to the keywords of one prompt
GRID = SIZE // 16
DISC = np.hypot(*(np.mgrid[:SIZE, :SIZE] - np.array([64, 51])[:, None, None])) < 22
POINT: Said = {0: {"points": [(51, 64, 1)]}, 10: {"points": [(70, 64, 1), (10, 100, 0)]}}
BOX: Said = {0: {"box": (29.0, 42.0, 73.0, 86.0)}, 10: {"points": [(20, 20, 0)]}}
MASK: Said = {0: {"mask": DISC}, 10: {"mask": np.roll(DISC, 13, axis=1)}}


def engine_of(path: Path) -> TorchEngine:
    network = Sam2(SMALL, SIZE)
    load_weights(network, path)
    return TorchEngine(network, Recipe(model="edgetam", image_size=SIZE, runtime="torch"), "", "cpu")


@pytest.fixture(scope="module")
def transformers_pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    model, folder = transformers_model(seed=4), tmp_path_factory.mktemp("tracked")
    model.save_pretrained(folder)
    return SimpleNamespace(theirs=model, engine=engine_of(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def authors_pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("tracked")
    with dimos() as modules:
        model = randomize(dimos_predictor(modules, add_all_frames_to_correct_as_cond=True), 3)
    torch.save({"model": model.state_dict()}, folder / "edgetam.pt")
    return SimpleNamespace(theirs=model, modules=modules, engine=engine_of(folder / "edgetam.pt"))


def our_masks(engine: TorchEngine, video: np.ndarray, said: Said) -> dict[int, Tensor]:
    tracker, found = Tracker(engine, policy="fifo"), {}
    for t, frame in enumerate(video):
        if t in said:
            tracker.prompt(1, **said[t])
        masks = tracker.step(frame)
        if masks.ids:
            found[t] = torch.from_numpy(masks.mask_logits_bhw[0])
    return found


@torch.inference_mode()
def masks_of_transformers(model: Any, video: np.ndarray, said: Said) -> dict[int, Tensor]:
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

    session = EdgeTamVideoInferenceSession(video=torch.cat([to_input(f, SIZE) for f in video]), dtype=torch.float32)
    session.obj_id_to_idx(1)
    return {t: frame_of_transformers(model, session, t, said.get(t), first=t == min(said)) for t in range(len(video))}


def frame_of_transformers(model: Any, session: Any, t: int, prompt: dict[str, Any] | None, first: bool) -> Tensor:
    def run(points: Any = None, mask: Any = None, before: Any = None, remembers: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = model._run_single_frame_inference(
            session, frame_idx=t, obj_idx=0, batch_size=1, is_init_cond_frame=first, point_inputs=points,
            mask_inputs=mask, reverse=False, run_mem_encoder=remembers, prev_sam_mask_logits=before, streaming=True,
        )  # fmt: skip
        return found

    if prompt is None:
        result = run()
    elif "mask" in prompt:
        mask = torch.from_numpy(prompt["mask"])[None, None].float()
        result = run(mask=mask, remembers=False)
        fine, mid, top = model._prepare_vision_features(session, t, 1)[0]
        shown = F.interpolate(result["pred_masks"], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        score = result["object_score_logits"]
        result["maskmem_features"], result["maskmem_pos_enc"] = model._encode_new_memory(top, shown, score, True)
        sides = (4 * GRID, 2 * GRID, GRID)
        maps = [x.permute(1, 2, 0).unflatten(2, (s, s)) for x, s in zip((fine, mid, top), sides, strict=True)]
        single = model._single_frame_forward(  # theirs takes the pointer of the best of three
            input_masks=model.mask_downsample(mask), image_embeddings=maps, multimask_output=False
        )
        result["object_pointer"] = single.object_pointer
    else:
        rows = [(*prompt["box"][:2], 2), (*prompt["box"][2:], 3)] if "box" in prompt else []
        rows += prompt.get("points", [])
        coords = torch.tensor([[[row[:2] for row in rows]]], dtype=torch.float32)
        points = {"point_coords": coords, "point_labels": torch.tensor([[[row[2] for row in rows]]], dtype=torch.int32)}
        before = None if first else run(remembers=False)["pred_masks"].clamp(-32, 32)
        result = run(points=points, before=before)
    session.store_output(0, t, output_value=result, is_conditioning_frame=prompt is not None)
    mask_hw: Tensor = result["pred_masks"][0, 0]
    return mask_hw


def masks_of_authors(pair: SimpleNamespace, video: np.ndarray, said: Said) -> dict[int, Tensor]:
    """Theirs keeps memories in bfloat16, which alone moves logits by more than is allowed: here in float32."""
    model, module = pair.theirs, pair.modules.sam2_video_predictor
    pixels = torch.cat([to_input(frame, SIZE) for frame in video])
    loaded = mock.patch.object(module, "load_video_frames", return_value=(pixels, *video.shape[1:3]))
    with loaded, mock.patch.object(torch, "bfloat16", torch.float32):
        state = model.init_state("")
        moments = [*sorted(said), len(video) - 1]
        for t, until in pairwise(moments):
            prompt = said[t]
            if "mask" in prompt:
                model.add_new_mask(state, t, 1, torch.from_numpy(prompt["mask"]))
            else:
                rows = prompt.get("points", [])
                model.add_new_points_or_box(
                    state, t, 1, np.array([r[:2] for r in rows], np.float32) if rows else None,
                    np.array([r[2] for r in rows], np.int32) if rows else None, box=prompt.get("box"),
                )  # fmt: skip
            for _ in model.propagate_in_video(state, t, until - t):
                pass
    outputs = state["output_dict_per_obj"][0].values()
    return {t: out["pred_masks"][0, 0] for kept in outputs for t, out in kept.items()}


def iou(a: Tensor, b: Tensor) -> float:
    a, b = a > 0, b > 0
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def far(a: dict[int, Tensor], b: dict[int, Tensor]) -> float:
    """Largest difference over the frames that both have, relative to the largest logit of each."""
    return max(float((a[t] - b[t]).abs().max() / b[t].abs().max()) for t in a.keys() & b.keys())


def assert_same(engine: TorchEngine, theirs: dict[int, Tensor], video: np.ndarray, said: Said) -> None:
    ours = our_masks(engine, video, said)
    assert ours.keys() == theirs.keys()
    overlaps = [iou(ours[t], theirs[t]) for t in theirs]
    assert min(overlaps) >= 0.995 and np.mean(overlaps) >= 0.999
    assert far(ours, theirs) < 1e-4
    assert all(0.02 < float((m > 0).float().mean()) < 0.98 for m in theirs.values())  # masks that say something
    uncorrected = our_masks(engine, video, {0: said[0]})
    assert far({t: uncorrected[t] for t in range(10)}, theirs) < 1e-4
    assert far({t: uncorrected[t] for t in range(10, 30)}, theirs) > 1e-2


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_as_transformers(transformers_pair: SimpleNamespace, video: np.ndarray, said: Said) -> None:
    theirs = masks_of_transformers(transformers_pair.theirs, video, said)
    assert_same(transformers_pair.engine, theirs, video, said)


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_as_the_authors_predictor(authors_pair: SimpleNamespace, video: np.ndarray, said: Said) -> None:
    theirs = masks_of_authors(authors_pair, video, said)
    assert_same(authors_pair.engine, theirs, video, said)


@pytest.mark.parametrize("part", ["spatial_perceiver.latents", "spatial_perceiver.latents_2d", "maskmem_tpos_enc"])
def test_other_weights_would_show(authors_pair: SimpleNamespace, video: np.ndarray, part: str) -> None:
    theirs = masks_of_authors(authors_pair, video[:14], {0: POINT[0]})
    weight = dict(authors_pair.engine._network.named_parameters())[part]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        spoilt = our_masks(authors_pair.engine, video[:14], {0: POINT[0]})
        weight.copy_(kept)
    assert far(our_masks(authors_pair.engine, video[:14], {0: POINT[0]}), theirs) < 1e-4
    assert far(spoilt, theirs) > 1e-3
