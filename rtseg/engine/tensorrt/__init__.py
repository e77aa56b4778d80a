"""The `tensorrt` runtime: each verb an ONNX graph, compiled to a strongly typed plan.

engine.py     the engine, and how it is made and opened
onnx.py       the graphs; operators.py: what TensorRT's parser documents; quantize.py: int8 and fp8
plans.py      everything that calls TensorRT; buffers.py: what plans read and write; picture.py: the first of it
gpu.py        stream, capture, memory
"""

from .engine import make, open

__all__ = ["make", "open"]
