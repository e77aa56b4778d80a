"""The `cuda` runtime: the whole tracked step as one captured CUDA graph.

engine.py     the engine, its graphs, and how it is opened
buffers.py    what goes into a graph, at fixed addresses; graph.py: capture and replay
attention.py  which attention kernel is fastest here; resize.py: `to_input` on the device; fuse.py: the encoder compiled
frame_kernels.py, frame.cu    fused kernels for frames, for pycuda: resize and normalise, NV12, overlay
"""

from .engine import CudaEngine, open

__all__ = ["CudaEngine", "open"]
