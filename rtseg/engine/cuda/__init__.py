"""The `cuda` runtime: the whole tracked step as one captured CUDA graph.

engine.py       the engine, and how it is opened; device.py: checks the GPU, and lets threads take turns on it
step_shapes.py  the numbers of objects and memories that steps are captured for
steps.py        captures steps and keeps them, by size of picture
buffers.py      what is uploaded with each frame; memory_read.py: how attention reads the pool of memories
attention.py    chooses the fastest attention kernel on this GPU
parts.py        the parts of a step; fuse.py: compiles them, and compares them with the plain ones
"""

from .engine import CudaEngine, open

__all__ = ["CudaEngine", "open"]
