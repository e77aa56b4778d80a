"""The `cpu` runtime: the tracked frame in torch with fixed shapes, or, once built, on compiled kernels.

engine.py     the engine, and how it is made and opened
network.py    encoder and memory attention on the kernels; mask.py: decoder and memory encoder
kernels.py    the kernels from Python; avx512/: their source
"""

from .engine import CpuEngine, KernelVerbs, TorchVerbs, make, open, remembered

__all__ = ["CpuEngine", "KernelVerbs", "TorchVerbs", "make", "open", "remembered"]
