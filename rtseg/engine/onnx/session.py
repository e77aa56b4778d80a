"""ONNX Runtime: its execution providers by our names, and a session for one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...base.errors import EngineError

# Our names, ONNX Runtime's, and the package that brings each.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime, on macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml, on Windows"),
}


def provider_of(runtime: str) -> str:
    """The provider that a runtime asks for: "onnx" is "cpu", "onnx:openvino" is "openvino"."""
    return runtime.partition(":")[2] or "cpu"


def installed() -> list[str]:
    """Providers that the installed ONNX Runtime has, by our names. `EngineError` where there is none."""
    available = _onnxruntime().get_available_providers()
    return [name for name, (theirs, _) in PROVIDERS.items() if theirs in available]


def version() -> str:
    return str(_onnxruntime().__version__)


def need(provider: str) -> None:
    """`EngineError` where a provider is not installed."""
    if provider not in (found := installed()):
        raise EngineError(
            f'runtime = "onnx:{provider}": ONNX Runtime {version()} here has {", ".join(found)}; '
            f"{provider} comes with: pip install {PROVIDERS[provider][1]}"
        )


class Graph:
    """One graph, opened: named arrays in, arrays out."""

    def __init__(self, path: Path, provider: str, threads: int, device: int | None = None) -> None:
        """`device`: the number of the GPU, for a provider that works on one (None: the first)."""
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # A thread that waits for work by spinning takes the core from whoever shares it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted: list[Any] = [PROVIDERS[name][0] for name in dict.fromkeys((provider, "cpu"))]
        if device is not None:
            wanted[0] = (wanted[0], {"device_id": device})
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted)
        except Exception as e:  # ONNX Runtime has an exception for every status, and no common one
            raise EngineError(f"{path}: ONNX Runtime cannot open it: {_first_line(e)}") from e
        if PROVIDERS[provider][0] not in self._session.get_providers():
            raise EngineError(
                f"{provider}: ONNX Runtime {version()} has it, and cannot start it here (a driver is missing?); "
                'runtime = "onnx" runs on the CPU'
            )

        self._inputs = {port.name for port in self._session.get_inputs()}

    def __call__(self, **inputs: Any) -> list[Any]:
        """Its answers in order. Of the inputs it takes those that it has: SAM 2.0's pointers have no age, say."""
        try:
            found: list[Any] = self._session.run(None, {k: v for k, v in inputs.items() if k in self._inputs})
        except Exception as e:
            raise EngineError(f"ONNX Runtime failed: {_first_line(e)}") from e
        return found


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError('runtime = "onnx" needs ONNX Runtime: pip install onnxruntime') from e
    return onnxruntime


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
