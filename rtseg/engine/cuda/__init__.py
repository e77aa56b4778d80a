"""The `cuda` runtime: the whole tracked step as one captured CUDA graph.

engine.py     the engine, and how it is opened; device.py: whether and when it may work on its GPU
plan.py       what is prepared for, and the bytes that it takes
steps.py      which steps are captured, and when; graph.py: capture and replay
pool.py       where memories lie; reads.py: how attention reads them; buffers.py: what comes up with a frame
attention.py  which attention kernel is fastest here; resize.py: `to_input` on the device
fuse.py       how a part is compiled, and proved; parts.py: the parts of a step
frame_kernels.py, frame.cu    fused kernels for frames: NV12, resize and normalise, overlay; launch.py: how they run
picture.py, on_gpu.py    pictures that stay on the GPU from the decoder to the drawn overlay
"""

from .engine import CudaEngine, open

__all__ = ["CudaEngine", "open"]
