"""30 tracked frames agree with transformers' Sam2VideoModel, for each kind of prompt, one object and three.

Their session tracks one object at a time, driven here as Meta's video predictor drives its own: a correction sees
the mask that stood before it (their forward() leaves that out), corrected frames are conditioning frames, and the
pointer of a mask prompt comes from the single-mask token. Memories stay fp32 (they round theirs to bfloat16, which a
random network turns into other masks within a few frames).
"""

from __future__ import annotations

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
from tests.shared import plain

Said = dict[int, dict[str, Any]]  # frame to the keywords of one prompt


def their_masks(model: Any, video: np.ndarray, said: Said) -> dict[int, Tensor]:
    """Mask logits [32, 32] of one object on each frame from its first prompt on."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    pixels = torch.cat([to_input(frame, len(frame)) for frame in video])
    session = Sam2VideoInferenceSession(video=pixels, dtype=torch.float32)
    session.obj_id_to_idx(1)
    out = {}
    with torch.inference_mode():
        for t in range(min(said), len(video)):
            result = their_frame(model, session, t, said.get(t), first=t == min(said))
            out[t] = result["pred_masks"][0, 0]
    return out


def their_frame(model: Any, session: Any, t: int, prompt: dict[str, Any] | None, first: bool) -> Any:
    def run(points: Any = None, mask: Any = None, before: Any = None) -> Any:
        return model._run_single_frame_inference(
            session, frame_idx=t, obj_idx=0, batch_size=1, is_init_cond_frame=first, point_inputs=points,
            mask_inputs=mask, reverse=False, prev_sam_mask_logits=before, streaming=True,
        )  # fmt: skip

    if prompt is None:
        result = run()
    elif "mask" in prompt:
        mask = torch.from_numpy(prompt["mask"])[None, None].float()
        result = run(mask=mask)
        low_res = result["pred_masks"]  # from which Meta's predictor makes the memory; theirs takes the mask itself
        result["high_res_masks"] = F.interpolate(low_res, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        fine, mid, top = model._prepare_vision_features(session, t, 1)[0]
        maps = [f.permute(1, 2, 0).unflatten(2, (s, s)) for f, s in ((fine, 32), (mid, 16), (top, 8))]
        single = model._single_frame_forward(
            input_masks=model.mask_downsample(mask), image_embeddings=maps, multimask_output=False
        )
        result["object_pointer"] = single.object_pointer
    else:
        rows = [(*prompt["box"][:2], 2), (*prompt["box"][2:], 3)] if "box" in prompt else []
        rows += prompt.get("points", [])
        coords = torch.tensor([[[row[:2] for row in rows]]], dtype=torch.float32)
        points = {"point_coords": coords, "point_labels": torch.tensor([[[row[2] for row in rows]]])}
        before = None if first else run()["pred_masks"].clamp(-32, 32)
        result = run(points=points, before=before)
    session.store_output(0, t, output_value=result, is_conditioning_frame=prompt is not None)
    score = result["object_score_logits"]
    with mock.patch.object(torch, "bfloat16", torch.float32):
        model._batch_encode_memories(session, t, [0], [result["high_res_masks"]], [score], [prompt is not None])
    return result


def our_masks(engine: Any, video: np.ndarray, objects: dict[int, Said]) -> dict[int, dict[int, Tensor]]:
    tracker = plain(Tracker(engine, policy="fifo"))
    out: dict[int, dict[int, Tensor]] = {i: {} for i in objects}
    for t, frame in enumerate(video):
        for i, said in objects.items():
            if t in said:
                tracker.prompt(i, **said[t])
        masks = tracker.step(frame)
        for row, i in enumerate(masks.ids):
            out[i][t] = torch.from_numpy(masks.mask_logits_bhw[row])
    return out


def iou(a: Tensor, b: Tensor) -> float:
    a, b = a > 0, b > 0
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def agree(ours: dict[int, Tensor], theirs: dict[int, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return min(iou(ours[t], theirs[t]) for t in theirs)


DISC = np.hypot(*(np.mgrid[:128, :128] - np.array([64, 51])[:, None, None])) < 22
POINT: Said = {0: {"points": [(51, 64, 1)]}, 10: {"points": [(70, 64, 1), (10, 100, 0)]}}
BOX: Said = {0: {"box": (29.0, 42.0, 73.0, 86.0)}, 10: {"points": [(20, 20, 0)]}}
MASK: Said = {0: {"mask": DISC}, 10: {"mask": np.roll(DISC, 13, axis=1)}}
LATE: Said = {12: {"box": (5.0, 5.0, 60.0, 50.0), "points": [(30, 30, 1)]}}


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_one_object(tracked_pair: SimpleNamespace, video: np.ndarray, said: Said) -> None:
    theirs = their_masks(tracked_pair.theirs, video, said)
    ours = our_masks(tracked_pair.engine, video, {1: said})[1]
    assert agree(ours, theirs) >= 0.999
    assert far(ours, theirs) < 1e-4  # of the logits, after 30 frames of feedback
    uncorrected = our_masks(tracked_pair.engine, video, {1: {0: said[0]}})[1]
    assert agree({t: uncorrected[t] for t in range(10)}, {t: theirs[t] for t in range(10)}) >= 0.999
    assert far(uncorrected, theirs) > 1e-2


@pytest.mark.slow
def test_three_objects_with_a_late_one(tracked_pair: SimpleNamespace, video: np.ndarray) -> None:
    objects = {1: POINT, 2: MASK, 3: LATE}
    theirs = {i: their_masks(tracked_pair.theirs, video, said) for i, said in objects.items()}
    ours = our_masks(tracked_pair.engine, video, objects)
    for i in objects:
        assert agree(ours[i], theirs[i]) >= 0.999
        assert far(ours[i], theirs[i]) < 1e-4
    late = our_masks(tracked_pair.engine, video, {**objects, 3: {13: LATE[12]}})
    assert far(late[3], theirs[3]) > 1e-2


def test_masks_are_not_trivial(tracked_pair: SimpleNamespace, video: np.ndarray) -> None:
    """Otherwise agreement would prove nothing: the masks are neither empty nor full, and they move."""
    ours = our_masks(tracked_pair.engine, video, {1: POINT})[1]
    shares = [float((m > 0).float().mean()) for m in ours.values()]
    assert sum(0.02 < s < 0.98 for s in shares) > 15
    assert iou(ours[3], ours[29]) < 0.95


def test_batched_is_alone(tracked_pair: SimpleNamespace, video: np.ndarray) -> None:
    objects = {1: POINT, 2: MASK, 3: LATE}
    together = our_masks(tracked_pair.engine, video[:18], objects)
    for i, said in objects.items():
        alone = our_masks(tracked_pair.engine, video[:18], {i: said})[i]
        other = together[1 + i % 3]
        assert far(together[i], alone) < 1e-4
        assert far(other, alone) > 1e-2


def far(a: dict[int, Tensor], b: dict[int, Tensor]) -> float:
    """Largest difference over the frames that both have, relative to the largest logit of each."""
    return max(float((a[t] - b[t]).abs().max() / b[t].abs().max()) for t in a.keys() & b.keys())
