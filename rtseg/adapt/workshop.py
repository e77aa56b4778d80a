"""From a training's file to the clips of a phase: material read at the size that the phase needs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ConfigError
from ..data import open_dataset
from ..data.dataset import Dataset
from ..grab import HELD_OUT_SEED
from ..synthetic import Part, Scene
from ..synthetic.batch import BatchRenderer
from ..synthetic.moves import LEAVING, period_of
from ..synthetic.options import Options
from .clips import ClipMaker, Source, of
from .config import Material, Phase, TrainConfig
from .material import Video, read_texture, read_video
from .motion import Rng

MARGIN = 1.25  # how much larger than the network's image material is kept: views zoom in
KEPT_SCENES = 256
PARTS = 0.2  # how often a tool's shaft, wrist and jaws are objects of their own
GOINGS = 0.5  # how often a clip is of an instrument that leaves the picture, and mostly comes back
ASPECT, LONG_S = 1.33, 120.0
POOL, POOL_LENGTH = 800, 12  # videos on a GPU, and their frames: 4 GB at 320 pixels
OTHERS = 8  # of the videos that things are cut from


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
            scenes = Scenes(config.endoscope.scenes, side)
            rng = np.random.default_rng((config.seed, 2))
            if self._device.type == "cuda":
                videos = scenes.pool(rng, POOL, POOL_LENGTH, self._device)
                sources.append(Source("endoscope", config.endoscope.share, of(videos)))
            else:
                videos = [scenes.video(rng, 4) for _ in range(8)]
                sources.append(Source("endoscope", config.endoscope.share, scenes.video))
            others += videos[:OTHERS]
        return ClipMaker(sources, others, config.seed, self._device)

    def _videos(self, material: Material, side: int) -> list[Video]:
        found = open_material(material, self._data)
        videos = [self._there(read_video(sequence, side, material.every)) for sequence in found.sequences]
        blank = next((video.name for video in videos if not video.ids), None)
        if blank is not None:
            raise ConfigError(f"{material.path}: {blank} shows no object; a video without masks is a [[texture]]")
        return videos

    def _there(self, video: Video) -> Video:
        return Video(video.name, video.image_t3hw.to(self._device), video.ids_thw.to(self._device))


def open_material(material: Material, data: Path) -> Dataset:
    """The sequences that a training's file names; `ConfigError` or `SourceError`."""
    path = material.path if material.path.startswith("synthetic:") else data / material.path
    return open_dataset(path, material.layout, material.sequences)


class Scenes:
    """Synthetic endoscopies, seeds 0 to `count` - 1, `side` pixels high; objects are tools, or at times their parts."""

    def __init__(self, count: int, side: int) -> None:
        self._count, self._size_wh = count, (round(ASPECT * side), side)
        self._scene = lru_cache(KEPT_SCENES)(lambda seed: Scene(seed, detail=side))

    def video(self, rng: Rng, length: int) -> Video:
        """A few frames of one scene, from 25 a second to one."""
        seed, apart, times = self._moments(rng, length)
        clip = self._scene(seed).clip(times, *self._size_wh)
        image_t3hw = torch.from_numpy(clip.image_thwc).permute(0, 3, 1, 2).contiguous()
        ids_thw, parts_thw = torch.from_numpy(clip.ids_thw), torch.from_numpy(clip.parts_thw)
        return Video(f"endoscope-{seed}", image_t3hw, _objects(ids_thw, parts_thw, apart))

    def pool(self, rng: Rng, videos: int, length: int, device: torch.device) -> list[Video]:
        """Longer videos, drawn on a GPU once: while it trains, the host could not draw them fast enough."""
        draw = BatchRenderer(device)
        moments = [self._moments(rng, length) for _ in range(videos)]
        with ThreadPoolExecutor() as threads:  # painting is OpenCV's work, which lets other threads run
            scenes = threads.map(lambda m: Scene(m[0], detail=self._size_wh[1]), moments)
            found = []
            for (seed, apart, times), scene in zip(moments, scenes, strict=True):
                seen = draw([scene.view(t) for t in times], *self._size_wh)
                ids_thw = _objects(seen.ids_nhw, seen.parts_nhw, apart)
                found.append(Video(f"endoscope-{seed}", seen.image_nchw, ids_thw))
        return found

    def _moments(self, rng: Rng, length: int) -> tuple[int, bool, list[float]]:
        """A seed, whether parts are told apart, and times in seconds."""
        seed, apart = int(rng.integers(self._count)), bool(rng.random() < PARTS)
        begin, step = rng.uniform(0, LONG_S), float(np.exp(rng.uniform(np.log(0.04), 0)))
        if rng.random() < GOINGS:
            period = period_of(Options.draw(seed))
            begin = (int(begin / period) + LEAVING[0] + rng.uniform(-0.15, 0.05)) * period
            step = rng.uniform(0.1, LEAVING[1] - LEAVING[0] + 0.1) * period / (length - 1)
        return seed, apart, (begin + np.arange(length) * step).tolist()


def _objects(ids_thw: Tensor, parts_thw: Tensor, apart: bool) -> Tensor:
    """Tools as they are, or each part of each tool as an object of its own."""
    return (ids_thw - 1) * len(Part) * (ids_thw > 0) + parts_thw if apart else ids_thw
