"""The `tensorrt` runtime: each verb an ONNX graph, compiled to a strongly typed plan.

making.py     `make` and `open`; engine.py: the engine that they give
onnx.py       the graphs; operators.py: what TensorRT's parser documents; quantize.py: int8 and fp8
attention.py  attention as TensorRT fuses it; places.py: where it is, and the memory it takes where it is not fused
plans.py      what calls TensorRT, with library.py; buffers.py: what plans read and write; picture.py: the first of it
gpu.py        stream, capture, memory
"""

from .making import make, open

__all__ = ["make", "open"]
