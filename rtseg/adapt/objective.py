"""The loss of one training step: track several objects through clips, from prompts of every kind.

On the first frame, some objects are prompted with masks and the others with a box or points, which clicks sometimes
correct. In some clips, clicks also correct one later frame. Every prompted frame is a conditioning frame from then on,
as in the tracker.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import MEAN, STD, Features, PromptBatch, Sam2, on_device
from . import simulated_prompts
from .batches import Batch
from .correspondence import correspondence_loss
from .losses import LossWeights, copied_loss, frame_loss, hard_iou
from .motion import Rng
from .rollout import Predicted, Rollout, fifo, random_subset

# The share of the objects with a mask prompt. All others of a step have one kind of prompt, with these probabilities.
MASKS = 0.55
OTHER_PROMPTS = {"box": 0.35, "point": 0.4, "points": 0.25}
MAX_POINTS = 5
# Probabilities of a correction, and the most clicks of one.
CORRECT_FIRST, CORRECT_LATER = 0.5, 0.25
MAX_CLICKS = 2


def normalized(image_nchw: Tensor) -> Tensor:
    """The network's input for images uint8 [..., 3, S, S]: float, normalised by ImageNet's mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def clip_loss(net: Sam2, batch: Batch, rng: Rng, weights: LossWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss terms, as means over all predictions; and the mean IoU of tracked frames and of each kind of prompt."""
    losses: list[dict[str, Tensor]] = []
    ious: dict[str, list[Tensor]] = {}
    frames = _encoded(net, batch.image_ntchw)
    for name, predicted, target_bhw in _predictions(net, batch, frames, rng):
        if predicted.all_logits_bkhw is None or predicted.all_iou_bk is None:
            continue
        losses.append(
            frame_loss(predicted.all_logits_bkhw, predicted.all_iou_bk, predicted.score_b, target_bhw, weights)
        )
        if name == "tracked" and predicted.copied_bgg is not None:
            losses[-1]["copied"] = weights.copied * copied_loss(predicted.copied_bgg, target_bhw)
        small_b1hw = F.adaptive_avg_pool2d(target_bhw[:, None].float(), 4 * net.grid)
        ious.setdefault(name, []).append(hard_iou(predicted.logits_b1hw.detach(), small_b1hw).mean())
    names = {name for one in losses for name in one}
    terms = {name: torch.stack([one[name] for one in losses if name in one]).mean() for name in sorted(names)}
    if weights.match and len(frames) > 1:
        a, b = rng.choice(len(frames), 2, replace=False)
        surfaces = (batch.surface_ntgg4[:, a], batch.surface_ntgg4[:, b])
        terms["match"] = weights.match * correspondence_loss(frames[a].top, frames[b].top, *surfaces)
    return terms, {name: torch.stack(found).mean() for name, found in ious.items()}


def _predictions(net: Sam2, batch: Batch, frames: list[Features], rng: Rng) -> Iterator[tuple[str, Predicted, Tensor]]:
    """Every prediction of a batch: its kind for the log, the prediction, and the true masks."""
    device, length = batch.image_ntchw.device, len(frames)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    # Uneven times, so that clips shorter than the memory train all temporal slots.
    times = np.cumsum(rng.integers(1, 4, length)).tolist()
    rollout = Rollout(net, fifo if rng.random() < 0.5 else random_subset(rng))
    corrected = int(rng.integers(1, length)) if length > 1 and rng.random() < CORRECT_LATER else 0
    for t, feats in enumerate(frames):
        own, truth_bhw = _rows(feats, batch.clip_b), batch.mask_bthw[:, t]
        conditioned = rollout.attend(own, times[t])
        if t == 0:
            masks = MASKS if length > 1 else 0.0  # of a single picture, a mask is the answer
            used = yield from _first_frame(rollout, own, conditioned, truth_bhw, masks, rng, generator)
        else:
            used = rollout.predict(conditioned, own)
            yield "tracked", used, truth_bhw
        if t and t == corrected:
            clicks = int(rng.integers(1, MAX_CLICKS + 1))
            no_prompts = on_device(PromptBatch.none(len(truth_bhw)), device)
            prompts = simulated_prompts.corrected_prompts(no_prompts, used.logits_b1hw, truth_bhw, generator, clicks)
            used = rollout.predict(conditioned, own, prompts)
            yield "corrected", used, truth_bhw
        if t + 1 < length:
            rollout.remember(own, used, times[t], prompted=t in (0, corrected))


def _encoded(net: Sam2, image_ntchw: Tensor) -> list[Features]:
    """The features of the N clips, frame by frame."""
    clips, length = image_ntchw.shape[:2]
    feats = net.encode_image(normalized(image_ntchw.transpose(0, 1).flatten(0, 1)))
    return [feats.select(slice(t * clips, (t + 1) * clips)) for t in range(length)]


def _rows(feats: Features, index_b: Tensor) -> Features:
    return Features(feats.top[index_b], feats.mid[index_b], feats.fine[index_b])


def _first_frame(
    rollout: Rollout,
    own: Features,
    conditioned: Tensor,
    truth_bhw: Tensor,
    masks: float,
    rng: Rng,
    generator: torch.Generator,
) -> Generator[tuple[str, Predicted, Tensor], None, Predicted]:
    """Prompt the first frame: the share `masks` of the objects with a mask, the others with a box or points.

    Returns what is remembered. Objects with a mask are also predicted from a box and from a point: more training at
    little cost, because the frame is encoded already.
    """
    objects = len(truth_bhw)
    order = torch.from_numpy(rng.permutation(objects)).to(truth_bhw.device)
    count = round(masks * objects + rng.uniform(-0.5, 0.5)) if masks else 0
    masked, others = order.split([count, objects - count])
    used, rows = [], []
    if len(masked):
        truth, cond, feats = truth_bhw[masked], conditioned[masked], _rows(own, masked)
        pixels = float(rng.choice([0, 0, 0, 1, 2, -1, -2]))
        used.append(rollout.from_mask(feats, simulated_prompts.resized_masks(truth, pixels)))
        rows.append(masked)
        for kind, prompt in (("box", simulated_prompts.box_prompts), ("point", simulated_prompts.point_prompts)):
            yield kind, rollout.predict(cond, feats, prompt(truth, generator)), truth
    if len(others):
        truth, cond, feats = truth_bhw[others], conditioned[others], _rows(own, others)
        prompts, kind = _prompts(truth, rng, generator)
        predicted = rollout.predict(cond, feats, prompts)
        yield kind, predicted, truth
        for _ in range(int(rng.integers(1, MAX_CLICKS + 1)) if rng.random() < CORRECT_FIRST else 0):
            prompts = simulated_prompts.corrected_prompts(prompts, predicted.logits_b1hw, truth, generator)
            predicted = rollout.predict(cond, feats, prompts)
            yield "corrected", predicted, truth
        used.append(predicted)
        rows.append(others)
    return Predicted.merge(used, rows)


def _prompts(truth_bhw: Tensor, rng: Rng, generator: torch.Generator) -> tuple[PromptBatch, str]:
    """A box, a point, or several points for each object; the same kind for all."""
    kind = str(rng.choice(list(OTHER_PROMPTS), p=list(OTHER_PROMPTS.values())))
    count = int(rng.integers(2, MAX_POINTS + 1)) if kind == "points" else 1
    if kind == "box":
        return simulated_prompts.box_prompts(truth_bhw, generator), kind
    return simulated_prompts.point_prompts(truth_bhw, generator, count), kind
