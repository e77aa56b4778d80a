"""Batches of training clips: a pure function of (seed, step), so a resumed training sees what it would have seen."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .compose import compose
from .material import Video
from .motion import Rng
from .plan import SMALLEST, ClipPlan, Habits, draw_clip

Supply = Callable[[Rng, int], Video]  # a video to make a clip of so many frames of


@dataclass(frozen=True, slots=True)
class Batch:
    """N clips of T frames, and B objects in them: `clip_b` says in which clip each is; it is there on frame 0.

    `image_ntchw` uint8 [N, T, 3, S, S]; `mask_bthw` uint8 0/1 [B, T, S, S]; `place_ntgg4` as `compose` makes it.
    """

    image_ntchw: Tensor
    clip_b: Tensor
    mask_bthw: Tensor
    place_ntgg4: Tensor

    def parts(self, clips: int) -> list[Batch]:
        """The batch as several, of at most so many clips each; in some of which there may be no object."""
        count = len(self.image_ntchw)
        if clips >= count:
            return [self]
        where = self.clip_b.tolist()  # in order
        parts = []
        for begin in range(0, count, clips):
            own = slice(begin, begin + clips)
            mine = slice(bisect_left(where, begin), bisect_left(where, begin + clips))
            clip_b = self.clip_b[mine] - begin
            parts.append(Batch(self.image_ntchw[own], clip_b, self.mask_bthw[mine], self.place_ntgg4[own]))
        return parts


@dataclass(frozen=True)
class Source:
    """A kind of material: how to draw a video of it, and how often it is drawn, relative to the others."""

    name: str
    share: float
    draw: Supply


class ClipMaker:
    """Draws batches of given sizes. `others` is what flying things are cut from."""

    def __init__(
        self,
        sources: Sequence[Source],
        others: Sequence[Video],
        seed: int,
        device: torch.device,
        habits: Habits | None = None,
    ) -> None:
        self._sources, self._others, self._seed, self._device = tuple(sources), tuple(others), seed, device
        self._habits = habits or Habits()
        shares = np.array([s.share for s in sources])
        self._shares = shares / shares.sum()

    def plans(self, rng: Rng, clips: int, length: int, size: int) -> list[ClipPlan]:
        """What a batch will show. Each kind of material has its share of every batch, as nearly as it divides."""
        turn = (np.arange(clips) + rng.random()) / clips  # systematic sampling
        kinds = np.minimum(np.searchsorted(self._shares.cumsum(), turn), len(self._sources) - 1)
        videos = [self._sources[k].draw(rng, length) for k in kinds]
        return [draw_clip(rng, video, self._others, length, size, self._habits) for video in videos]

    def batch(self, step: int, clips: int, length: int, size: int, objects: int) -> Batch:
        """The batch of this step: at most `objects` objects a clip, at least one in all."""
        for attempt in range(100):
            rng = np.random.default_rng((self._seed, step, attempt))
            plans = self.plans(rng, clips, length, size)
            noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
            made = compose(plans, size, noise)
            clip_b, id_b = _targets(rng, made.owner_nthw[:, 0], objects)
            if clip_b:
                where = torch.tensor(clip_b, device=self._device)
                own = torch.tensor(id_b, device=self._device, dtype=torch.uint8)[:, None, None, None]
                mask_bthw = (made.owner_nthw[where] == own).to(torch.uint8)
                return Batch(made.image_nt3hw, where, mask_bthw, made.place_ntgg4)
        raise RuntimeError(f"step {step}: no clip of a hundred batches has an object on its first frame")


class Ahead:
    """Batches of a maker, one made in another thread while the one before is trained on: for a GPU, which would wait.

    A batch depends on its step alone, so it is the same either way. `close` ends the thread.
    """

    def __init__(self, maker: ClipMaker) -> None:
        self._maker, self._thread = maker, ThreadPoolExecutor(1)
        self._asked: tuple[int, ...] = ()
        self._made: Future[Batch] | None = None

    def batch(self, step: int, clips: int, length: int, size: int, objects: int) -> Batch:
        """As `ClipMaker.batch`; begins on the next step's, as if that would ask for the same."""
        made = self._made if self._asked == (step, clips, length, size, objects) else None
        batch = made.result() if made else self._maker.batch(step, clips, length, size, objects)
        self._asked = (step + 1, clips, length, size, objects)
        self._made = self._thread.submit(self._maker.batch, *self._asked)
        return batch

    def close(self) -> None:
        """Let go of the batch that was begun, and end the thread; may be called again."""
        self._made, self._asked = None, ()
        self._thread.shutdown(cancel_futures=True)


def _targets(rng: Rng, owner_nhw: Tensor, objects: int) -> tuple[list[int], list[int]]:
    """Which objects of each clip to follow: (clip, id) of some that are large enough on the first frame."""
    clips, pixels = len(owner_nhw), owner_nhw[0].numel()
    offset = 256 * torch.arange(clips, device=owner_nhw.device)[:, None]
    counts = torch.bincount((owner_nhw.flatten(1).long() + offset).flatten(), minlength=256 * clips).view(clips, 256)
    large_ni = (counts.cpu().numpy() > SMALLEST * pixels) & (np.arange(256) > 0)
    clip_b, id_b = [], []
    for n, large_i in enumerate(large_ni):
        there = np.flatnonzero(large_i)
        for i in rng.permutation(there)[:objects]:
            clip_b.append(n)
            id_b.append(int(i))
    return clip_b, id_b


def of(videos: Sequence[Video]) -> Supply:
    """One of these, any as likely as another, whole."""
    return lambda rng, _length: videos[int(rng.integers(len(videos)))]
