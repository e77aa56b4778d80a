"""The shapes that an engine prepares for, from its recipe. memory_estimate.py predicts their bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...sam2 import Preset
from ..policy import MAX_CONDITIONING
from ..recipe import Recipe
from ..reference import DTYPES
from ..static.engine import SPARE
from .buffers import Layout


@dataclass(frozen=True, slots=True)
class StepShapes:
    """How many memories and pointers a step takes, and for which numbers a step is captured.

    `full_bank`: memories and pointers of an object in the long run; `foreseen`: the numbers of memories whose steps are
    captured beforehand; `buckets`: those that can be captured at all; `layout`: the most of everything; `kept`: how
    many memories of the objects the pool has room for.
    """

    full_bank: tuple[int, int]
    foreseen: tuple[int, ...]
    buckets: tuple[int, ...]
    layout: Layout
    kept: int

    @staticmethod
    def for_recipe(preset: Preset, recipe: Recipe) -> StepShapes:
        """The shapes for a recipe."""
        memory, window, objects = recipe.memory, preset.num_maskmem, recipe.max_objects
        full_bank = (memory.full_bank(window), 1 + max(0, memory.pointers - 1))
        foreseen = {full_bank[0], memory.most_slots(window)}
        # A tracker may have another policy than the recipe's: two more buckets have room for each of ours. If smaller
        # than the recipe's largest they are left out: they would be captured during a feed, and save little.
        more = {n for n in (window, window - 1 + MAX_CONDITIONING) if n > max(foreseen)}
        buckets = sorted(foreseen | more)
        layout = Layout(objects, buckets[-1], max(memory.most_pointers(), full_bank[1]))
        kept = objects * (max(foreseen) + SPARE)
        return StepShapes(full_bank, tuple(sorted(foreseen, reverse=True)), tuple(buckets), layout, kept)

    def bucket(self, slots: int) -> int:
        """The smallest bucket with room for this many slots; the number itself if there is none."""
        return next((n for n in self.buckets if n >= slots), slots)


def dtypes(precision: str) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes of matrix products, and of the activations between layers.

    fp16 overflows in the residual stream, which adds up over layers; bf16 has the range of fp32.
    """
    products = DTYPES.get(precision, torch.float32)
    return products, torch.bfloat16 if products == torch.bfloat16 else torch.float32
