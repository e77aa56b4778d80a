"""Videos for training clips: tensors in memory, read once, from any layout that `rtseg eval` reads.

Only the sequences that a configuration names are read. Videos without labels are used, too, as background and as
texture for pasted objects.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.errors import ConfigError
from ..base.types import ImageU8
from ..data.dataset import Sequence
from ..grab import open_source

MIN_AREA = 0.004  # share of the image: an object that is smaller on the first frame is not prompted
MAX_AREA = 0.5  # share of a still: regions that cover more are background
BLACK = 20  # grey levels: the mean of what is no part of an endoscope's picture is lower
FIRST_PASTED_ID = 200  # the first id of objects pasted over a video; the video's own objects have lower ids


@dataclass(frozen=True, eq=False)
class TrainingVideo:
    """`image_t3hw` uint8 RGB [T, 3, H, W] and `ids_thw` uint8 [T, H, W], 0 for the background; on one device.

    With `stills`, the frames are pictures that have nothing to do with one another, ids included.
    """

    name: str
    image_t3hw: Tensor
    ids_thw: Tensor
    stills: bool = False

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
        count_t256 = [torch.bincount(ids_hw.flatten(), minlength=256) for ids_hw in self.ids_thw]
        return (torch.stack(count_t256).float() / self.ids_thw[0].numel()).cpu().numpy()

    @cached_property
    def bright_tgg(self) -> np.ndarray:
        """The mean brightness in cells of the picture, 0 to 1, [T, 8, 8]."""
        cells = [F.adaptive_avg_pool2d(image_3hw.float().mean(0)[None], 8)[0] for image_3hw in self.image_t3hw]
        return (torch.stack(cells) / 255).cpu().numpy()

    def host(self, frame: int) -> ImageU8:
        """The ids of one frame, uint8 [H, W], as a numpy array."""
        return self._host_thw[frame]

    def box(self, frame: int, object_id: int) -> tuple[int, int, int, int]:
        """The bounding box (x0, y0, x1, y1) of an object that is visible on this frame."""
        own_hw = self._host_thw[frame] == object_id
        columns, rows = (np.flatnonzero(own_hw.any(axis)) for axis in (0, 1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def large(self, frame: int) -> list[int]:
        """The ids of the objects that are large enough on this frame to be prompted."""
        return [i for i in self.ids if self.areas_ti[frame, i] > MIN_AREA]

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects that the video shows."""
        return tuple(int(i) for i in np.flatnonzero(self.areas_ti.sum(0)) if i)


DrawVideo = Callable[[np.random.Generator, int], TrainingVideo]  # a random video for a clip of that many frames


def read_video(sequence: Sequence, short_side: int, every: int = 1) -> TrainingVideo:
    """Read every `every`-th frame of a sequence onto the CPU, if all its objects are annotated there.

    Frames are downscaled to `short_side` pixels. Where objects overlap, the one with the higher id is in front. Raises
    `ConfigError` if there is no such frame, or an id of `FIRST_PASTED_ID` or more.
    """
    images, ids = _read(sequence, short_side, every)
    return _video(sequence.name, images, ids)


def read_stills(sequence: Sequence, short_side: int, every: int = 1, split: bool = False) -> list[TrainingVideo]:
    """Like `read_video`, but of pictures that have nothing to do with one another: a video for each size of them.

    Regions that are too small to prompt, or cover most of a picture, become background. With `split`, an object that
    is in several pieces becomes several.
    """
    images, ids = _read(sequence, short_side, every)
    ids = [_split(ids_hw) for ids_hw in ids] if split else ids
    for ids_hw in ids:
        area_i = np.bincount(ids_hw.ravel(), minlength=256) / ids_hw.size
        ids_hw[((area_i < MIN_AREA) | (area_i > MAX_AREA))[ids_hw]] = 0
    return _by_size(sequence.name, images, ids)


def _split(ids_hw: ImageU8) -> ImageU8:
    """The map with a new id for each 8-connected piece of each object, from 1; tiny pieces become background."""
    split_hw, last = np.zeros_like(ids_hw), 0
    for i in np.unique(ids_hw[ids_hw > 0]):
        count, pieces_hw, stats, _ = cv2.connectedComponentsWithStats((ids_hw == i).view(np.uint8), connectivity=8)
        for piece in range(1, count):
            if stats[piece, cv2.CC_STAT_AREA] >= MIN_AREA * ids_hw.size and last + 1 < FIRST_PASTED_ID:
                last += 1
                split_hw[pieces_hw == piece] = last
    return split_hw


def _read(sequence: Sequence, short_side: int, every: int) -> tuple[list[ImageU8], list[ImageU8]]:
    """The pictures and maps of ids of the annotated frames."""
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
    return images, ids


def read_texture(path: Path, short_side: int, every: int = 1, stills: bool = False) -> list[TrainingVideo]:
    """Read every `every`-th frame of a video without annotations; of stills, a video for each size of them."""
    with closing(open_source(path)) as source:
        images = [
            _downscaled(frame.image_hwc, short_side, cv2.INTER_AREA) for frame in source if frame.seq % every == 0
        ]
    if stills:
        images = [image for image in images if image.mean() > BLACK]
    if not images:
        raise ConfigError(f"{path}: every picture is black; expected some to show something")
    ids = [np.zeros(image.shape[:2], np.uint8) for image in images]
    return _by_size(path.name, images, ids) if stills else [_video(path.name, images, ids)]


def _by_size(name: str, images: list[ImageU8], ids: list[ImageU8]) -> list[TrainingVideo]:
    """Stills as a video for each size of them."""
    sizes = [ids_hw.shape for ids_hw in ids]
    made = []
    for size in dict.fromkeys(sizes):
        own = [k for k, other in enumerate(sizes) if other == size]
        seen = _without_frame([images[k] for k in own])
        made.append(_video(name, [images[k][seen] for k in own], [ids[k][seen] for k in own], stills=True))
    return made


def _without_frame(images: list[ImageU8]) -> tuple[slice, slice]:
    """The rows and columns without the black frame that all of these pictures have, if they have one."""
    bright_hw = np.stack(images).mean((0, 3)) > BLACK
    rows, columns = (np.flatnonzero(bright_hw.mean(axis) > 0.5) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return np.s_[:], np.s_[:]
    return np.s_[rows[0] : rows[-1] + 1], np.s_[columns[0] : columns[-1] + 1]


def _video(name: str, images: list[ImageU8], ids: list[ImageU8], stills: bool = False) -> TrainingVideo:
    image_t3hw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return TrainingVideo(name, image_t3hw, torch.from_numpy(np.stack(ids)), stills)


def _downscaled(image: ImageU8, short_side: int, interpolation: int) -> ImageU8:
    scale = min(1.0, short_side / min(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
