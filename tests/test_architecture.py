"""The rule of the house, held by reading the imports: arrows point downward, and each vendor library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a room may import those that it names, and `base`; nothing below imports what is above.
MAY: dict[str, set[str]] = {
    "base": set(),
    "sam2": set(),
    "synthetic": set(),
    "grab": {"synthetic"},
    "publish": set(),
    "engine": {"sam2"},
    "track": {"engine"},
    "build": {"sam2", "engine", "track", "grab"},
    "data": {"grab", "synthetic", "publish"},
    "offline": {"grab", "engine", "track", "publish", "build"},
    "live": {"grab", "synthetic", "engine", "track", "publish"},
    "evaluate": {"data", "engine", "track", "grab", "synthetic", "publish", "build", "live"},
    "adapt": {"data", "sam2", "engine", "grab", "synthetic", "evaluate"},
    "cli": {"live", "offline", "publish", "adapt", "evaluate", "build", "engine"},
    "__main__": {"cli"},
    "__init__": {"grab", "engine", "track", "publish"},
}

# Who may import a vendor library: rooms, folders or files of the package.
HOMES: dict[str, set[str]] = {
    "torch": {"sam2", "engine", "adapt", "build", "evaluate/speed", "base/hardware", "synthetic"},
    "tensorrt": {"engine/tensorrt"},
    "pycuda": {"engine/picture"},
    "onnxruntime": {"engine", "build/doctor"},
    "openvino": {"engine/onnx"},
    "av": {"grab", "synthetic", "publish"},
    "zmq": {"publish", "live"},
    "msgpack": {"publish", "live"},
    "pycocotools": {"base/rle", "publish/coco"},
    "msgspec": {"base", "live", "sam2", "engine", "adapt"},
    "psutil": {"base/hardware", "live"},
    "rich": {"base/terminal", "adapt", "evaluate", "live/watch"},
    "prometheus_client": {"live/watch"},
    "matplotlib": {"evaluate"},
    "nibabel": {"data"},
    "scipy": {"evaluate", "data"},
    "monai": set(),
    "transformers": set(),
}


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that a module of `package` imports, relative ones made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*start, *(node.module or "").split("."))).strip(".")
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def is_in(name: str, home: str) -> bool:
    """Whether a file lies in a room or a folder, or is the file."""
    return f"{name.removesuffix('.py')}/".startswith(f"rtseg/{home}/")


def offences(name: str, source: str) -> list[str]:
    """What a file (named from the repository's root) imports against the rule."""
    parts = Path(name).with_suffix("").parts
    room = parts[1]
    found = []
    for imported in imports(source, parts[:-1]):
        top, *rest = imported.split(".")
        if top == "rtseg" and rest and rest[0] not in {room, "__version__", "base", *MAY[room]}:
            found.append(f"{name} imports {imported}")
        if top in HOMES and not any(is_in(name, home) for home in HOMES[top]):
            found.append(f"{name} imports {top}")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("rtseg/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_the_rule(path: Path) -> None:
    assert offences(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rtseg/sam2/x.py", "from ..track import Tracker"),
        ("rtseg/sam2/x.py", "from .. import engine"),
        ("rtseg/grab/x.py", "import rtseg.publish.wire"),
        ("rtseg/publish/x.py", "def f():\n    from ..grab.file import FileSource"),
        ("rtseg/engine/x.py", "from rtseg.track import Tracker"),
        ("rtseg/base/types.py", "from ..engine.recipe import Recipe"),
        ("rtseg/live/publish.py", "import torch"),
        ("rtseg/publish/publisher.py", "from ..live.control import Client"),
        ("rtseg/publish/keys/gate.py", "from ...live.control import Client"),
        ("rtseg/build/parity.py", "from ..live.control import Client"),
        ("rtseg/grab/x.py", "import msgpack"),
        ("rtseg/track/tracker.py", "import av.filter"),
        ("rtseg/track/x.py", "from torch import Tensor"),
        ("rtseg/grab/file.py", "from zmq import Context"),
        ("rtseg/sam2/x.py", "from tensorrt import Builder"),
    ],
)
def test_an_offence_is_seen(name: str, source: str) -> None:
    assert len(offences(name, source)) == 1


def test_what_is_allowed_is_no_offence() -> None:
    assert offences("rtseg/track/bank.py", "import numpy\nfrom ..engine import Engine\nfrom .policy import efp") == []
    assert offences("rtseg/live/feed.py", "from ..grab import open_source\nfrom . import control") == []


def test_nothing_packaged_imports_tests_or_bench() -> None:
    for path in ROOT.glob("rtseg/**/*.py"):
        tops = {name.split(".")[0] for name in imports(path.read_text(), path.relative_to(ROOT).parts[:-1])}
        assert not tops & {"tests", "bench"}, path
