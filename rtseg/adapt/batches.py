"""Batches of training clips: a pure function of (seed, step), so that a resumed training sees the same batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .clip_spec import Augmentation, ClipSpec, sample_clip
from .motion import Rng
from .render import render_clips
from .training_video import MIN_AREA, DrawVideo, TrainingVideo


@dataclass(frozen=True, slots=True)
class Batch:
    """N clips of T frames with B objects, each visible on the first frame of clip `clip_b[b]`.

    `image_ntchw` uint8 [N, T, 3, S, S]; `mask_bthw` uint8 0/1 [B, T, S, S]; `clip_b` in ascending order;
    `surface_ntgg4` as `render_clips` gives it.
    """

    image_ntchw: Tensor
    clip_b: Tensor
    mask_bthw: Tensor
    surface_ntgg4: Tensor

    def split(self, clips: int) -> list[Batch]:
        """Micro-batches of at most `clips` clips each. Some of them may have no object."""
        count = len(self.image_ntchw)
        if clips >= count:
            return [self]
        where = self.clip_b.tolist()
        parts = []
        for begin in range(0, count, clips):
            own = slice(begin, begin + clips)
            objects = slice(bisect_left(where, begin), bisect_left(where, begin + clips))
            clip_b = self.clip_b[objects] - begin
            parts.append(Batch(self.image_ntchw[own], clip_b, self.mask_bthw[objects], self.surface_ntgg4[own]))
        return parts


@dataclass(frozen=True)
class VideoSource:
    """A source of training videos: `draw` returns a random one, `share` is the source's weight among all."""

    name: str
    share: float
    draw: DrawVideo


class BatchSampler:
    """Samples batches of given sizes. Pasted objects are cut from videos that `others` draws."""

    def __init__(
        self,
        sources: Sequence[VideoSource],
        others: DrawVideo,
        seed: int,
        device: torch.device,
        probability: Augmentation | None = None,
    ) -> None:
        self._sources, self._others, self._seed, self._device = tuple(sources), others, seed, device
        self._probability = probability or Augmentation()
        shares = np.array([source.share for source in sources])
        self._shares = shares / shares.sum()

    def specs(self, rng: Rng, clips: int, length: int, size: int) -> list[ClipSpec]:
        """Specify the clips of a batch. Each source has its share of every batch, rounded (systematic sampling)."""
        turn = (np.arange(clips) + rng.random()) / clips
        picks = np.minimum(np.searchsorted(self._shares.cumsum(), turn), len(self._sources) - 1)
        videos = [self._sources[k].draw(rng, length) for k in picks]
        return [sample_clip(rng, video, self._others, length, size, self._probability) for video in videos]

    def batch(self, step: int, clips: int, length: int, size: int, objects: int) -> Batch:
        """The batch of a step: at most `objects` objects per clip, and at least one in the whole batch."""
        for attempt in range(100):
            rng = np.random.default_rng((self._seed, step, attempt))
            specs = self.specs(rng, clips, length, size)
            noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
            rendered = render_clips(specs, size, noise)
            clip_b, id_b = _choose_objects(rng, rendered.id_nthw[:, 0], objects)
            if clip_b:
                where = torch.tensor(clip_b, device=self._device)
                own = torch.tensor(id_b, device=self._device, dtype=torch.uint8)[:, None, None, None]
                mask_bthw = (rendered.id_nthw[where] == own).to(torch.uint8)
                return Batch(rendered.image_nt3hw, where, mask_bthw, rendered.surface_ntgg4)
        raise RuntimeError(f"step {step}: 100 attempts gave no clip with an object on its first frame; expected one")


class Prefetcher:
    """Makes the next batch in another thread while the current one is trained on, so that a GPU does not wait.

    A batch depends only on its step and sizes, so prefetching does not change it. `sizes_of` gives a step's clips and
    length. Call `close` to end the thread.
    """

    def __init__(self, sampler: BatchSampler, sizes_of: Callable[[int], tuple[int, int]]) -> None:
        self._sampler, self._sizes_of, self._thread = sampler, sizes_of, ThreadPoolExecutor(1)
        self._expected: tuple[int, ...] = ()
        self._next: Future[Batch] | None = None

    def batch(self, step: int, clips: int, length: int, size: int, objects: int) -> Batch:
        """Like `BatchSampler.batch`. It also starts the batch of the next step."""
        prefetched = self._next if self._expected == (step, clips, length, size, objects) else None
        batch = prefetched.result() if prefetched else self._sampler.batch(step, clips, length, size, objects)
        self._expected = (step + 1, *self._sizes_of(step + 1), size, objects)
        self._next = self._thread.submit(self._sampler.batch, *self._expected)
        return batch

    def close(self) -> None:
        """Discard the batch that was started, and end the thread. It may be called again."""
        self._next, self._expected = None, ()
        self._thread.shutdown(cancel_futures=True)


def _choose_objects(rng: Rng, id_nhw: Tensor, objects: int) -> tuple[list[int], list[int]]:
    """The clips and ids of the objects to track: random ones that are large enough on the first frame."""
    clips, pixels = len(id_nhw), id_nhw[0].numel()
    offset = 256 * torch.arange(clips, device=id_nhw.device)[:, None]
    counts = torch.bincount((id_nhw.flatten(1).long() + offset).flatten(), minlength=256 * clips).view(clips, 256)
    large_ni = (counts.cpu().numpy() > MIN_AREA * pixels) & (np.arange(256) > 0)
    clip_b, id_b = [], []
    for n, large_i in enumerate(large_ni):
        for i in rng.permutation(np.flatnonzero(large_i))[:objects]:
            clip_b.append(n)
            id_b.append(int(i))
    return clip_b, id_b


def uniform(videos: Sequence[TrainingVideo]) -> DrawVideo:
    """A function that draws one of these videos, all with the same probability; stills count by their pictures."""
    weights = np.array([len(video) if video.stills else 1.0 for video in videos])
    upto = (weights / weights.sum()).cumsum()
    return lambda rng, _length: videos[min(int(np.searchsorted(upto, rng.random(), "right")), len(videos) - 1)]


def mixed(sources: Sequence[VideoSource]) -> DrawVideo:
    """A function that draws from these sources by their shares."""
    upto = np.array([source.share for source in sources]).cumsum()

    def draw(rng: Rng, length: int) -> TrainingVideo:
        k = int(np.searchsorted(upto, rng.random() * upto[-1], "right"))
        return sources[min(k, len(sources) - 1)].draw(rng, length)

    return draw
