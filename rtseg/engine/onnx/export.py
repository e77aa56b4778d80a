"""Exports a network as graphs, simplifies them and writes them as one folder, in a second or two. Needs torch and onnx.

`python -m rtseg.engine.onnx.export` writes the graphs that the package ships.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...base.files import file_sha256
from ...sam2 import Sam2, get_preset, load_weights
from ..recipe import SHIPPED
from .folder import WEIGHTS, Identity, shipped_folder, write_sidecar
from .ports import verbs

SMALL = 64  # numbers; a smaller constant stays in its graph
ALIGNED = 64  # bytes
SHIPPED_SIZES = {"nano": 320, "micro": 224}

Progress = Callable[[int, int], None]


def make_graphs(network: Sam2, folder: Path, progress: Progress = lambda done, of: None) -> None:
    """Write the graphs of a network into an existing folder. `ImportError` if a package is missing."""
    import onnx  # noqa: F401  # without it the exporter would raise a longer error

    from .graphs import Exporter

    exporter, store = Exporter(network), _Store()
    names = list(verbs(network.preset))
    for done, name in enumerate(names, 1):
        model = _simplified(exporter.graph(name))
        store.take(model)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        progress(done, len(names))
    (folder / WEIGHTS).write_bytes(bytes(store.data))


def _simplified(graph: bytes) -> Any:
    """The graph with its constants computed, and without paths or names of the machine that made it."""
    import tempfile

    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "graph.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
    model.producer_name, model.producer_version = "rtseg", ""
    for holder in (model, model.graph, *model.graph.node, *model.graph.initializer):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
    del model.graph.value_info[:]
    return model


class _Store:
    """The constants of all graphs, each once; in fp16 where that is exact, as in the weights file."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, int] = {}

    def take(self, model: Any) -> None:
        """Move the constants of a graph into this store."""
        import onnx

        widened = []
        for constant in model.graph.initializer:
            array = onnx.numpy_helper.to_array(constant)
            if array.size < SMALL:
                continue
            name, whole = constant.name, constant.data_type == onnx.TensorProto.FLOAT
            if whole and _fits_half(array):
                constant.name, constant.data_type, array = f"{name}.half", onnx.TensorProto.FLOAT16, array.astype("<f2")
                widened.append(onnx.helper.make_node("Cast", [constant.name], [name], to=onnx.TensorProto.FLOAT))
            self._refer(constant, array)
        nodes = [*widened, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    def _refer(self, constant: Any, array: np.ndarray[Any, Any]) -> None:
        import onnx

        raw = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(raw).digest()
        if key not in self._places:
            self.data.extend(bytes(-len(self.data) % ALIGNED))
            self._places[key] = len(self.data)
            self.data.extend(raw)
        for field in ("raw_data", "float_data", "int32_data", "int64_data"):
            constant.ClearField(field)
        constant.data_location = onnx.TensorProto.EXTERNAL
        for key_, value in (("location", WEIGHTS), ("offset", self._places[key]), ("length", len(raw))):
            constant.external_data.add(key=key_, value=str(value))


def _fits_half(array: np.ndarray[Any, Any]) -> bool:
    with np.errstate(over="ignore"):
        return bool((array.astype(np.float16).astype(np.float32) == array).all())


def make_shipped(name: str, folder: Path) -> None:
    """The graphs of a shipped network in this folder."""
    weights, size = SHIPPED / f"{name}.safetensors", SHIPPED_SIZES[name]
    network = Sam2(get_preset(name), size)
    load_weights(network, weights)
    folder.mkdir(parents=True, exist_ok=True)
    make_graphs(network, folder)
    write_sidecar(folder, Identity.for_network(network.preset, size, file_sha256(weights)))


if __name__ == "__main__":
    for name, size in SHIPPED_SIZES.items():
        make_shipped(name, shipped_folder(name, size))
        print(shipped_folder(name, size))
