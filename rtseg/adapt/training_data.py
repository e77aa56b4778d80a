"""The training data that a configuration names, read at the image size of a phase, and the sampler of its batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ConfigError
from ..data import open_dataset
from ..data.dataset import Dataset
from ..synthetic import HELD_OUT_SEED, Part, Scene
from ..synthetic.batch import BatchRenderer
from ..synthetic.moves import LEAVING, period_of
from ..synthetic.options import Options
from .batches import BatchSampler, VideoSource, mixed, uniform
from .clip_spec import FAR
from .config import Material, Phase, TrainConfig
from .motion import Rng
from .training_video import TrainingVideo, read_stills, read_texture, read_video

MARGIN = 1.25  # videos are stored larger than the network's image by this factor, because views zoom in
CACHED_SCENES = 256
PARTS = 0.1  # probability that shaft, wrist and jaws of a tool are separate objects
LEAVES = 0.5  # probability that a clip shows an instrument leaving the image, and mostly coming back
ASPECT, LONG_S = 1.33, 120.0
POOL, POOL_LENGTH = 800, 12  # videos that a GPU renders in advance, and frames of each: 4 GB at 320 pixels
PASTED_FROM = 8  # how many synthetic videos pasted objects are cut from


class TrainingData:
    """Reads the training data of a configuration for its phases. Paths in it are relative to `data`.

    Raises `ConfigError` if the configuration asks for synthetic scenes that are held out for evaluation.
    """

    def __init__(self, config: TrainConfig, data: Path, device: torch.device) -> None:
        if config.endoscope.scenes > HELD_OUT_SEED:
            raise ConfigError(f"{config.path}: {config.endoscope.scenes} scenes; expected at most {HELD_OUT_SEED}")
        self._config, self._data, self._device = config, data, device

    def sampler(self, phase: Phase) -> BatchSampler:
        """The sampler of this phase's batches. Reads all videos into memory, which takes a while."""
        config, side = self._config, round(MARGIN * phase.image_size)
        sources = [VideoSource(m.path, m.share, uniform(self._videos(m, side))) for m in config.videos]
        for m in config.textures:
            textures = read_texture(self._data / m.path, side, m.every, m.stills)
            sources.append(VideoSource(m.path, m.share, uniform([self._on_device(video) for video in textures])))
        others = list(sources)
        if config.endoscope.share:
            scenes = SyntheticScenes(config.endoscope.scenes, side)
            rng = np.random.default_rng((config.seed, 2))
            if self._device.type == "cuda":
                videos = scenes.pool(rng, POOL, POOL_LENGTH, self._device)
                sources.append(VideoSource("endoscope", config.endoscope.share, uniform(videos)))
            else:
                videos = [scenes.video(rng, 4) for _ in range(PASTED_FROM)]
                sources.append(VideoSource("endoscope", config.endoscope.share, scenes.video))
            others.append(VideoSource("endoscope", config.endoscope.share, uniform(videos[:PASTED_FROM])))
        return BatchSampler(sources, mixed(others), config.seed, self._device)

    def _videos(self, material: Material, side: int) -> list[TrainingVideo]:
        videos = []
        for sequence in open_material(material, self._data).sequences:
            if material.stills:
                found = read_stills(sequence, side, material.every, material.split)
            else:
                found = [read_video(sequence, side, material.every)]
            if not any(video.ids for video in found):
                raise ConfigError(
                    f"{material.path}: {sequence.name} shows no object; expected masks in a [[video]]: "
                    "name it as a [[texture]]"
                )
            videos += [self._on_device(video) for video in found]
        return videos

    def _on_device(self, video: TrainingVideo) -> TrainingVideo:
        return replace(video, image_t3hw=video.image_t3hw.to(self._device), ids_thw=video.ids_thw.to(self._device))


def open_material(material: Material, data: Path) -> Dataset:
    """Open the sequences that an entry of a configuration names. Raises what `open_dataset` raises."""
    path = material.path if material.path.startswith("synthetic:") else data / material.path
    return open_dataset(path, material.layout, material.sequences)


class SyntheticScenes:
    """Synthetic endoscopies, seeds 0 to `count` - 1, `side` pixels high. Objects are tools, or at times their parts."""

    def __init__(self, count: int, side: int) -> None:
        self._count, self._size_wh = count, (round(ASPECT * side), side)
        self._scene = lru_cache(CACHED_SCENES)(lambda seed: Scene(seed, detail=side))

    def video(self, rng: Rng, length: int) -> TrainingVideo:
        """`length` frames of a random scene, at a frame rate between 25 and 1 per second."""
        seed, parts, times = self._sample_times(rng, length)
        clip = self._scene(seed).clip(times, *self._size_wh)
        image_t3hw = torch.from_numpy(clip.image_thwc).permute(0, 3, 1, 2).contiguous()
        ids_thw, parts_thw = torch.from_numpy(clip.ids_thw), torch.from_numpy(clip.parts_thw)
        return TrainingVideo(f"endoscope-{seed}", image_t3hw, _object_ids(ids_thw, parts_thw, parts))

    def pool(self, rng: Rng, videos: int, length: int, device: torch.device) -> list[TrainingVideo]:
        """Render longer videos on a GPU once, because the CPU cannot render them fast enough during training."""
        render = BatchRenderer(device)
        samples = [self._sample_times(rng, length) for _ in range(videos)]
        with ThreadPoolExecutor() as threads:  # a scene is painted by OpenCV, which releases the interpreter's lock
            scenes = threads.map(lambda sample: Scene(sample[0], detail=self._size_wh[1]), samples)
            rendered = []
            for (seed, parts, times), scene in zip(samples, scenes, strict=True):
                frames = render([scene.view(t) for t in times], *self._size_wh)
                ids_thw = _object_ids(frames.ids_nhw, frames.parts_nhw, parts)
                rendered.append(TrainingVideo(f"endoscope-{seed}", frames.image_nchw, ids_thw))
        return rendered

    def _sample_times(self, rng: Rng, length: int) -> tuple[int, bool, list[float]]:
        """A seed, whether parts are separate objects, and the frames' times in seconds."""
        seed, parts = int(rng.integers(self._count)), bool(rng.random() < PARTS)
        begin, step = rng.uniform(0, LONG_S), float(np.exp(rng.uniform(np.log(0.04), 0)))
        if rng.random() < LEAVES:
            period = period_of(Options.draw(seed))
            begin = (int(begin / period) + LEAVING[0] + rng.uniform(-0.15, 0.05)) * period
            step = rng.uniform(0.1, LEAVING[1] - LEAVING[0] + 0.1) * period / max(length - 1, 1)
        times_t = begin + np.arange(length) * step
        if rng.random() < FAR:
            times_t[0] = rng.uniform(0, LONG_S)
        return seed, parts, times_t.tolist()


def _object_ids(ids_thw: Tensor, parts_thw: Tensor, parts: bool) -> Tensor:
    """The ids of tools; with `parts`, an id for each part of each tool."""
    return (ids_thw - 1) * len(Part) * (ids_thw > 0) + parts_thw if parts else ids_thw
