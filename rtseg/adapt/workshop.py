"""From a training's file to the clips of a phase: material read at the size that the phase needs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..errors import ConfigError
from ..evaluate import Dataset, open_dataset
from ..grab import HELD_OUT_SEED
from ..grab.synthetic import Scene
from .clips import ClipMaker, Source, of
from .config import Material, Phase, TrainConfig
from .material import Video, read_texture, read_video
from .motion import Rng

MARGIN = 1.25  # how much larger than the network's image material is kept: views zoom in
KEPT_SCENES = 256


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
        others += [self._there(read_texture(self._data / m.path, side, m.every)) for m in config.textures]
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
    """Synthetic endoscopies, seeds 0 to `count` - 1, `side` pixels high."""

    def __init__(self, count: int, side: int, device: torch.device) -> None:
        self._count, self._side, self._device = count, side, device
        self._scene = lru_cache(KEPT_SCENES)(lambda seed: Scene(round(1.25 * side), side, seed))

    def video(self, rng: Rng, length: int) -> Video:
        """A few frames of one scene, from 25 a second to one."""
        seed = int(rng.integers(self._count))
        begin, step = rng.uniform(0, 60), float(np.exp(rng.uniform(np.log(0.04), 0)))
        pairs = [self._scene(seed).render(k, 1 / step) for k in range(int(begin / step), int(begin / step) + length)]
        image_t3hw = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        ids_thw = torch.from_numpy(np.stack([ids for _, ids in pairs]))
        return Video(f"endoscope-{seed}", image_t3hw.to(self._device), ids_thw.to(self._device))
