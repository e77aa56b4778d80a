"""Presets: the sizes of every SAM 2 network that rtseg can build.

The published ones are Meta's (SAM 2, arXiv 2408.00714; EdgeTAM, arXiv 2501.07256; EfficientTAM, arXiv 2411.18933);
`nano` and `micro` are ours. A preset of a user's own is a TOML file with the fields of `Preset`. The trunk is either
Hiera, whose sizes a preset states, or another network of fixed sizes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..base.documents import read_toml
from ..base.errors import ConfigError, did_you_mean
from ..base.schema import Text, convert, mistake, one_of

MAX_SIZE = 8192  # of any number in a preset: with a larger one the weights would fit into no machine

Rule = tuple[str, bool, str]  # a key, whether its value is right, and what is expected
Size = Annotated[int, Meta(ge=1, le=MAX_SIZE)]
Index = Annotated[int, Meta(ge=0, le=MAX_SIZE)]
HIERA = "hiera"
FIXED_TRUNKS = {  # channels of the maps at stride 4, 8, 16 and 32
    "efficientnet-lite0": (24, 40, 112, 192),
    "efficientnet-lite1": (24, 40, 112, 192),
    "efficientnet-lite2": (24, 48, 120, 208),
    "repvit-m1": (48, 96, 192, 384),
    "vit-tiny": (192,),  # stride 16 alone
    "vit-small": (384,),
}
VIT_HEADS = {"vit-tiny": 3, "vit-small": 6}
VIT_BLOCKS, VIT_WINDOW, VIT_GLOBAL = 12, 14, (2, 5, 8, 11)  # blocks, the side of their windows, those without any
VIT_TABLE = 14  # side of the position table: these trunks were trained at 224 px
FourIndexes = Annotated[tuple[Index, Index, Index, Index], Meta(description=f"four whole numbers, 0 to {MAX_SIZE}")]


@dataclass(frozen=True, slots=True)
class Preset:
    """The sizes of one network, under the names of Meta's configuration files where these have one.

    `embed_dim` to `background` are Hiera's; a preset with another trunk leaves them out. `stages`: blocks in each
    stage. `windows`: side of the attention window in each stage, in tokens. `global_blocks`: blocks that attend
    globally. `background`: side of the coarse position embedding that is resized to the image.
    `levels`: the maps of the trunk that are used, finest first; with 3 there is none at stride 32, with 1 only stride
    16, and the decoder sees no finer maps.
    `num_maskmem`: spatial memories that the network was trained to attend to. `match_dim`: channels of the embeddings
    that are compared with the newest conditioning frame (`Match`); 0, as in all published networks: without.
    `perceiver`: side p of the windows' grid where a memory is not a map but p * p latents of the whole map and one for
    each of p x p windows; 0: it is the map.
    """

    name: Text
    embed_dim: Index = 0
    heads: Index = 0
    stages: FourIndexes = (0, 0, 0, 0)
    global_blocks: Annotated[tuple[Index, ...], Meta(description=f"a list of whole numbers, 0 to {MAX_SIZE}")] = ()
    windows: FourIndexes = (0, 0, 0, 0)
    background: Index = 0
    dim: Size = 256
    memory_dim: Size = 64
    attention_layers: Size = 4
    attention_ffn: Size = 2048
    decoder_ffn: Size = 2048
    decoder_heads: Size = 8
    num_maskmem: Annotated[int, Meta(ge=2, le=MAX_SIZE)] = 7
    max_pointers: Size = 16
    no_object_in_memory: bool = True  # 2.1: an absent object marks its memory
    pointer_time: bool = True  # 2.1: object pointers carry their age
    trunk: Annotated[str, one_of((HIERA, *FIXED_TRUNKS))] = HIERA
    levels: Annotated[int, Meta(ge=1, le=4)] = 4
    match_dim: Index = 0
    perceiver: Index = 0

    def __post_init__(self) -> None:
        """Raise an error for the first number that makes the layers incompatible."""
        for key, fits, expected in (
            *(self._hiera_rules() if self.trunk == HIERA else self._fixed_trunk_rules()),
            ("dim", self.dim % 8 == 0, "a multiple of 8"),
            ("memory_dim", self.memory_dim % 4 == 0 and self.dim % self.memory_dim == 0,
             "a multiple of 4 that divides dim"),
            ("decoder_heads", self.dim % (2 * self.decoder_heads) == 0, "a divisor of dim / 2"),
        ):  # fmt: skip
            if not fits:
                raise mistake(key, getattr(self, key), expected)

    def _hiera_rules(self) -> list[Rule]:
        blocks = sum(self.stages)
        return [
            ("embed_dim", self.embed_dim > 0, f"a whole number, 1 to {MAX_SIZE}"),
            ("heads", self.heads > 0 and self.embed_dim % self.heads == 0, "a divisor of embed_dim"),
            ("stages", all(self.stages), "at least one block in each"),
            ("windows", self.windows[0] in (1, 2, 4, 8) and all(self.windows), "1, 2, 4 or 8 first, and no 0"),
            ("global_blocks", all(b < blocks for b in self.global_blocks), f"blocks from 0 to {blocks - 1}"),
            ("background", self.background > 0, f"a whole number, 1 to {MAX_SIZE}"),
            ("levels", self.levels == 4, "4 with this trunk"),
        ]

    def _fixed_trunk_rules(self) -> list[Rule]:
        keys = ("embed_dim", "heads", "stages", "global_blocks", "windows", "background")
        absent = f"nothing: {self.trunk} has fixed sizes"
        empty = [(key, not (any(value) if isinstance(value := getattr(self, key), tuple) else value), absent)
                 for key in keys]  # fmt: skip
        if len(FIXED_TRUNKS[self.trunk]) == 1:
            one = ("levels", self.levels == 1, "1 with this trunk")
            return [*empty, one, ("match_dim", not self.match_dim, "0: this trunk has no map at stride 8")]
        return [*empty, ("levels", self.levels in (3, 4), "3 or 4")]

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of each map of the trunk, finest first."""
        if self.trunk == HIERA:
            return tuple(self.embed_dim * 2**i for i in range(len(self.stages)))
        return FIXED_TRUNKS[self.trunk][: self.levels]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all fields; of those that came after `pointer_time`, of those that are not at their default."""
        later, parts = False, []
        for one in fields(self):
            if not later or getattr(self, one.name) != one.default:
                parts.append(f"{one.name}={getattr(self, one.name)!r}")
            later = later or one.name == "pointer_time"
        return hashlib.sha256(f"Preset({', '.join(parts)})".encode()).hexdigest()

    @property
    def finer_maps(self) -> bool:
        """Whether the decoder sees maps at stride 4 and 8. Without, these features are 0."""
        return self.levels > 1

    @property
    def pointer_tokens(self) -> int:
        """Attention tokens that one object pointer is split into."""
        return self.dim // self.memory_dim

    def memory_shape(self, grid: int) -> tuple[int, int]:
        """Rows and columns of a memory [M, rows, columns] where the image has grid x grid cells."""
        return (2 * self.perceiver, self.perceiver) if self.perceiver else (grid, grid)

    def memory_tokens(self, grid: int) -> int:
        """Attention tokens of one memory where the image has grid x grid cells."""
        rows, columns = self.memory_shape(grid)
        return rows * columns


_TINY = Preset("sam2.1-tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7)
_V21 = (
    _TINY,
    replace(_TINY, name="sam2.1-small", stages=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    Preset("sam2.1-base+", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    Preset("sam2.1-large", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
)
_V20 = tuple(replace(p, name=p.name.replace("2.1", "2"), no_object_in_memory=False, pointer_time=False) for p in _V21)
_NANO = Preset(
    "nano", trunk="efficientnet-lite0", match_dim=32,
    dim=128, memory_dim=64, attention_layers=2, attention_ffn=512, decoder_ffn=512, decoder_heads=4,
)  # fmt: skip
_NANO_HIERA = Preset(  # `nano` until 0.7; weights that were trained for it still load under this name
    "nano-hiera", 48, 1, (1, 2, 4, 1), (6,), (8, 4, 20, 10), 8,
    dim=128, memory_dim=64, attention_layers=2, attention_ffn=512, decoder_ffn=512, decoder_heads=4,
)  # fmt: skip
_MICRO = Preset(
    "micro", 32, 1, (1, 2, 3, 1), (5,), (8, 4, 14, 7), 7,
    dim=128, memory_dim=64, attention_layers=2, attention_ffn=192, decoder_ffn=128, decoder_heads=4,
)  # fmt: skip
_EDGETAM = Preset(
    "edgetam", trunk="repvit-m1", attention_layers=2, no_object_in_memory=False, pointer_time=False, perceiver=16
)
_EFFICIENTTAM = tuple(
    Preset(f"efficienttam-{size}", trunk=f"vit-{size}", levels=1, no_object_in_memory=False, pointer_time=False)
    for size in ("tiny", "small")
)
PRESETS: dict[str, Preset] = {p.name: p for p in (*_V21, *_V20, _EDGETAM, *_EFFICIENTTAM, _NANO, _NANO_HIERA, _MICRO)}


def get_preset(name: str) -> Preset:
    """The preset of this name, or the one in this .toml file; `ConfigError` if there is none."""
    if name.endswith(".toml"):
        return _read_preset(Path(name))
    if name not in PRESETS:
        raise ConfigError(f"model {name!r}: no such preset; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def _read_preset(path: Path) -> Preset:
    return convert({"name": path.stem, **read_toml(path)}, Preset, str(path))
