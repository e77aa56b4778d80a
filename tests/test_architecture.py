"""The rule of the house, held by reading the imports: arrows point downward, and each vendor library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"types", "errors", "tables", "documents", "door", "forks", "prompts", "config", "timing", "cores"}
VALUES = {"types", "errors", "tables", "documents", "door", "forks", "config", "cores"}

# What a room may import of rtseg, beside itself.
MAY: dict[str, set[str]] = {
    "errors": set(),
    "descriptors": set(),
    "cores": set(),
    "tables": {"errors"},
    "documents": {"errors", "tables"},
    "door": {"errors", "tables"},
    "bind": set(),
    "forks": {"errors"},
    "edges": set(),
    "types": {"errors", "tables", "door", "edges"},
    "timing": {"types"},
    "masks": {"errors", "door", "types"},
    "prompts": {"errors", "tables", "documents", "door", "types", "masks"},
    "config": {"errors", "tables", "documents", "door", "types", "prompts", "bind"},
    "grab": VALUES,
    "keys": {"errors", "bind"},
    "publish": VALUES | {"keys"},
    "control": BASE | {"keys", "publish"},
    "metrics": VALUES | {"timing"},
    "sam2": VALUES,
    "engine": VALUES | {"sam2"},
    "track": VALUES | {"engine"},
    "machine": VALUES,
    "reach": VALUES,
    "evaluate": BASE | {"engine", "track", "grab", "publish", "doctor", "machine", "report"},
    "adapt": BASE | {"sam2", "engine", "grab", "publish", "evaluate"},
    "doctor": VALUES | {"sam2", "engine", "track", "reach"},
    "report": {"errors"},
    "overlap": set(),
    "ending": set(),
    "offline": BASE | {"ending", "report", "overlap", "grab", "engine", "track", "publish", "doctor"},
    "live": BASE
    | {"descriptors", "ending", "grab", "engine", "track", "publish", "control", "keys", "metrics", "reach"},
    "benchmark": BASE | {"grab", "engine", "track", "publish", "doctor", "live", "machine"},
    "clips": BASE | {"grab"},
    "probe": VALUES | {"engine"},
    "gate": VALUES | {"clips", "probe", "engine", "track"},
    "build": BASE | {"sam2", "engine", "track", "clips", "gate", "fastest"},
    "fastest": BASE | {"engine", "track", "clips"},
    "demo": BASE | {"live", "grab", "publish"},
    "cli": BASE
    | {
        "descriptors",
        "demo",
        "live",
        "offline",
        "publish",
        "adapt",
        "evaluate",
        "doctor",
        "report",
        "build",
        "benchmark",
    }
    | {"control", "keys", "metrics"},
    "__main__": {"cli"},
    "__init__": BASE | {"grab", "engine", "track", "publish"},
}

# Who may import a vendor library.
HOMES: dict[str, set[str]] = {
    "torch": {"grab", "sam2", "engine", "adapt", "doctor", "probe", "build", "fastest", "benchmark", "machine"},
    "tensorrt": {"engine"},
    "pycuda": {"engine"},
    "openvino": {"engine"},
    "av": {"grab", "publish"},
    "zmq": {"keys", "control", "publish", "live"},
    "msgpack": {"keys", "control", "publish", "live"},
    "pycocotools": {"publish"},
    "rich": {"report", "adapt", "evaluate", "live", "benchmark", "metrics"},
    "prometheus_client": {"metrics"},
    "matplotlib": {"benchmark", "evaluate"},
    "nibabel": {"evaluate"},
    "scipy": {"evaluate"},
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


def offences(name: str, source: str) -> list[str]:
    """What a file (named from the repository's root) imports against the rule."""
    parts = Path(name).with_suffix("").parts
    room = parts[1]
    found = []
    for imported in imports(source, parts[:-1]):
        top, *rest = imported.split(".")
        if top == "rtseg" and rest and rest[0] not in {room, "__version__", *MAY[room]}:
            found.append(f"{name} imports {imported}")
        if top in HOMES and room not in HOMES[top]:
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
        ("rtseg/types.py", "from .config import Recipe"),
        ("rtseg/live/publish.py", "import torch"),
        ("rtseg/publish/publisher.py", "from ..control import Client"),
        ("rtseg/keys/gate.py", "from ..publish.wake import Wake"),
        ("rtseg/control/server.py", "from ..track import Tracker"),
        ("rtseg/grab/x.py", "import msgpack"),
        ("rtseg/track/tracker.py", "import av.filter"),
        ("rtseg/track/policy/x.py", "from torch import Tensor"),
        ("rtseg/grab/file.py", "from zmq import Context"),
        ("rtseg/sam2/x.py", "from tensorrt import Builder"),
    ],
)
def test_an_offence_is_seen(name: str, source: str) -> None:
    assert len(offences(name, source)) == 1


def test_what_is_allowed_is_no_offence() -> None:
    assert offences("rtseg/track/bank.py", "import numpy\nfrom ..engine import Engine\nfrom .policy import efp") == []
    assert offences("rtseg/live/feed.py", "from ..grab import open_source\nfrom .. import control") == []


def test_nothing_packaged_imports_tests_or_bench() -> None:
    for path in ROOT.glob("rtseg/**/*.py"):
        tops = {name.split(".")[0] for name in imports(path.read_text(), path.relative_to(ROOT).parts[:-1])}
        assert not tops & {"tests", "bench"}, path
