"""The `cpu` runtime: the tracked step on compiled kernels, or in torch if there are none.

engine.py     the engine, and how it is made and opened
network.py    encoder and memory attention on the kernels; mask.py: decoder and memory encoder
kernels.py    the kernels from Python, binding.py: their C interface, simd/: their source
isa.py        instruction sets, and which networks the kernels run; it needs no torch
Everything but isa.py is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import CpuEngine, KernelVerbs, TorchVerbs, open, remembered

__all__ = ["CpuEngine", "KernelVerbs", "TorchVerbs", "open", "remembered"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rtseg.engine.cpu' has no attribute {name!r}")
    from . import engine

    return getattr(engine, name)
