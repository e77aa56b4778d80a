"""How many weights a network has, and how much memory it needs while it computes, from its preset alone.

It needs no torch and allocates nothing. tests/engine/test_memory_estimate.py counts both in the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..sam2 import Preset
from ..sam2.presets import HIERA, VIT_BLOCKS, VIT_HEADS, VIT_TABLE

CHANNELS = (1, 4, 16, 64, 256)  # of the memory encoder's convolutions from the mask to the grid
CONV_TRUNKS = {  # weights of a trunk with 3 levels and with 4
    "efficientnet-lite0": (692_688, 2_336_304),
    "efficientnet-lite1": (977_872, 3_095_152),
    "efficientnet-lite2": (1_149_128, 3_617_224),
    "repvit-m1": (2_601_256, 4_682_056),
}
# Numbers for each pixel at stride 2 that a trunk holds at once. EfficientNet-Lite: 96 channels, and their padded copy;
# RepViT: two maps of 24 channels at stride 2, and what stride 4 begins with.
LITE_PEAK, REPVIT_PEAK = 232, 84
MATCH_HIDDEN = 32  # channels between what `Match` copies and the features


def _linear(a: int, b: int) -> int:
    return a * b + b


def parameters(p: Preset) -> int:
    """The number of weights of the whole network."""
    return _trunk(p) + _prompts(p) + _decoder(p) + _memory(p) + _match(p)


def _match(p: Preset) -> int:
    c, h = p.match_dim, MATCH_HIDDEN
    return _linear(p.dim // 4, c) + p.dim * c + 1 + _linear(2 * 16, h) + _linear(h, p.dim) if c else 0


def _trunk(p: Preset) -> int:
    if p.trunk in VIT_HEADS:
        return _vit(p.stage_dims[0], p.dim)
    trunk = _hiera(p) if p.trunk == HIERA else CONV_TRUNKS[p.trunk][p.levels - 3]
    return trunk + sum(_linear(dim, p.dim) for dim in p.stage_dims)


def _hiera(p: Preset) -> int:
    c = p.embed_dim
    count = 3 * c * 49 + c + c * p.background**2 + c * p.windows[0] ** 2
    for stage, depth in enumerate(p.stages):
        dim = p.stage_dims[stage]
        for i in range(depth):
            before = p.stage_dims[stage - 1] if stage and not i else dim
            count += 2 * before + _linear(before, 3 * dim) + _linear(dim, dim) + 2 * dim
            count += _linear(dim, 4 * dim) + _linear(4 * dim, dim)
            count += _linear(before, dim) if before != dim else 0
    return count


def _vit(c: int, d: int) -> int:
    """A plain ViT and its neck."""
    block = 4 * c + _linear(c, 3 * c) + _linear(c, c) + _linear(c, 4 * c) + _linear(4 * c, c)
    return _linear(3 * 256, c) + (1 + VIT_TABLE**2) * c + VIT_BLOCKS * block + c * d + 9 * d * d + 4 * d


def _prompts(p: Preset) -> int:
    return 6 * p.dim + (16 + 4 + 8) + (256 + 16 + 32) + _linear(16, p.dim)


def _decoder(p: Preset) -> int:
    d, f = p.dim, p.decoder_ffn
    across = 3 * _linear(d, d // 2) + _linear(d // 2, d)
    layer = 4 * _linear(d, d) + 2 * across + _linear(d, f) + _linear(f, d) + 8 * d
    upscaling = d * d + d // 4 + d // 2 + d // 4 * (d // 8) * 4 + d // 8
    heads = 4 * (2 * _linear(d, d) + _linear(d, d // 8)) + 4 * _linear(d, d) + _linear(d, 4) + _linear(d, 1)
    fine = _linear(d, d // 8) + _linear(d, d // 4) if p.finer_maps else 0
    return 2 * layer + across + 2 * d + 6 * d + upscaling + fine + heads


def _memory(p: Preset) -> int:
    d, m, f = p.dim, p.memory_dim, p.attention_ffn
    layer = 6 * _linear(d, d) + 2 * _linear(m, d) + _linear(d, f) + _linear(f, d) + 6 * d
    mask = sum(9 * a * b + 3 * b for a, b in pairwise(CHANNELS)) + _linear(CHANNELS[-1], d)
    fuser = 2 * (50 * d + 2 * d + _linear(d, 4 * d) + _linear(4 * d, d) + d)
    count = p.attention_layers * layer + 2 * d + mask + _linear(d, d) + fuser + _linear(d, m)
    count += 17 + 3 * _linear(d, d) + p.num_maskmem * m + 3 * d
    count += _perceiver(p) if p.perceiver else 0
    return count + (_linear(d, m) if p.pointer_time else 0) + (m if p.no_object_in_memory else 0)


def _perceiver(p: Preset) -> int:
    m = p.memory_dim
    layer = 2 * 4 * m * m + 6 * m + 2 * (8 * m * m + 2 * m)  # two attentions with three norms, two MLPs with one each
    return 2 * p.perceiver**2 * m + 2 * layer + 2 * m


@dataclass(frozen=True, slots=True)
class Sizes:
    """A network at an image size, with `objects` that each attend to `slots` memories and to `pointers`.

    `product` is the bytes of a number in matrix products, `stream` those of a number between layers. All sizes but
    `cells` are in bytes; those of verbs are the most that they need at once.
    """

    preset: Preset
    image_size: int
    objects: int
    slots: int
    pointers: int
    product: int
    stream: int

    @property
    def cells(self) -> int:
        """n, the cells of the grid at stride 16."""
        return (self.image_size // 16) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one memory."""
        return self.preset.memory_tokens(self.image_size // 16)

    @property
    def keys(self) -> int:
        """The keys of all memories that attention reads, [b, t, L, n, D]."""
        p = self.preset
        return self.objects * self.slots * p.attention_layers * self.tokens * p.dim * self.product

    @property
    def values(self) -> int:
        """The values of all memories that attention reads, in fp32, [b, t, n, M]."""
        return self.objects * self.slots * self.tokens * self.preset.memory_dim * 4

    @property
    def features(self) -> int:
        """The encoder's output: maps at strides 16, 8 and 4."""
        return 4 * self.cells * self.preset.dim * self.product

    @property
    def compared(self) -> int:
        """The cells that one object's frame is compared with, [C + 1, 2g, 2g] in fp32, if the network has `Match`."""
        c = self.preset.match_dim
        return 4 * 4 * self.cells * (c + 1) if c else 0

    @property
    def similarities(self) -> int:
        """The similarities of all cells and their softmax, in fp32, [b, 4 n, 4 n], where they are held in full."""
        return self.objects * 2 * 4 * (4 * self.cells) ** 2 if self.preset.match_dim else 0

    def weights(self) -> int:
        """The weights of `StaticNetwork`, without its tables. `Match` is always fp32."""
        match = _match(self.preset)
        return (parameters(self.preset) - match) * self.product + 4 * match

    def tables(self, rows: int | None = None) -> int:
        """The position and rotation tables of `StaticNetwork`, which grow with the image.

        `rows` is the bytes of a number in the rows of the slots (None: `stream`).
        """
        p, n, t = self.preset, self.cells, self.tokens
        slots = t * p.dim * p.num_maskmem * p.attention_layers * (rows or self.stream)
        # Of a perceiver: the rotation of its latents, and what positions add to keys and values in two layers.
        latents = 2 * t * p.dim + 4 * n * p.memory_dim if p.perceiver else 0
        return slots + self.stream * (t * p.dim * p.attention_layers + n * (4 * p.dim + self.position) + latents)

    def network(self) -> int:
        """The plain network in fp32 with its tables, which an engine keeps beside the static one for prompts."""
        p, n, t = self.preset, self.cells, self.tokens
        latents = 2 * t * p.dim + n * p.memory_dim if p.perceiver else 0
        return 4 * (parameters(p) + t * p.memory_dim + latents + n * (4 * p.dim + self.position))

    @property
    def position(self) -> int:
        """Numbers in the trunk's position table for each cell."""
        return self.preset.stage_dims[0] if self.preset.trunk in VIT_HEADS else 16 * self.preset.embed_dim

    def encode(self) -> int:
        """Queries, keys and values at stride 4, and their copy by windows, in the block that doubles the channels; or
        the MLP of a plain ViT, or what a convolutional trunk holds at stride 2.
        """
        if self.preset.trunk in VIT_HEADS:
            return self.cells * self.preset.stage_dims[0] * (8 * self.product + 5 * self.stream)
        if self.preset.trunk != HIERA:
            return self._conv_peak() * self.product
        side, window = self.image_size // 4, self.preset.windows[0]
        filled = (-(-side // window) * window) ** 2 / side**2
        unit = 16 * self.cells * self.preset.embed_dim
        return int(unit * (6 * self.product + 6 * filled * self.product + 3.5 * self.stream))

    def _conv_peak(self) -> int:
        """The most numbers that a convolutional trunk holds at once, at stride 2."""
        return 64 * self.cells * (REPVIT_PEAK if self.preset.trunk == "repvit-m1" else LITE_PEAK)

    def attend(self) -> int:
        """The keys, and either their sum with the slots' rows or a layer's MLP."""
        p = self.preset
        rows = 1 + max(1, self.stream // self.product)
        layer = self.objects * self.cells * (2 * p.attention_ffn * self.product + 6 * p.dim * self.stream)
        return max(rows * self.keys, self.keys + layer) + self.values * self.product // 4

    def gather(self) -> int:
        """Memories gathered from a pool, the rows of their slots, and the sum of both, which attention reads."""
        return 3 * self.keys + self.values + self.values * self.product // 4

    def decode(self) -> int:
        """The upscaled features at stride 4, from which the masks are computed."""
        return self.objects * self.cells * self.preset.dim * max(6 * self.product, 4 * self.stream)

    def remember(self) -> int:
        """The new keys while they are rotated, or the MLP of the fuser's layers beside the mask."""
        p = self.preset
        keys = self.tokens * 4 * p.attention_layers * p.dim * self.stream
        mixing = self.cells * (8 * p.dim * self.product + 4 * p.dim * self.stream + 4 * 256)
        return self.objects * max(keys, mixing)

    def step(self, full: bool = False) -> int:
        """The most that a tracked frame needs at once beside its inputs; `full`: with all similarities at once."""
        kept = self.features + 12 * self.image_size**2  # and the encoder's input
        most = max(self.encode(), self.gather(), self.attend(), self.decode(), self.remember())
        return kept + max(most, self.similarities if full else 0)

    def plain(self) -> int:
        """The same for the plain network, which is fp32 between its products and projects all keys in every layer."""
        p, bn = self.preset, self.objects * self.cells
        seen = self.objects * (self.slots * self.tokens + self.pointers * p.pointer_tokens)
        tokens = p.trunk == HIERA or p.trunk in VIT_HEADS
        encode = 13 * self.cells * self.position if tokens else self._conv_peak()
        layer = bn * (2 * p.attention_ffn + 8 * p.dim) + 2 * seen * p.dim
        compared = self.similarities // 4 + bn * p.dim
        most = max(encode, 7 * seen * p.dim, layer, 13 * bn * p.dim + 256 * bn, compared)
        return 4 * (4 * self.cells * p.dim + most)
