"""What an engine of a recipe prepares for, and the bytes that it takes: all sizes are decided here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...config import CONDITIONING, Recipe
from ...sam2 import Preset
from ..reference import DTYPES
from .buffers import Layout
from .pool import shapes, slots_of

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
        steady = (memory.steady_slots(window), 1 + max(0, memory.pointers - 1))
        foreseen = {steady[0], memory.most_slots(window)}
        # A tracker may be given another policy than the recipe's: the last two hold what any of ours looks at.
        buckets = sorted({*foreseen, window, window - 1 + CONDITIONING})
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


def bytes_of(preset: Preset, recipe: Recipe, height: int, width: int, parameters: int) -> dict[str, int]:
    """What an engine of this recipe allocates for pictures of one size, by name; "pinned" is host memory.

    `parameters` is how many numbers the network's weights are. Not counted: what a step computes on its way, and the
    libraries' workspaces. A second size of pictures takes its "pictures" and "pinned" once more.
    """
    plan, grid = Plan.of(preset, recipe), recipe.image_size // 16
    products, stream = (dtype.itemsize for dtype in types(recipe.precision))
    (layers, n, dim), (_, memory_dim) = shapes(preset, grid)
    slot = layers * n * dim * products + n * memory_dim * 4
    upload = plan.layout.nbytes + 3 * height * width
    cells = (recipe.image_size // 4) ** 2 * preset.embed_dim
    tables = n * (dim * (4 + layers) * stream + preset.num_maskmem * layers * dim * products)
    reference = 4 * (cells + n * (4 * dim + memory_dim))
    return {
        "weights": (4 + products) * parameters,
        "tables": tables + cells * stream + reference,
        "memories": slots_of(plan.layout.objects, plan.held) * slot,
        "pictures": upload + 4 * plan.layout.objects * plan.layout.pointers * dim,
        "pinned": 2 * upload + 4 * recipe.image_size**2,
    }
