"""The `cpu` runtime: the tracked frame on compiled kernels, or in torch where there are none.

engine.py     the engine, and how it is made and opened
network.py    encoder and memory attention on the kernels; mask.py: decoder and memory encoder
kernels.py    the kernels from Python; simd/: their source; isa.py: instruction sets
"""

from .engine import CpuEngine, KernelVerbs, TorchVerbs, lacks, open, remembered

__all__ = ["CpuEngine", "KernelVerbs", "TorchVerbs", "lacks", "open", "remembered"]
