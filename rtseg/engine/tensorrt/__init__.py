"""The `tensorrt` runtime: each verb an ONNX graph, compiled to a strongly typed plan.

making.py     `make` compiles a recipe's plans, `open` makes an engine of them; engine.py: the engine
onnx.py       the graphs; operators.py: what TensorRT's parser documents; quantize.py: int8 and fp8
attention.py  attention in a form that TensorRT fuses
plans.py      all calls of TensorRT, with library.py; buffers.py: what plans read and write
gpu.py        stream, capture, memory
"""

from .making import make, open

__all__ = ["make", "open"]
