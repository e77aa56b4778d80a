"""`rtseg doctor`: what of rtseg works on this machine, as findings of one line each, with their remedies."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from statistics import median

import numpy as np

from ... import __version__
from ...base.defaults import MASK_BUDGET_MS
from ...base.errors import RtsegError
from ...base.files import file_sha256
from ...base.hardware.cpu import cores, cpu_cores, cpu_flags
from ...base.types import now_ns
from ...engine.reach import nearest, needed_ms
from ...engine.recipe import SHIPPED, Recipe
from .finding import Finding, first_line, has, package, torch_problem
from .gpu import gpu_problem
from .memory import shipped
from .runtimes import each_runtime, nvdec

__all__ = ["Finding", "examine", "versions"]

FPS = 25.0  # frames per second of the feed that the doctor assumes
STEPS = 12  # steps of each network; by the sixth its bank is full


def examine() -> list[Finding]:
    """Examine everything. Whatever is missing becomes a finding; nothing raises."""
    auto, live = _live()
    return [
        _python(),
        _torch(),
        _cpu(),
        _cores(),
        _gpu(),
        *each_runtime(),
        auto,
        package("av", "reading and writing video", needed=True),
        nvdec(),
        package("zmq", "publishing", needed=True, project="pyzmq"),
        package("matplotlib", "the plots of rtseg bench", extra="bench"),
        _untried(),
        _weights(),
        *shipped(),
        live,
    ]


def versions() -> dict[str, str]:
    """The versions that a result depends on; "unknown" for what is not installed as a package."""
    found = {"rtseg": __version__, "python": platform.python_version()}
    for project in ("torch", "onnxruntime", "numpy", "opencv-python-headless", "av"):
        try:
            found[project] = importlib.metadata.version(project)
        except importlib.metadata.PackageNotFoundError:
            found[project] = "unknown"
    return found


def _python() -> Finding:
    version = platform.python_version()
    return Finding("python", sys.version_info >= (3, 11), f"{version} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    if not has("torch"):
        text = "not installed; runtime onnx works without; the others, build and train need it"
        return Finding("torch", None if has("onnxruntime") else False, text, "pip install 'rtseg[torch]'")
    why, remedy = torch_problem()
    if why:
        return Finding("torch", False, why.removeprefix("torch "), remedy)
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", True, f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


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
    why, remedy = gpu_problem()
    if why:
        return Finding("gpu", None, why, remedy)
    import torch

    cards = []
    for i in range(torch.cuda.device_count()):
        capability = ".".join(map(str, torch.cuda.get_device_capability(i)))
        free, total = torch.cuda.mem_get_info(i)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        cards.append(f"cuda:{i} {torch.cuda.get_device_name(i)}, compute capability {capability}, {memory}")
    return Finding("gpu", True, "; ".join(cards))


def _untried() -> Finding:
    text = "runtimes cuda and tensorrt, and the CUDA frame kernels, have not run on a GPU yet: they are tested on CPUs"
    return Finding("untried", None, text, "on a GPU: rtseg build RECIPE checks them there")


def _weights() -> Finding:
    files = sorted(SHIPPED.glob("*.safetensors"))
    if not files:
        return Finding("weights", False, f"none in {SHIPPED}", "install rtseg again: a release ships them")
    return Finding("weights", True, "; ".join(f"{file.stem} sha256 {file_sha256(file)[:12]}" for file in files))


def _live() -> tuple[Finding, Finding]:
    """Which engine the default recipe opens, and whether the shipped networks keep a feed's masks within the budget.

    A few steps of each network are timed.
    """
    allowed_ms = needed_ms(MASK_BUDGET_MS, FPS)
    speeds, opened, is_fast_enough = [], "", False
    try:
        for recipe in (Recipe(), Recipe("micro", "package:micro", 224)):
            step_ms, description = _step_ms(recipe)
            opened = opened or description
            best = nearest(recipe, step_ms, allowed_ms)
            is_fast_enough |= step_ms <= allowed_ms
            hint = "" if step_ms <= allowed_ms else f" ({best.setting}: about {best.step_ms:.0f})"
            speeds.append(f"{recipe.model} {step_ms:.0f} ms{hint}")
    except Exception as e:
        why = first_line(e) if isinstance(e, RtsegError) else f"{type(e).__name__}: {first_line(e)}"
        auto = Finding("runtime auto", True, f"opens nano as {opened}") if opened else _unopened(why)
        return auto, Finding("live", None, f"not tried: {why}")
    text = (
        f"a step may take {allowed_ms:.0f} ms for masks of {MASK_BUDGET_MS:.0f} ms at {FPS:g} fps: {', '.join(speeds)}"
    )
    remedy = "set least_image_size in the stream profile, or run: rtseg build RECIPE"
    auto = Finding("runtime auto", True, f"opens nano as {opened}")
    return auto, Finding("live", True if is_fast_enough else None, text, "" if is_fast_enough else remedy)


def _unopened(why: str) -> Finding:
    return Finding("runtime auto", False, f"opens nothing: {why}", "see the runtimes above")


def _step_ms(recipe: Recipe) -> tuple[float, str]:
    """The median ms of a step with one object and a full bank, with a feed's threads; and the engine's description."""
    from ...engine import open_engine
    from ...engine.threads import at_most
    from ...track import Tracker

    with at_most(cores().network_threads):
        engine = open_engine(recipe)
        tracker = Tracker(engine)
        image_hwc = np.random.default_rng(0).integers(0, 256, (recipe.image_size, recipe.image_size, 3), np.uint8)
        tracker.prompt(1, points=[(recipe.image_size / 2, recipe.image_size / 2, 1)])
        times = []
        for _ in range(STEPS):
            start_ns = now_ns()
            tracker.step(image_hwc)
            times.append((now_ns() - start_ns) / 1e6)
    return median(times[STEPS // 2 :]), engine.description
