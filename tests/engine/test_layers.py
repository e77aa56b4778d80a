"""The way of a recipe to an engine goes down: imports within rtseg/engine, and the calls that open an engine."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rtseg.engine import open_engine

ENGINE = Path(__file__).parents[2] / "rtseg" / "engine"
# From the top down. Each may import what stands below it, and modules of its own folder.
LAYERS: tuple[set[str], ...] = (
    {"__init__"},
    {"opening"},
    {"adapted"},
    {"artifact"},
    {"refusal"},
    {"identity", "memory_estimate"},
    {"runtimes", "sources", "attention_shapes", "buffer_sizes"},
    {"tensorrt"},
    {"cpu", "cuda", "onnx"},
    {"static", "weights"},
    {"reference"},
    {"picture"},
    {"base", "gpu", "threads", "reach"},
    {"recipe"},
    {"catalogue"},
    {"policy"},
    {"saved_arrays"},
    {"arrays"},
)
LAYER = {name: place for place, names in enumerate(LAYERS) for name in names}


def imported(path: Path, source: str) -> Iterator[str]:
    """The modules and folders of rtseg/engine that a module imports, also inside functions."""
    inside = path.relative_to(ENGINE).parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == len(inside):
            yield from [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]


def climbing(path: Path, source: str) -> list[str]:
    own = path.relative_to(ENGINE).parts[0].removesuffix(".py")
    found = [name for name in imported(path, source) if name != own]
    return [name for name in found if LAYER[name] <= LAYER[own]]


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: str(path.relative_to(ENGINE)))
def test_imports_go_down(path: Path) -> None:
    assert climbing(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cuda/steps.py", "from ..runtimes import settle"),
        ("onnx/export.py", "def f():\n    from ..tensorrt.onnx import graph"),
        ("picture/upload.py", "from .. import reference"),
        ("recipe.py", "from .opening import open_engine"),
    ],
)
def test_an_import_that_climbs_is_seen(name: str, source: str) -> None:
    assert len(climbing(ENGINE / name, source)) == 1


def climbs(recipe: dict[str, Any]) -> set[tuple[str, str]]:
    """Calls, while an engine opens, from a module back to one of a higher layer."""
    stack: list[tuple[str, FrameType]] = []
    found = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ENGINE) and frame.f_code.co_name != "<module>":
            name = path.relative_to(ENGINE).parts[0].removesuffix(".py")
            if stack and LAYER[name] < LAYER[stack[-1][0]]:
                found.add((stack[-1][0], name))
            stack.append((name, frame))
        elif event == "return" and stack and stack[-1][1] is frame:
            stack.pop()

    sys.setprofile(watch)
    try:
        open_engine(**recipe)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("runtime", ["auto", "cpu", "torch", "onnx"])
def test_no_call_climbs_while_an_engine_opens(runtime: str) -> None:
    size = 224 if runtime == "onnx" else 64  # at which its graphs come with the package
    assert climbs({"runtime": runtime, "model": "micro", "weights": "package:micro", "image_size": size}) == set()
