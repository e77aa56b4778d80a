"""`rtseg doctor`: what this machine has for the work, one finding a line, each with what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass
from statistics import median

import numpy as np

from . import __version__
from .config import MASK_BUDGET_MS, SHIPPED, Recipe, cpu_cores, cpu_flags, file_sha256
from .cores import cores
from .errors import RtsegError
from .reach import nearest, needed_ms
from .types import now_ns

FPS = 25.0  # of the feed that the doctor thinks of
STEPS = 12  # of each network: by the sixth its memories are full


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok` is None where a thing is missing that nobody needs; `remedy` says how to have it."""

    name: str
    ok: bool | None
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything; never raises for a thing that is missing."""
    return [
        _python(),
        _torch(),
        _onnx(),
        _cpu(),
        _cores(),
        _gpu(),
        _auto(),
        _kernels(),
        _package("av", "reading and writing video", needed=True),
        _package("zmq", "publishing", needed=True, project="pyzmq"),
        _package("tensorrt", "runtime tensorrt", extra="tensorrt"),
        _package("onnx", "making ONNX graphs", extra="torch"),
        _package("onnxscript", "exporting to ONNX", extra="tensorrt"),
        _package("pycuda", "the CUDA frame kernels", extra="tensorrt"),
        _package("matplotlib", "the plots of rtseg bench", extra="bench"),
        _untried(),
        _weights(),
        _live(),
    ]


def versions() -> dict[str, str]:
    """The versions that a result depends on; "unknown" for what is not installed as a package."""
    found = {"rtseg": __version__, "python": platform.python_version()}
    for project in ("torch", "onnxruntime", "numpy", "opencv-python", "av"):
        try:
            found[project] = importlib.metadata.version(project)
        except importlib.metadata.PackageNotFoundError:
            found[project] = "unknown"
    return found


def _python() -> Finding:
    version = platform.python_version()
    return Finding("python", sys.version_info >= (3, 11), f"{version} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    if not _has("torch"):
        text = "not installed; runtime onnx works without; the others, build and train need it"
        return Finding("torch", None if _has("onnxruntime") else False, text, "pip install 'rtseg[torch]'")
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", True, f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _onnx() -> Finding:
    if not _has("onnxruntime"):
        return _package("onnxruntime", "runtime onnx", needed=not _has("torch"))
    from .engine.onnx.session import installed

    return Finding("onnxruntime", True, f"{_version('onnxruntime', '')}, for runtime onnx on: {', '.join(installed())}")


def _cpu() -> Finding:
    flags = cpu_flags()
    auto = "bf16" if any("bf16" in flag for flag in flags) else "fp32"
    return Finding(
        "cpu", True, f'{cpu_cores()} cores; {", ".join(flags) or "unknown"}; precision "auto" is {auto} on it'
    )


def _cores() -> Finding:
    found = cores()
    threads = found.network_threads
    return Finding("cores", True, f"{found}; a feed's network gets {threads} thread{'s' * (threads > 1)}")


def _gpu() -> Finding:
    if not _has("torch"):
        return Finding("gpu", None, "unknown without torch")
    import torch

    if torch.cuda.is_available():
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        return Finding("gpu", True, f"{torch.cuda.get_device_name()}, compute capability {capability}")
    remedy = "check the driver: nvidia-smi" if torch.version.cuda else "for a GPU: a CUDA build of torch"
    return Finding("gpu", None, "torch sees no CUDA device", remedy)


def _auto() -> Finding:
    from .config import Recipe
    from .engine.runtimes import settle

    settled = settle(Recipe(runtime="auto"))
    text = f"{settled.runtime}, {settled.precision}"
    if settled.runtime == "tensorrt":
        text += ", once it is built (rtseg build RECIPE); until then cuda"
    return Finding("runtime auto", True, text)


def _kernels() -> Finding:
    """What makes the `cpu` runtime fast."""
    if not _has("torch"):
        return Finding("cpu kernels", None, "no use without torch", "pip install 'rtseg[torch]'")
    from .engine.cpu.isa import available_isas, why_not

    if why := why_not():
        return Finding("cpu kernels", None, why)
    return Finding("cpu kernels", True, f"{', '.join(available_isas())}, for runtime cpu")


def _untried() -> Finding:
    text = (
        "runtimes cuda and tensorrt, and the CUDA frame kernels, have run on no GPU yet: their parts are proved on CPUs"
    )
    return Finding("untried", None, text, "on a GPU: rtseg build RECIPE proves them there")


def _package(name: str, use: str, needed: bool = False, project: str = "", extra: str = "") -> Finding:
    if _has(name):
        return Finding(name, True, f"{_version(name, project)}, for {use}")
    remedy = f"pip install 'rtseg[{extra}]'" if extra else f"pip install {project or name}"
    return Finding(name, False if needed else None, f"not installed; it is for {use}", remedy)


def _version(name: str, project: str) -> str:
    """The package index's word, else the module's: TensorRT's wheels may be there as `tensorrt_cu13` alone."""
    try:
        return importlib.metadata.version(project or name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, AttributeError):
        return "of unknown version"


def _weights() -> Finding:
    files = sorted(SHIPPED.glob("*.safetensors"))
    if not files:
        return Finding("weights", False, f"none in {SHIPPED}", "install rtseg again: a release ships them")
    return Finding("weights", True, "; ".join(f"{file.stem} sha256 {file_sha256(file)[:12]}" for file in files))


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _live() -> Finding:
    """Whether the shipped networks hold the masks of a feed within their budget here: by a few steps of each."""
    allowed_ms = needed_ms(MASK_BUDGET_MS, FPS)
    said, holds = [], False
    try:
        for recipe in (Recipe(), Recipe("micro", "package:micro", 224)):
            step_ms = _step_ms(recipe)
            best = nearest(recipe, step_ms, allowed_ms)
            holds |= step_ms <= allowed_ms
            hint = "" if step_ms <= allowed_ms else f" ({best.setting}: about {best.step_ms:.0f})"
            said.append(f"{recipe.model} {step_ms:.0f} ms{hint}")
    except (RtsegError, ImportError, OSError) as e:
        return Finding("live", None, f"not tried: {e}")
    text = f"a step may take {allowed_ms:.0f} ms for masks of {MASK_BUDGET_MS:.0f} ms at {FPS:g} fps: {', '.join(said)}"
    remedy = "set least_image_size in the stream profile, or run: rtseg build RECIPE"
    return Finding("live", True if holds else None, text, "" if holds else remedy)


def _step_ms(recipe: Recipe) -> float:
    """A step of one object, as a feed's network takes it, with its memories filled."""
    from .engine import open_engine
    from .engine.threads import at_most
    from .track import Tracker

    with at_most(cores().network_threads):
        tracker = Tracker(open_engine(recipe))
        image_hwc = np.random.default_rng(0).integers(0, 256, (recipe.image_size, recipe.image_size, 3), np.uint8)
        tracker.prompt(1, points=[(recipe.image_size / 2, recipe.image_size / 2, 1)])
        took = []
        for _ in range(STEPS):
            start_ns = now_ns()
            tracker.step(image_hwc)
            took.append((now_ns() - start_ns) / 1e6)
    return median(took[STEPS // 2 :])
