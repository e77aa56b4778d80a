"""The source of a run: opened for a decoder, with what draws on its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..base.errors import ConfigError, did_you_mean
from ..engine.recipe import Recipe
from ..grab import Source, open_source
from ..publish.overlay import DrawMasks, draw_masks
from .settings import DECODERS, Reading

if TYPE_CHECKING:
    from ..grab.nvdec import Gpu


def decoder_of(recipe: Recipe, reading: Reading, on_host: str) -> tuple[Gpu | None, DrawMasks]:
    """The GPU that decodes and holds the pictures (None: the CPU), and the function that draws on them.

    `on_host`: the option that needs pictures in host memory, "" for none.
    """
    if reading.decoder not in DECODERS:
        raise ConfigError(f"decoder = {reading.decoder!r}; {did_you_mean(str(reading.decoder), DECODERS)}")
    if reading.decoder == "cpu":
        return None, draw_masks
    for name, value in ((on_host, on_host), ("--window", reading.window), ("--plane", reading.plane)):
        if value:
            raise ConfigError(f"{name} needs each picture in host memory; leave it out, or --decoder nvdec")
    from .on_gpu import open_gpu, painter

    gpu = open_gpu(recipe)
    return gpu, painter(gpu)


def opened(uris: Sequence[str], reading: Reading, gpu: Gpu | None) -> Source:
    """The source of a run; several uris are one recording. Raises what `open_source` does."""
    if gpu is None:
        keywords = {key: value for key, value in asdict(reading).items() if key != "decoder"}
        return open_source(uris if len(uris) > 1 else uris[0], **keywords)
    from ..grab.opening import open_on_gpu

    return open_on_gpu(uris, gpu, reading.fps, reading.deinterlace, reading.damaged, reading.bits)
