"""The sizes of every SAM 2 network that rtseg can build, as numbers.

The published ones are Meta's (arXiv 2408.00714, and the released checkpoints); `nano` and `micro` are ours; a user's
own is a TOML file with the fields of `Preset`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..base.documents import read_toml
from ..base.errors import ConfigError, did_you_mean
from ..base.tables import short

MOST = 8192  # of any number of a network: beyond, its weights fit into no machine


@dataclass(frozen=True, slots=True)
class Preset:
    """One network. `stages` are Hiera blocks a stage; `windows` the attention window of each stage, in tokens."""

    name: str
    embed_dim: int
    heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]
    background: int  # side of the coarse position embedding that is stretched over the image
    dim: int = 256
    memory_dim: int = 64
    attention_layers: int = 4
    attention_ffn: int = 2048
    decoder_ffn: int = 2048
    decoder_heads: int = 8
    num_maskmem: int = 7
    max_pointers: int = 16
    no_object_in_memory: bool = True  # 2.1: an absent object marks its memory
    pointer_time: bool = True  # 2.1: object pointers carry their age

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of each Hiera stage, finest first."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.stages)))

    @property
    def pointer_tokens(self) -> int:
        """Attention tokens that one object pointer is split into."""
        return self.dim // self.memory_dim


_TINY = Preset("sam2.1-tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7)
_V21 = (
    _TINY,
    replace(_TINY, name="sam2.1-small", stages=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    Preset("sam2.1-base+", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    Preset("sam2.1-large", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
)
_V20 = tuple(replace(p, name=p.name.replace("2.1", "2"), no_object_in_memory=False, pointer_time=False) for p in _V21)
_NANO = Preset(
    "nano", 48, 1, (1, 2, 4, 1), (6,), (8, 4, 20, 10), 8,
    dim=128, memory_dim=64, attention_layers=2, attention_ffn=512, decoder_ffn=512, decoder_heads=4,
)  # fmt: skip
_MICRO = Preset(
    "micro", 32, 1, (1, 2, 3, 1), (5,), (8, 4, 14, 7), 7,
    dim=128, memory_dim=64, attention_layers=2, attention_ffn=192, decoder_ffn=128, decoder_heads=4,
)  # fmt: skip
PRESETS: dict[str, Preset] = {p.name: p for p in (*_V21, *_V20, _NANO, _MICRO)}


def get_preset(name: str) -> Preset:
    """The preset of this name, or the one in this .toml file; `ConfigError` if there is none."""
    if name.endswith(".toml"):
        return _read_preset(Path(name))
    if name not in PRESETS:
        raise ConfigError(f"model {name!r}: no such preset; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def _read_preset(path: Path) -> Preset:
    values = read_toml(path)
    known = [f.name for f in fields(Preset)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; {did_you_mean(key, known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in {"name": path.stem, **values}.items()}
    try:
        preset = Preset(**values)
    except TypeError as e:
        needed = "embed_dim, heads, stages, global_blocks, windows, background"
        raise ConfigError(f"{path}: numbers are missing; expected at least {needed}") from e
    _check(path, preset)
    return preset


def _check(path: Path, p: Preset) -> None:
    """Raise `ConfigError` for the first number with which the layers would not fit together."""
    for f in fields(Preset):
        value = getattr(p, f.name)
        if not _is_a(str(f.type), value):
            raise ConfigError(
                f"{path}: {f.name} = {short(value)}; expected {str(f.type).replace('tuple', '')}, {MOST} at most"
            )
    blocks = sum(p.stages)
    for key, fits, expected in (
        ("heads", p.embed_dim % p.heads == 0, "a divisor of embed_dim"),
        ("stages", all(p.stages), "at least one block in each"),
        ("windows", p.windows[0] in (1, 2, 4, 8) and all(p.windows), "1, 2, 4 or 8 first, and no 0"),
        ("global_blocks", all(b < blocks for b in p.global_blocks), f"blocks from 0 to {blocks - 1}"),
        ("dim", p.dim % 8 == 0, "a multiple of 8"),
        ("memory_dim", p.memory_dim % 4 == 0 and p.dim % p.memory_dim == 0, "a multiple of 4 that divides dim"),
        ("decoder_heads", p.dim % (2 * p.decoder_heads) == 0, "a divisor of dim / 2"),
    ):
        if not fits:
            raise ConfigError(f"{path}: {key} = {getattr(p, key)}; expected {expected}")


def _is_a(kind: str, value: object) -> bool:
    if isinstance(value, tuple):
        long_enough = kind.endswith("...]") or len(value) == kind.count("int")
        return kind.startswith("tuple") and long_enough and all(type(n) is int and 0 <= n <= MOST for n in value)
    return type(value).__name__ == kind and (type(value) is not int or 0 < value <= MOST)
