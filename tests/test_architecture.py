"""The architecture's rules: which package imports which, who owns a vendor library, no circular imports, and sizes.

`python -m tests.architecture` prints the packages in the order that these rules give them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import (
    ROOT,
    circles,
    edges,
    imports,
    long_files,
    long_functions,
    package_edges,
    packages,
)

PACKAGE = ROOT / "rtseg"
# From the lowest to the highest: a package may import those that it names, and `base`.
MAY: dict[str, set[str]] = {
    "base": set(),
    "sam2": set(),
    "synthetic": set(),
    "grab": {"synthetic"},
    "publish": set(),
    "engine": {"sam2"},
    "track": {"engine"},
    "build": {"sam2", "engine", "track", "grab", "synthetic"},
    "data": {"grab", "synthetic"},
    "offline": {"grab", "engine", "track", "publish", "build"},
    "live": {"grab", "synthetic", "engine", "track", "publish"},
    "evaluate": {"data", "engine", "track", "grab", "synthetic", "publish", "build", "live"},
    "adapt": {"data", "sam2", "engine", "grab", "synthetic", "evaluate"},
    "console": {"live", "offline", "publish", "grab", "engine", "track", "build"},
    "cli": {"live", "offline", "publish", "adapt", "evaluate", "build", "engine", "console"},
    "__main__": {"cli"},
    "__init__": {"grab", "engine", "track", "publish", "live"},
}

# The packages, folders or files that may import a vendor library.
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
    "msgspec": {"base", "sam2", "engine", "track", "publish", "live", "adapt", "console"},
    "psutil": {"base/hardware", "live"},
    "pygame": {"publish/window"},
    "rich": {"base/terminal", "adapt", "evaluate", "live/watch"},
    "prometheus_client": {"live/watch"},
    "starlette": {"console"},
    "uvicorn": {"console"},
    "websockets": {"console"},
    "matplotlib": {"evaluate"},
    "nibabel": {"grab/medical", "offline/formats"},
    "pydicom": {"grab/medical", "offline/formats"},
    "pyarrow": {"offline/formats"},
    "ray": {"offline/archive"},
    "zarr": {"offline/formats"},
    "highdicom": {"offline/formats"},
    "scipy": {"evaluate", "data"},
    "monai": set(),
    "transformers": set(),
}


def is_in(name: str, home: str) -> bool:
    """Whether a file lies in a folder of the package, or is the file `home`."""
    return f"{name.removesuffix('.py')}/".startswith(f"rtseg/{home}/")


def offences(name: str, source: str) -> list[str]:
    """The imports of a file, named from the repository's root, that break a rule."""
    parts = Path(name).with_suffix("").parts
    own = parts[1]
    found = []
    for imported, _ in imports(source, parts[:-1]):
        top, *rest = imported.split(".")
        if top == "rtseg" and rest and rest[0] not in {own, "__version__", "base", *MAY[own]}:
            found.append(f"{name} imports {imported}")
        if top in HOMES and not any(is_in(name, home) for home in HOMES[top]):
            found.append(f"{name} imports {top}")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("rtseg/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_rules(path: Path) -> None:
    assert offences(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rtseg/sam2/x.py", "from ..track import Tracker"),
        ("rtseg/sam2/x.py", "from .. import engine"),
        ("rtseg/grab/x.py", "import rtseg.publish.wire"),
        ("rtseg/publish/x.py", "def f():\n    from ..grab.video_file import FileSource"),
        ("rtseg/engine/x.py", "from rtseg.track import Tracker"),
        ("rtseg/base/types.py", "from ..engine.recipe import Recipe"),
        ("rtseg/live/publish.py", "import torch"),
        ("rtseg/publish/publisher.py", "from ..live.control import Client"),
        ("rtseg/publish/keys/allow_list.py", "from ...live.control import Client"),
        ("rtseg/build/parity.py", "from ..live.control import Client"),
        ("rtseg/grab/x.py", "import msgpack"),
        ("rtseg/track/tracker.py", "import av.filter"),
        ("rtseg/track/x.py", "from torch import Tensor"),
        ("rtseg/grab/video_file.py", "from zmq import Context"),
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
        tops = {name.split(".")[0] for name, _ in imports(path.read_text(), path.relative_to(ROOT).parts[:-1])}
        assert not tops & {"tests", "bench"}, path


def test_the_root_has_at_most_seventeen_entries_and_three_of_them_are_files() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert files == {"__init__", "__main__", "cli"}
    assert files | folders == set(MAY), "a package without a rule in MAY, or a rule without a package"
    assert len(files | folders) <= 17


def test_a_package_comes_after_those_that_it_imports() -> None:
    """MAY has no circle, and so neither have the packages: the order of `packages` is that of an execution."""
    order = list(packages(package_edges()))
    for name, below in packages(package_edges()).items():
        assert all(order.index(other) < order.index(name) for other in below), name


def test_no_import_is_circular() -> None:
    """Imports inside functions count: two modules that import each other at a call are one module in two files."""
    assert circles(package_edges(), typing=False) == []


def test_no_type_is_imported_in_a_circle() -> None:
    """An import under `TYPE_CHECKING` hides a circle from Python, and not from a reader."""
    assert circles(package_edges(), typing=True) == []


@pytest.mark.parametrize(
    ("b", "typing", "expected"),
    [
        ("from . import a", False, [["p.a", "p.b"]]),
        ("from .a import f", False, [["p.a", "p.b"]]),
        ("def f():\n    from p.a import g", False, [["p.a", "p.b"]]),
        ("class F:\n    import p.a", False, [["p.a", "p.b"]]),
        ("if TYPE_CHECKING:\n    from .a import f", False, []),
        ("if TYPE_CHECKING:\n    from .a import f", True, [["p.a", "p.b"]]),
        ("if TYPE_CHECKING:\n    import os\nelse:\n    from .a import f", False, [["p.a", "p.b"]]),
        ("from .c import f", False, [["p.a", "p.b", "p.c"]]),  # through a third module
        ("from .d import f", False, []),
    ],
)
def test_a_circle_is_seen(b: str, typing: bool, expected: list[list[str]]) -> None:
    modules = {"p": "", "p.a": "from .b import f", "p.b": b, "p.c": "from .a import f", "p.d": "import os"}
    assert circles(edges(modules, {"p"}), typing=typing) == expected


def test_no_file_has_more_than_300_lines() -> None:
    assert long_files(PACKAGE, 300) == {}


def test_at_most_three_functions_have_more_than_40_lines() -> None:
    found = long_functions(PACKAGE, 40)
    assert len(found) <= 3, found


def test_a_long_file_and_a_long_function_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n" + "    pass\n" * 40 + "def g():\n" + "    pass\n" * 39)
    (tmp_path / "b.py").write_text("\n" * 80)
    assert long_functions(tmp_path, 40) == {"a.py:f": 41}
    assert long_files(tmp_path, 80) == {"a.py": 81}
