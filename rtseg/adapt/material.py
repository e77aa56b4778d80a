"""What training clips are made of: videos in memory, read once, in any layout that `rtseg eval` reads.

Only what a configuration names is read. Unlabelled videos are material too: a background, and texture to cut from.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..base.errors import ConfigError
from ..base.types import ImageU8
from ..data.dataset import Sequence
from ..grab import open_source

FLYING = 200  # ids of things that fly over a video start here


@dataclass(frozen=True, eq=False)
class Video:
    """`image_t3hw` uint8 RGB and `ids_thw` uint8, 0 where there is no object; on one device."""

    name: str
    image_t3hw: Tensor
    ids_thw: Tensor

    def __len__(self) -> int:
        return len(self.image_t3hw)

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.ids_thw.shape[2], self.ids_thw.shape[1]

    @cached_property
    def _host_thw(self) -> ImageU8:
        return self.ids_thw.cpu().numpy()

    @cached_property
    def areas_ti(self) -> np.ndarray:
        """Share of the picture that each id covers on each frame, float [T, 256]."""
        flat_tn = self.ids_thw.flatten(1).long()
        offset_t1 = 256 * torch.arange(len(self), device=flat_tn.device)[:, None]
        count = torch.bincount((flat_tn + offset_t1).flatten(), minlength=256 * len(self))
        return (count.view(-1, 256).float() / flat_tn.shape[1]).cpu().numpy()

    def box(self, frame: int, object_id: int) -> tuple[int, int, int, int]:
        """The bounding box (x0, y0, x1, y1) of an object that is on this frame."""
        own_hw = self._host_thw[frame] == object_id
        columns, rows = (np.flatnonzero(own_hw.any(axis)) for axis in (0, 1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @cached_property
    def ids(self) -> tuple[int, ...]:
        return tuple(int(i) for i in np.flatnonzero(self.areas_ti.sum(0)) if i)


def read_video(sequence: Sequence, short_side: int, every: int = 1) -> Video:
    """Every so-many-th frame of a sequence, if all its objects are annotated there, shrunk to `short_side`; on the CPU.

    Where objects overlap, the one with the higher id is in front.
    """
    images, ids = [], []
    for t in range(0, sequence.count, every):
        truth = sequence.truth(t)
        if truth is None or sequence.unknown(t):
            continue
        if max(truth, default=0) >= FLYING:
            raise ConfigError(f"{sequence.name}: object {max(truth)}; trainings tell {FLYING - 1} objects apart")
        image_hwc = sequence.image(t)
        ids_hw = np.zeros(image_hwc.shape[:2], np.uint8)
        for i, mask_hw in sorted(truth.items()):
            ids_hw[mask_hw] = i
        images.append(_shrunk(image_hwc, short_side, cv2.INTER_AREA))
        ids.append(_shrunk(ids_hw, short_side, cv2.INTER_NEAREST_EXACT))
    if not images:
        raise ConfigError(f"{sequence.name}: no annotated frame; expected at least one to train on")
    return _video(sequence.name, images, ids)


def read_texture(path: Path, short_side: int, every: int = 1) -> Video:
    """Every so-many-th frame of a video that nobody annotated."""
    with closing(open_source(path)) as source:
        images = [_shrunk(frame.image_hwc, short_side, cv2.INTER_AREA) for frame in source if frame.seq % every == 0]
    return _video(path.name, images, [np.zeros(image.shape[:2], np.uint8) for image in images])


def _video(name: str, images: list[ImageU8], ids: list[ImageU8]) -> Video:
    image_t3hw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Video(name, image_t3hw, torch.from_numpy(np.stack(ids)))


def _shrunk(picture: ImageU8, short_side: int, how: int) -> ImageU8:
    scale = min(1.0, short_side / min(picture.shape[:2]))
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
