"""Videos for training clips: tensors in memory, read once, from any layout that `rtseg eval` reads.

Only the sequences that a configuration names are read. Videos without labels are used, too, as background and as
texture for pasted objects.
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

FIRST_PASTED_ID = 200  # the first id of objects pasted over a video; the video's own objects have lower ids


@dataclass(frozen=True, eq=False)
class TrainingVideo:
    """`image_t3hw` uint8 RGB [T, 3, H, W] and `ids_thw` uint8 [T, H, W], 0 for the background; on one device."""

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
        """The share of the image that each id covers on each frame, float [T, 256]."""
        flat_tn = self.ids_thw.flatten(1).long()
        offset_t1 = 256 * torch.arange(len(self), device=flat_tn.device)[:, None]
        count = torch.bincount((flat_tn + offset_t1).flatten(), minlength=256 * len(self))
        return (count.view(-1, 256).float() / flat_tn.shape[1]).cpu().numpy()

    def box(self, frame: int, object_id: int) -> tuple[int, int, int, int]:
        """The bounding box (x0, y0, x1, y1) of an object that is visible on this frame."""
        own_hw = self._host_thw[frame] == object_id
        columns, rows = (np.flatnonzero(own_hw.any(axis)) for axis in (0, 1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects that the video shows."""
        return tuple(int(i) for i in np.flatnonzero(self.areas_ti.sum(0)) if i)


def read_video(sequence: Sequence, short_side: int, every: int = 1) -> TrainingVideo:
    """Read every `every`-th frame of a sequence onto the CPU, if all its objects are annotated there.

    Frames are downscaled to `short_side` pixels. Where objects overlap, the one with the higher id is in front. Raises
    `ConfigError` if there is no such frame, or an id of `FIRST_PASTED_ID` or more.
    """
    images, ids = [], []
    for t in range(0, sequence.count, every):
        truth = sequence.truth(t)
        if truth is None or sequence.unknown(t):
            continue
        if max(truth, default=0) >= FIRST_PASTED_ID:
            raise ConfigError(
                f"{sequence.name}: object {max(truth)}; expected ids below {FIRST_PASTED_ID} in a training video"
            )
        image_hwc = sequence.image(t)
        ids_hw = np.zeros(image_hwc.shape[:2], np.uint8)
        for i, mask_hw in sorted(truth.items()):
            ids_hw[mask_hw] = i
        images.append(_downscaled(image_hwc, short_side, cv2.INTER_AREA))
        ids.append(_downscaled(ids_hw, short_side, cv2.INTER_NEAREST_EXACT))
    if not images:
        raise ConfigError(f"{sequence.name}: no annotated frame; expected at least one to train on")
    return _video(sequence.name, images, ids)


def read_texture(path: Path, short_side: int, every: int = 1) -> TrainingVideo:
    """Read every `every`-th frame of a video without annotations."""
    with closing(open_source(path)) as source:
        images = [
            _downscaled(frame.image_hwc, short_side, cv2.INTER_AREA) for frame in source if frame.seq % every == 0
        ]
    return _video(path.name, images, [np.zeros(image.shape[:2], np.uint8) for image in images])


def _video(name: str, images: list[ImageU8], ids: list[ImageU8]) -> TrainingVideo:
    image_t3hw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return TrainingVideo(name, image_t3hw, torch.from_numpy(np.stack(ids)))


def _downscaled(image: ImageU8, short_side: int, interpolation: int) -> ImageU8:
    scale = min(1.0, short_side / min(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
