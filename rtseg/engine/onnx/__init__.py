"""The `onnx` runtime: the network as ONNX graphs in ONNX Runtime. Installed graphs need no compiler and no torch.

`runtime = "onnx"` runs on the CPU; "onnx:cuda", "onnx:openvino", ... on another execution provider of ONNX Runtime.
"""

from .opening import make, open

__all__ = ["make", "open"]
