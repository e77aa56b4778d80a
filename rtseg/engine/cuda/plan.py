"""What an engine of a recipe prepares for: the sizes of all its buffers, which engine/room.py foretells in bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...sam2 import Preset
from ..policy import MAX_CONDITIONING
from ..recipe import Recipe
from ..reference import DTYPES
from .buffers import Layout

SPARE = 3  # memories of an object beside those that it looks at: the new one, and a fork's


@dataclass(frozen=True, slots=True)
class Plan:
    """How much an object remembers.

    `steady`: memories and pointers in the long run; `foreseen`: numbers of memories for which steps are captured
    before they are needed, `buckets`: for which they can be; `layout`: the most of everything; `held`: memories that
    may be kept at once without a copy.
    """

    steady: tuple[int, int]
    foreseen: tuple[int, ...]
    buckets: tuple[int, ...]
    layout: Layout
    held: int

    @staticmethod
    def of(preset: Preset, recipe: Recipe) -> Plan:
        """Of this network and recipe."""
        memory, window, objects = recipe.memory, preset.num_maskmem, recipe.max_objects
        steady = (memory.full_bank(window), 1 + max(0, memory.pointers - 1))
        foreseen = {steady[0], memory.most_slots(window)}
        # A tracker may be given another policy than the recipe's: the last two hold what any of ours looks at. Smaller
        # ones than the recipe's own most are left out: they would be captured when they are needed, and save little.
        more = {n for n in (window, window - 1 + MAX_CONDITIONING) if n > max(foreseen)}
        buckets = sorted(foreseen | more)
        layout = Layout(objects, buckets[-1], max(memory.most_pointers(), steady[1]))
        held = objects * (max(foreseen) + SPARE)
        return Plan(steady, tuple(sorted(foreseen, reverse=True)), tuple(buckets), layout, held)

    def bucket(self, slots: int) -> int:
        """The smallest number of slots that is prepared for and has room for so many; more than there are: itself."""
        return next((n for n in self.buckets if n >= slots), slots)


def types(precision: str) -> tuple[torch.dtype, torch.dtype]:
    """Of the products, and of what flows between the layers.

    fp16 overflows where activations are added up over layers; bf16 has the range of fp32.
    """
    products = DTYPES.get(precision, torch.float32)
    return products, torch.bfloat16 if products == torch.bfloat16 else torch.float32
