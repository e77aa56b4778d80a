"""What one training step asks of the network: follow several objects through clips, from prompts of every kind.

The first frame is prompted with masks for some objects, with a box or points for the others, and these are corrected by
clicks now and then; one later frame of some clips is corrected, too. What was prompted is an anchor from then on, as
in the tracker.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import MEAN, STD, Features, PromptBatch, Sam2, on_device
from . import hand
from .clips import Batch
from .losses import LossWeights, frame_loss, hard_iou
from .matching import matching_loss
from .motion import Rng
from .rollout import Predicted, Rollout, fifo, scattered

MASKS = 0.55  # of the objects are shown by a mask, the others by one of these; all objects of a step by the same
OTHERS = {"box": 0.35, "point": 0.4, "points": 0.25}
MOST_POINTS = 5  # given at once
CORRECT_FIRST, CORRECT_LATER = 0.5, 0.25
CLICKS = 2  # at most, of a correction


def normalised(image_nchw: Tensor) -> Tensor:
    """uint8 [..., 3, S, S] as the network wants it: float, ImageNet mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def clip_loss(net: Sam2, batch: Batch, rng: Rng, weights: LossWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss parts, averaged over what was predicted, and the hard IoU of tracked frames and of each kind of prompt."""
    losses: list[dict[str, Tensor]] = []
    ious: dict[str, list[Tensor]] = {}
    frames = _encoded(net, batch.image_ntchw)
    for name, predicted, target_bhw in _predictions(net, batch, frames, rng):
        if predicted.all_logits_bkhw is None or predicted.all_iou_bk is None:
            continue
        losses.append(
            frame_loss(predicted.all_logits_bkhw, predicted.all_iou_bk, predicted.score_b, target_bhw, weights)
        )
        small_b1hw = F.adaptive_avg_pool2d(target_bhw[:, None].float(), 4 * net.grid)
        ious.setdefault(name, []).append(hard_iou(predicted.logits_b1hw.detach(), small_b1hw).mean())
    parts = {k: torch.stack([one[k] for one in losses]).mean() for k in losses[0]}
    if weights.match:
        a, b = rng.choice(len(frames), 2, replace=False)
        places = (batch.place_ntgg4[:, a], batch.place_ntgg4[:, b])
        parts["match"] = weights.match * matching_loss(frames[a].top, frames[b].top, *places)
    return parts, {name: torch.stack(found).mean() for name, found in ious.items()}


def _predictions(net: Sam2, batch: Batch, frames: list[Features], rng: Rng) -> Iterator[tuple[str, Predicted, Tensor]]:
    """All that the network predicts of a batch: what it is called in the log, the prediction, and the truth."""
    device, length = batch.image_ntchw.device, len(frames)
    draw = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    # Uneven times, so that all temporal slots are trained by clips that are shorter than the memory.
    times = np.cumsum(rng.integers(1, 4, length)).tolist()
    way = Rollout(net, fifo if rng.random() < 0.5 else scattered(rng))
    corrected = int(rng.integers(1, length)) if rng.random() < CORRECT_LATER else 0
    for t, feats in enumerate(frames):
        own, truth_bhw = _at(feats, batch.clip_b), batch.mask_bthw[:, t]
        conditioned = way.condition(own, times[t])
        if t == 0:
            used = yield from _first(way, own, conditioned, truth_bhw, rng, draw)
        else:
            used = way.predict(conditioned, own)
            yield "tracked", used, truth_bhw
        if t and t == corrected:
            clicks = int(rng.integers(1, CLICKS + 1))
            nothing = on_device(PromptBatch.none(len(truth_bhw)), device)
            said = hand.correction(nothing, used.logits_b1hw, truth_bhw, draw, clicks)
            used = way.predict(conditioned, own, said)
            yield "corrected", used, truth_bhw
        way.remember(own, used, times[t], prompted=t in (0, corrected))


def _encoded(net: Sam2, image_ntchw: Tensor) -> list[Features]:
    """Features of the N clips, frame by frame."""
    clips, length = image_ntchw.shape[:2]
    feats = net.encode_image(normalised(image_ntchw.transpose(0, 1).flatten(0, 1)))
    return [feats.select(slice(t * clips, (t + 1) * clips)) for t in range(length)]


def _at(feats: Features, clip_b: Tensor) -> Features:
    return Features(feats.top[clip_b], feats.mid[clip_b], feats.fine[clip_b])


def _first(
    way: Rollout, own: Features, conditioned: Tensor, truth_bhw: Tensor, rng: Rng, draw: torch.Generator
) -> Generator[tuple[str, Predicted, Tensor], None, Predicted]:
    """The first frame: some objects get a mask, which is taken as it is, the others a prompt; returns what is used.

    Those with a mask also hint at what a box and a point would have given: the frame is encoded, so it costs little.
    """
    objects = len(truth_bhw)
    order = torch.from_numpy(rng.permutation(objects)).to(truth_bhw.device)
    given, asked = order.split([(masks := round(MASKS * objects + rng.uniform(-0.5, 0.5))), objects - masks])
    used, rows = [], []
    if len(given):
        truth, cond, feats = truth_bhw[given], conditioned[given], _at(own, given)
        fatter = float(rng.choice([0, 0, 0, 1, 2, -1, -2]))
        used.append(way.given(feats, hand.redrawn(truth, fatter)))
        rows.append(given)
        for hint, say in (("box", hand.box), ("point", hand.points)):
            yield hint, way.predict(cond, feats, say(truth, draw)), truth
    if len(asked):
        truth, cond, feats = truth_bhw[asked], conditioned[asked], _at(own, asked)
        kind = str(rng.choice(list(OTHERS), p=list(OTHERS.values())))
        count = int(rng.integers(2, MOST_POINTS + 1)) if kind == "points" else 1
        prompts = hand.box(truth, draw) if kind == "box" else hand.points(truth, draw, count)
        predicted = way.predict(cond, feats, prompts)
        yield kind, predicted, truth
        for _ in range(int(rng.integers(1, CLICKS + 1)) if rng.random() < CORRECT_FIRST else 0):
            prompts = hand.correction(prompts, predicted.logits_b1hw, truth, draw)
            predicted = way.predict(cond, feats, prompts)
            yield "corrected", predicted, truth
        used.append(predicted)
        rows.append(asked)
    return Predicted.joined(used, rows)
