"""Which of the compiled instruction sets this CPU can run, and which one a precision uses.

The kernels are an extension module, `_kernels`: a wheel contains it, and `pip install` from source builds it if there
is a C++ compiler. The module has the same functions for each instruction set. The environment variable `RTSEG_ISA`
names the highest set to use, so that each can be tested on a machine that has better ones.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from ...base.errors import EngineError, did_you_mean
from ...sam2 import Preset

NEWEST = ("match", "edges", "mixed")  # the kernels that came last: a library without them is of an earlier version
ISAS = ("avx2", "avxvnni", "avx512", "avx512bf16")  # bits 0 to 3 of `rt_isas`
PREFERRED = {
    "fp32": ("avx512", "avxvnni", "avx2"),
    "bf16": ("avx512bf16",),
    "int16": ("avx512", "avxvnni", "avx2"),
    "int8": ("avx512bf16", "avxvnni", "avx512", "avx2"),  # the last two have no byte products and use int16
}

LANES = 16  # numbers that a kernel processes at once
WIDEST = 2048  # channels of a row at most: the kernels keep it on the stack
BYTES = ("avxvnni", "avx512bf16")  # instruction sets that multiply bytes


@cache
def library() -> ctypes.CDLL:
    """The loaded extension module. Raises `EngineError` if it was not built, or cannot be loaded."""
    folder = Path(__file__).parent
    path = next((p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_kernels{suffix}").is_file()), None)
    if path is None:
        raise EngineError(
            "the CPU kernels were not built when rtseg was installed: install a C++ compiler (Debian: g++) and rtseg "
            'again, or take runtime = "onnx"'
        )
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as e:
        raise EngineError(f'{path}: cannot be loaded ({e}); install rtseg again, or take runtime = "onnx"') from e
    if not all(hasattr(loaded, f"rt_{ISAS[0]}_{name}") for name in NEWEST):
        raise EngineError(f'{path}: older than this rtseg; install rtseg again, or take runtime = "onnx"')
    return loaded


def available_isas() -> list[str]:
    """The instruction sets that the kernels may use here, lowest first. Raises `EngineError` if there are none."""
    found, limit = _of_this_cpu(), os.environ.get("RTSEG_ISA")
    if not limit:
        return found
    if limit not in ISAS:
        raise EngineError(f"RTSEG_ISA={limit}: no such instruction set; {did_you_mean(limit, ISAS)}")
    if limit not in found:
        raise EngineError(f"RTSEG_ISA={limit}: this CPU has {', '.join(found)}; set one of these, or unset RTSEG_ISA")
    return [isa for isa in found if ISAS.index(isa) <= ISAS.index(limit)]


def _of_this_cpu() -> list[str]:
    has = library().rt_isas()
    found = [isa for bit, isa in enumerate(ISAS) if has >> bit & 1]
    if not found:
        raise EngineError('the CPU kernels want AVX2 and FMA, which this CPU lacks; take runtime = "onnx"')
    return found


def isa_for(precision: str) -> str:
    """The instruction set that the kernels use for a precision. Raises `EngineError` if this CPU has none for it."""
    here = available_isas()
    found = next((isa for isa in PREFERRED[precision] if isa in here), None)
    if found is None:
        others = ", ".join(p for p, isas in PREFERRED.items() if set(isas) & set(here))
        wanted = " or ".join(PREFERRED[precision])
        raise EngineError(f"{precision} wants {wanted}; the CPU kernels have {', '.join(here)} here: take {others}")
    return found


def why_not() -> str | None:
    """Why the kernels cannot run here, or None. Raises `EngineError` for a mistake in `RTSEG_ISA`."""
    try:
        _of_this_cpu()
    except EngineError as e:
        return str(e)
    available_isas()
    return None


def lacks(preset: Preset) -> str | None:
    """Why the kernels cannot run a network here, or None."""
    return why_not() or unfit(preset)


def unfit(p: Preset) -> str | None:
    """Why the kernels cannot run a network of these sizes, or None."""
    sizes = {  # of the trunk only Hiera's: the channels of convolutions are filled up
        "embed_dim": p.embed_dim, "memory_dim": p.memory_dim, "dim / 8": p.dim // 8, "attention_ffn": p.attention_ffn,
        "decoder_ffn": p.decoder_ffn, "dim / 2 / decoder_heads": p.dim // 2 // p.decoder_heads,
        "match_dim": p.match_dim,
    }  # fmt: skip
    odd = next((f"{name} = {size}" for name, size in sizes.items() if size % LANES), None)
    if odd is None and max(p.stage_dims) <= WIDEST and p.dim <= WIDEST:
        return None
    return f"{p.name}: the CPU kernels want sizes that are multiples of {LANES}, and up to {WIDEST}; {odd or 'wider'}"
