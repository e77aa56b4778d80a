"""The `onnx` runtime: the network as ONNX graphs in ONNX Runtime. No compiler and no torch where the graphs are there.

`runtime = "onnx"` runs on the CPU; "onnx:cuda", "onnx:openvino", ... on another execution provider of ONNX Runtime.
"""

from .opening import make, open

__all__ = ["make", "open"]
