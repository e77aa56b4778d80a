"""What an engine of a recipe prepares for: the sizes of all its buffers, which memory_estimate.py predicts in bytes."""

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

    `full_bank`: memories and pointers that an object has in the long run; `foreseen`: numbers of memories whose steps
    are captured before they are needed, `buckets`: all that can be; `layout`: the most of everything; `kept`: memories
    that the pool holds without a copy.
    """

    full_bank: tuple[int, int]
    foreseen: tuple[int, ...]
    buckets: tuple[int, ...]
    layout: Layout
    kept: int

    @staticmethod
    def for_recipe(preset: Preset, recipe: Recipe) -> StepShapes:
        """What a recipe asks for."""
        memory, window, objects = recipe.memory, preset.num_maskmem, recipe.max_objects
        full_bank = (memory.full_bank(window), 1 + max(0, memory.pointers - 1))
        foreseen = {full_bank[0], memory.most_slots(window)}
        # A tracker may be given another policy than the recipe's: the last two hold what any of ours looks at. Smaller
        # ones than the recipe's own most are left out: they would be captured when they are needed, and save little.
        more = {n for n in (window, window - 1 + MAX_CONDITIONING) if n > max(foreseen)}
        buckets = sorted(foreseen | more)
        layout = Layout(objects, buckets[-1], max(memory.most_pointers(), full_bank[1]))
        kept = objects * (max(foreseen) + SPARE)
        return StepShapes(full_bank, tuple(sorted(foreseen, reverse=True)), tuple(buckets), layout, kept)

    def bucket(self, slots: int) -> int:
        """The smallest number of slots that is prepared for and has room for so many; more than there are: itself."""
        return next((n for n in self.buckets if n >= slots), slots)


def dtypes(precision: str) -> tuple[torch.dtype, torch.dtype]:
    """The types of matrix products, and of the activations between the layers.

    fp16 overflows where activations are added up over layers; bf16 has the range of fp32.
    """
    products = DTYPES.get(precision, torch.float32)
    return products, torch.bfloat16 if products == torch.bfloat16 else torch.float32
