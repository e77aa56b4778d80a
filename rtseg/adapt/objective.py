"""What one training step asks of the network: follow several objects through clips, from prompts of every kind.

The first frame is prompted with a mask, a box or a point, and what is not a mask is corrected by clicks now and then;
one later frame of some clips is corrected, too. What was prompted is an anchor from then on, as in the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import MEAN, STD, Features, Prompts, Sam2
from . import hand
from .clips import Batch
from .losses import LossWeights, frame_loss, hard_iou
from .matching import matching_loss
from .motion import Rng
from .rollout import Predicted, Rollout, fifo, scattered

FIRST = {"mask": 0.6, "box": 0.2, "point": 0.2}  # how the first frame is prompted
CORRECT_FIRST, CORRECT_LATER = 0.5, 0.25
CLICKS = 2  # at most, of a correction on the first frame


def normalised(image_nchw: Tensor) -> Tensor:
    """uint8 [..., 3, S, S] as the network wants it: float, ImageNet mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def clip_loss(net: Sam2, batch: Batch, rng: Rng, weights: LossWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss parts, averaged over what was predicted, and the hard IoU of tracked frames and of each kind of prompt."""
    kind = str(rng.choice(list(FIRST), p=list(FIRST.values())))
    losses: list[dict[str, Tensor]] = []
    ious: dict[str, list[Tensor]] = {}
    frames = _encoded(net, batch.image_ntchw)
    for name, predicted, target_bhw in _predictions(net, batch, frames, kind, rng):
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


def _predictions(
    net: Sam2, batch: Batch, frames: list[Features], kind: str, rng: Rng
) -> Iterator[tuple[str, Predicted, Tensor]]:
    """All that the network predicts of a batch: what it is called in the log, the prediction, and the truth."""
    device, (_, length) = batch.image_ntchw.device, batch.image_ntchw.shape[:2]
    draw = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    # Uneven times, so that all temporal slots are trained by clips that are shorter than the memory.
    times = np.cumsum(rng.integers(1, 4, length)).tolist()
    way = Rollout(net, fifo if rng.random() < 0.5 else scattered(rng))
    corrected = int(rng.integers(1, length)) if rng.random() < CORRECT_LATER else 0
    for t, feats in enumerate(frames):
        own, truth_bhw = _at(feats, batch.clip_b), batch.mask_bthw[:, t]
        conditioned = way.condition(own, times[t])
        if t == 0:
            predicted = None
            for name, predicted in _first(way, own, conditioned, truth_bhw, kind, rng, draw):
                yield name, predicted, truth_bhw
            assert predicted is not None
        else:
            predicted = way.predict(conditioned, own)
            yield "tracked", predicted, truth_bhw
        if t and t == corrected:
            nothing = Prompts.none(len(truth_bhw)).to(device)
            _, predicted = _corrected(way, own, conditioned, nothing, predicted, truth_bhw, draw)
            yield "corrected", predicted, truth_bhw
        way.remember(own, predicted, times[t], prompted=t in (0, corrected))


def _encoded(net: Sam2, image_ntchw: Tensor) -> list[Features]:
    """Features of the N clips, frame by frame."""
    clips, length = image_ntchw.shape[:2]
    feats = net.encode_image(normalised(image_ntchw.transpose(0, 1).flatten(0, 1)))
    return [feats.select(slice(t * clips, (t + 1) * clips)) for t in range(length)]


def _at(feats: Features, clip_b: Tensor) -> Features:
    return Features(feats.top[clip_b], feats.mid[clip_b], feats.fine[clip_b])


def _first(
    way: Rollout, own: Features, conditioned: Tensor, truth_bhw: Tensor, kind: str, rng: Rng, draw: torch.Generator
) -> Iterator[tuple[str, Predicted]]:
    """The first frame, prompted; the last prediction counts. Prompts of the other kinds are hints: a decoder's work."""
    for hint, say in (("box", hand.box), ("point", hand.points)):
        if hint != kind:
            yield hint, way.predict(conditioned, own, say(truth_bhw, draw))
    if kind == "mask":
        fatter = float(rng.choice([0, 0, 0, 1, 2, -1, -2]))
        yield "mask", way.given(own, hand.redrawn(truth_bhw, fatter))
        return
    prompts = (hand.box if kind == "box" else hand.points)(truth_bhw, draw)
    predicted = way.predict(conditioned, own, prompts)
    yield kind, predicted
    for _ in range(int(rng.integers(1, CLICKS + 1)) if rng.random() < CORRECT_FIRST else 0):
        prompts, predicted = _corrected(way, own, conditioned, prompts, predicted, truth_bhw, draw)
        yield "corrected", predicted


def _corrected(
    way: Rollout,
    own: Features,
    conditioned: Tensor,
    prompts: Prompts,
    predicted: Predicted,
    truth_bhw: Tensor,
    draw: torch.Generator,
) -> tuple[Prompts, Predicted]:
    """The prompts so far and one click more, and what the network makes of them."""
    assert predicted.all_logits_bkhw is not None
    prompts = hand.correction(prompts, predicted.logits_b1hw, truth_bhw, draw)
    return prompts, way.predict(conditioned, own, prompts)
