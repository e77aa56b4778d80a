"""Which of our sources decide what a runtime computes: an edit of any other, or of a comment, costs nobody a build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rtseg.engine.sources import FOREIGN, PACKAGE, sources_hash, sources_of

RUNTIMES = ("cpu", "onnx", "cuda", "tensorrt")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for room in ("engine", "sam2"):
        keep = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(PACKAGE / room, tmp_path / "rtseg" / room, ignore=keep)
    return tmp_path / "rtseg"


def read(family: str, package: Path) -> dict[str, str]:
    return sources_of.__wrapped__(family, package)


def edited(package: Path, name: str, line: str) -> None:
    path = package / name
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", "utf-8")


UNRELATED = [
    ("tensorrt", "engine/cpu/network.py"),
    ("tensorrt", "engine/cpu/simd/kernels.cpp"),
    ("tensorrt", "engine/cuda/engine.py"),
    ("tensorrt", "engine/onnx/engine.py"),
    ("tensorrt", "engine/opening.py"),
    ("tensorrt", "engine/artifact.py"),
    ("tensorrt", "engine/runtimes.py"),
    ("cuda", "engine/tensorrt/engine.py"),
    ("cuda", "engine/cpu/engine.py"),
    ("cpu", "engine/picture/frame.cu"),
    ("cpu", "engine/tensorrt/onnx.py"),
    ("onnx", "engine/cuda/engine.py"),
]
RELATED = [
    ("tensorrt", "engine/tensorrt/plans.py"),
    ("tensorrt", "engine/tensorrt/quantize.py"),
    ("tensorrt", "engine/static/memory.py"),
    ("tensorrt", "sam2/hiera.py"),
    ("tensorrt", "sam2/presets.py"),
    ("cuda", "engine/static/graph.py"),
    ("cuda", "engine/reference.py"),
    ("cpu", "engine/cpu/simd/dot.h"),
    ("cpu", "engine/cpu/kernels.py"),
    ("onnx", "engine/onnx/graphs.py"),
]


def test_what_each_runtime_depends_on() -> None:
    for family in RUNTIMES:
        names = set(sources_of(family))
        assert {f"engine/{family}/engine.py", "engine/static/encoder.py", "sam2/network.py"} <= names
        assert not {"engine/artifact.py", "engine/opening.py"} & names
    for family, name in RELATED:
        assert name in sources_of(family)
    for family, name in UNRELATED:
        assert (PACKAGE / name).is_file() and name not in sources_of(family)


@pytest.mark.parametrize("family", ["tensorrt", *(pytest.param(f, marks=pytest.mark.slow) for f in RUNTIMES[:3])])
def test_an_edit_of_each_that_decides_is_seen_and_of_no_other(family: str, package: Path) -> None:
    before, whole = read(family, package), sources_hash.__wrapped__(package)
    others = [name for kind, name in UNRELATED if kind == family]
    for name in others:
        edited(package, name, "more = 1" if name.endswith(".py") else "int more;")
    assert read(family, package) == before and sources_hash.__wrapped__(package) != whole
    for name in before:
        edited(package, name, "more = 1" if name.endswith(".py") else "int more;")
    after = read(family, package)
    assert set(after) == set(before) and not any(after[name] == before[name] for name in before)


def test_comments_and_docstrings_decide_nothing(package: Path) -> None:
    before = read("tensorrt", package)
    path = package / "engine/static/parts.py"
    text = path.read_text("utf-8")
    path.write_text(f"# more\n{text.replace('Softmax attention', 'ATTENTION')}\n\n# and more\n", "utf-8")
    assert read("tensorrt", package) == before
    path.write_text(text.replace("hidden = self.first(x)", "hidden = self.first(x) * 2"), "utf-8")
    changed = read("tensorrt", package)
    assert {name for name in before if changed[name] != before[name]} == {"engine/static/parts.py"}


def test_a_module_that_is_new_is_followed(package: Path) -> None:
    (package / "engine/static/more.py").write_text("from ..threads import threads\nfrom ...sam2 import layers\n")
    assert "engine/static/more.py" not in read("cuda", package)
    edited(package, "engine/static/memory.py", "def f():\n    from . import more")
    assert "engine/static/more.py" in read("cuda", package)
    (package / "engine/cuda/step.cu").write_text("int a;")
    assert "engine/cuda/step.cu" not in read("cuda", package)
    edited(package, "engine/cuda/steps.py", 'SOURCE = "step.cu"')
    assert "engine/cuda/step.cu" in read("cuda", package)
    before = read("cuda", package)
    edited(package, "engine/static/graph.py", "from ..runtimes import device_of")  # leads to every runtime, and to none
    assert read("cuda", package).keys() == before.keys()


def test_a_file_that_does_not_parse_is_taken_as_it_is(package: Path) -> None:
    edited(package, "engine/static/parts.py", "def (")
    first = read("cpu", package)["engine/static/parts.py"]
    edited(package, "engine/static/parts.py", "# more")
    assert read("cpu", package)["engine/static/parts.py"] != first


def test_no_foreign_source_is_forgotten() -> None:
    """Each belongs to a runtime, or to a module that names it."""
    known = {name for family in RUNTIMES for name in sources_of(family)}
    for path in (p for suffix in FOREIGN for p in PACKAGE.glob(f"engine/**/*{suffix}")):
        assert str(path.relative_to(PACKAGE)) in known, f"{path.name} decides nothing of any runtime"
