"""Where the graphs attend, as numbers: which of it TensorRT can fuse, and what it would hold where it does not.

Attention is one kernel, which never writes its scores to memory, under documented conditions (TensorRT, "Fused
Attention", method 2, and its list for MHA fusion): matrix products with fp16 or bf16 inputs, queries scaled before the
first, an added mask or none, a softmax in the same type, and one width H of queries, keys and values, a multiple of 8
from 16 to 256. TensorRT may still choose not to. Then scores and probabilities [b, heads, n, m] lie in its scratch
memory; at 1024 px they are the largest things there are.

That a place was fused is not seen here: on a GPU its kernels have `_mha` in their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..sam2 import Preset

TOKENS = 8  # of the mask decoder where nobody prompts: presence, IoU, four masks, two for the point that is none
NARROWEST, WIDEST, STEP = 16, 256, 8  # of H
FUSED = ("bf16", "fp16", "int8", "fp8")  # precisions whose products are in half types


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of n queries to m keys in each of `batch` rows (an object's, or the windows of the image)."""

    graph: str
    batch: int
    heads: int
    queries: int
    keys: int
    width: int  # of queries and keys
    values: int  # width of the values
    shared: bool = False  # between the objects

    @property
    def scores(self) -> int:
        """Numbers of the score matrix: of one object, or of the image."""
        return self.batch * self.heads * self.queries * self.keys

    def fusable(self, precision: str) -> bool:
        """Whether TensorRT documents that it fuses this; narrower values are filled up to the keys' width."""
        documented = NARROWEST <= self.width <= WIDEST and self.width % STEP == 0
        return precision in FUSED and documented and self.values <= self.width


def attention_shapes(preset: Preset, image_size: int, slots: int, pointers: int) -> list[AttentionShape]:
    """All attention of a tracked frame with so many memory slots and pointers."""
    p, n = preset, (image_size // 16) ** 2
    remembered = slots * n + pointers * p.pointer_tokens
    own = AttentionShape("attend", 1, 1, n, n, p.dim, p.dim)
    cross = AttentionShape("attend", 1, 1, n, remembered, p.dim, p.memory_dim)
    heads, inner = p.decoder_heads, p.dim // 2
    narrow = inner // heads
    among = AttentionShape("decode", 1, heads, TOKENS, TOKENS, p.dim // heads, p.dim // heads)
    see = AttentionShape("decode", 1, heads, TOKENS, n, narrow, narrow)
    tell = AttentionShape("decode", 1, heads, n, TOKENS, narrow, narrow)
    return [*_encoder(p, image_size), *(own, cross) * p.attention_layers, among, *(see, tell) * 2, see]


def _encoder(p: Preset, image_size: int) -> Iterator[AttentionShape]:
    """One place a block of the trunk; the first of a stage pools its queries, in windows of the stage before it."""
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


def scores_bytes(
    preset: Preset, image_size: int, slots: int, pointers: int, objects: int, precision: str, fused: bool = False
) -> int:
    """The most that attention holds at once in TensorRT's scratch memory, in bytes: scores and probabilities.

    Of all places; with `fused` of those alone that TensorRT does not document as fused.
    """
    size = 2 if precision in FUSED else 4
    held = [
        2 * size * place.scores * (1 if place.shared else objects)
        for place in attention_shapes(preset, image_size, slots, pointers)
        if not (fused and place.fusable(precision))
    ]
    return max(held, default=0)
