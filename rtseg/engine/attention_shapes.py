"""The shapes of all attention in the graphs: which of it TensorRT can fuse, and how much memory the rest needs.

TensorRT runs attention as one kernel, which never writes its scores to memory, under documented conditions ("Fused
Attention", method 2, and its list for MHA fusion): matrix products with fp16 or bf16 inputs, queries scaled before the
first, an added mask or none, a softmax in the same type, and one width H of queries, keys and values, a multiple of 8
from 16 to 256. TensorRT may still not fuse. Then scores and probabilities [b, heads, n, m] are in its scratch memory;
at 1024 px they are the largest arrays of all.

Whether TensorRT has fused is seen only on a GPU, where the fused kernels have `_mha` in their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..sam2 import Preset
from ..sam2.presets import VIT_BLOCKS, VIT_GLOBAL, VIT_HEADS, VIT_WINDOW

TOKENS = 8  # tokens of the mask decoder without a prompt: presence, IoU, four masks, two for the padding point
NARROWEST, WIDEST, STEP = 16, 256, 8  # the widths H that are fused
FUSED = ("bf16", "fp16", "int8", "fp8")  # precisions with products in 16 bits


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of n queries to m keys in each of `batch` rows (the rows are one object, or windows of the image)."""

    graph: str
    batch: int
    heads: int
    queries: int
    keys: int
    width: int  # of queries and keys
    values: int  # width of the values
    shared: bool = False  # computed once for all objects

    @property
    def scores(self) -> int:
        """How many numbers the score matrix has, for one object or for the image."""
        return self.batch * self.heads * self.queries * self.keys

    def fusable(self, precision: str) -> bool:
        """Whether TensorRT documents that it fuses this. Narrower values are padded to the keys' width."""
        documented = NARROWEST <= self.width <= WIDEST and self.width % STEP == 0
        return precision in FUSED and documented and self.values <= self.width


def attention_shapes(preset: Preset, image_size: int, slots: int, pointers: int) -> list[AttentionShape]:
    """All attention of a tracked frame with this many spatial memories (`slots`) and pointers."""
    p, n = preset, (image_size // 16) ** 2
    remembered = slots * p.memory_tokens(image_size // 16) + pointers * p.pointer_tokens
    own = AttentionShape("attend", 1, 1, n, n, p.dim, p.dim)
    cross = AttentionShape("attend", 1, 1, n, remembered, p.dim, p.memory_dim)
    heads, inner = p.decoder_heads, p.dim // 2
    narrow = inner // heads
    among = AttentionShape("decode", 1, heads, TOKENS, TOKENS, p.dim // heads, p.dim // heads)
    see = AttentionShape("decode", 1, heads, TOKENS, n, narrow, narrow)
    tell = AttentionShape("decode", 1, heads, n, TOKENS, narrow, narrow)
    return [
        *_encoder(p, image_size), *(own, cross) * p.attention_layers, among, *(see, tell) * 2, see, *_perceiver(p, n)
    ]  # fmt: skip


def _perceiver(p: Preset, cells: int) -> list[AttentionShape]:
    """The global latents read the cells, and then one another, in two layers."""
    latents, m = p.perceiver**2, p.memory_dim
    keys = (cells, latents) * 2 if p.perceiver else ()
    return [AttentionShape("remember", 1, 1, latents, n, m, m) for n in keys]


def _encoder(p: Preset, image_size: int) -> Iterator[AttentionShape]:
    """The attention of each block of the trunk. The first block of a stage of Hiera pools its queries, and has the
    windows of the stage before it.
    """
    if p.trunk in VIT_HEADS:
        yield from _vit(p, image_size // 16)
    side, index = image_size // 4, 0
    for stage, depth in enumerate(p.stages):
        for i in range(depth):
            pooled = stage > 0 and i == 0
            window = p.windows[stage - 1 if pooled else stage]
            window = side if index in p.global_blocks else window
            queries = (window // 2) ** 2 if pooled else window**2
            heads = p.heads * 2**stage
            width = p.stage_dims[stage] // heads
            yield AttentionShape(
                "encode", (-(-side // window)) ** 2, heads, queries, window**2, width, width, shared=True
            )
            side, index = side // 2 if pooled else side, index + 1


def _vit(p: Preset, side: int) -> Iterator[AttentionShape]:
    heads = VIT_HEADS[p.trunk]
    for i in range(VIT_BLOCKS):
        window = side if i in VIT_GLOBAL else VIT_WINDOW
        width = p.stage_dims[0] // heads
        yield AttentionShape(
            "encode", (-(-side // window)) ** 2, heads, window**2, window**2, width, width, shared=True
        )


def scores_bytes(
    preset: Preset, image_size: int, slots: int, pointers: int, objects: int, precision: str, fused: bool = False
) -> int:
    """The most bytes that scores and probabilities take at once in TensorRT's scratch memory.

    With `fused` only attention counts that TensorRT does not document as fused.
    """
    size = 2 if precision in FUSED else 4
    held = [
        2 * size * place.scores * (1 if place.shared else objects)
        for place in attention_shapes(preset, image_size, slots, pointers)
        if not (fused and place.fusable(precision))
    ]
    compared = 8 * (image_size // 8) ** 4 * objects if preset.match_dim else 0  # by `Match`, in fp32: never fused
    return max(*held, compared, 0)
