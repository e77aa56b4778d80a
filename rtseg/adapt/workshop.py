"""From a training's file to the clips of a phase: material read at the size that the phase needs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..errors import ConfigError
from ..evaluate import Dataset, open_dataset
from ..grab import HELD_OUT_SEED
from ..grab.endoscope import Part, Scene
from .clips import ClipMaker, Source, of
from .config import Material, Phase, TrainConfig
from .material import Video, read_texture, read_video
from .motion import Rng

MARGIN = 1.25  # how much larger than the network's image material is kept: views zoom in
KEPT_SCENES = 256
PARTS = 0.2  # how often a tool's shaft, wrist and jaws are objects of their own
ASPECT, LONG_S = 1.33, 120.0


class Workshop:
    """Material of a training, as its phases need it; `data` is what paths are relative to."""

    def __init__(self, config: TrainConfig, data: Path, device: torch.device) -> None:
        if config.endoscope.scenes > HELD_OUT_SEED:
            raise ConfigError(f"{config.path}: {config.endoscope.scenes} scenes; expected at most {HELD_OUT_SEED}")
        self._config, self._data, self._device = config, data, device

    def maker(self, phase: Phase) -> ClipMaker:
        """What draws this phase's clips. Reads all material, which takes a while."""
        config, side = self._config, round(MARGIN * phase.image_size)
        sources, others = [], []
        for material in config.videos:
            videos = self._videos(material, side)
            sources.append(Source(material.path, material.share, of(videos)))
            others += videos
        for material in config.textures:
            texture = self._there(read_texture(self._data / material.path, side, material.every))
            sources.append(Source(material.path, material.share, of([texture])))
            others.append(texture)
        if config.endoscope.share:
            scenes = Scenes(config.endoscope.scenes, side, self._device)
            sources.append(Source("endoscope", config.endoscope.share, scenes.video))
            others += [scenes.video(np.random.default_rng((config.seed, k)), 4) for k in range(8)]
        return ClipMaker(sources, others, config.seed, self._device)

    def _videos(self, material: Material, side: int) -> list[Video]:
        found = open_material(material, self._data)
        return [self._there(read_video(sequence, side, material.every)) for sequence in found.sequences]

    def _there(self, video: Video) -> Video:
        return Video(video.name, video.image_t3hw.to(self._device), video.ids_thw.to(self._device))


def open_material(material: Material, data: Path) -> Dataset:
    """The sequences that a training's file names; `ConfigError` or `SourceError`."""
    return open_dataset(data / material.path, material.layout, material.sequences)


class Scenes:
    """Synthetic endoscopies, seeds 0 to `count` - 1, `side` pixels high; objects are tools, or at times their parts."""

    def __init__(self, count: int, side: int, device: torch.device) -> None:
        self._count, self._side, self._device = count, side, device
        self._scene = lru_cache(KEPT_SCENES)(lambda seed: Scene(seed, detail=side))

    def video(self, rng: Rng, length: int) -> Video:
        """A few frames of one scene, from 25 a second to one."""
        seed, apart = int(rng.integers(self._count)), rng.random() < PARTS
        times = rng.uniform(0, LONG_S) + np.arange(length) * float(np.exp(rng.uniform(np.log(0.04), 0)))
        clip = self._scene(seed).clip(times.tolist(), round(ASPECT * self._side), self._side)
        ids_thw = (
            clip.ids_thw * len(Part) - (len(Part) - clip.parts_thw) * (clip.ids_thw > 0) if apart else clip.ids_thw
        )
        image_t3hw = torch.from_numpy(clip.image_thwc).permute(0, 3, 1, 2).contiguous()
        on = self._device
        return Video(f"endoscope-{seed}", image_t3hw.to(on), torch.from_numpy(ids_thw.astype(np.uint8)).to(on))
