"""The `tensorrt` runtime: each verb is an ONNX graph, compiled to a strongly typed plan.

making.py     `make` compiles a recipe's plans, `open` opens an engine on them; engine.py: the engine
onnx.py       the graphs; operators.py: what TensorRT's parser documents; quantize.py: int8 and fp8
attention.py  attention in a form that TensorRT fuses
plans.py      with library.py, all calls of TensorRT; buffers.py: the inputs and outputs of plans
gpu.py        stream, capture, memory
"""

from .making import make, open

__all__ = ["make", "open"]
