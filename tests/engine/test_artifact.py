"""A built engine is run only where it was built for, and gets to its place whole or not at all."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rtseg.base import files
from rtseg.base.errors import EngineError
from rtseg.base.files import install_folder, part_folder, sweep
from rtseg.base.lock import exclusive
from rtseg.engine import identity as identities
from rtseg.engine.artifact import SIDECAR, find, locate, write
from rtseg.engine.identity import identity
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.refusal import clear_refusal, folder_of, refuse
from rtseg.engine.refusal import refusal as refusal_of
from rtseg.sam2 import get_preset

NANO = get_preset("nano")
WEIGHTS = "a" * 64
GPU = {"gpu": "NVIDIA H200", "capability": "9.0", "driver": "570.86.15"}


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "_gpu", lambda device: GPU)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(runtime="tensorrt", precision="bf16", path=tmp_path / "fast.toml")


def built(recipe: Recipe, content: bytes = b"plan") -> Path:
    """Install an engine of two artifacts, as a build does."""
    final = folder_of(recipe)
    assert final is not None
    with exclusive(final, print), part_folder(final) as part:
        (part / "parts").mkdir()
        (part / "step.plan").write_bytes(content)
        (part / "parts" / "encoder.plan").write_bytes(content * 2)
        write(part, identity(recipe, NANO, WEIGHTS), {"parity": [{"least": 0.99}]})
        install_folder(part, final)
    return final


def refusal(recipe: Recipe, weights: str = WEIGHTS) -> str:
    with pytest.raises(EngineError) as caught:
        find(recipe, NANO, weights)
    line = str(caught.value)
    assert line.endswith(f"run: rtseg build {recipe.path}") and "\n" not in line
    return line


def test_what_was_built_is_found(recipe: Recipe) -> None:
    folder = built(recipe)
    assert find(recipe, NANO, WEIGHTS) == folder == recipe.path.parent / "built" / "fast"
    assert locate(recipe, NANO, WEIGHTS) == (folder, "")
    sidecar = json.loads((folder / SIDECAR).read_text())
    assert set(sidecar["files"]) == {"step.plan", "parts/encoder.plan"}
    assert sidecar["identity"]["device"] == GPU and sidecar["parity"] == [{"least": 0.99}]
    assert sorted(p.name for p in folder.parent.iterdir()) == [".fast.lock", "fast"]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no sidecar", lambda f: (f / SIDECAR).unlink(), "engine.json: cannot be read"),
    ("empty sidecar", lambda f: (f / SIDECAR).write_text(""), "engine.json: truncated or edited"),
    ("half a sidecar", lambda f: (f / SIDECAR).write_text((f / SIDECAR).read_text()[:300]), "truncated or edited"),
    ("a list", lambda f: (f / SIDECAR).write_text("[]"), "truncated or edited"),
    ("edited", lambda f: edit(f / SIDECAR, lambda s: s["parity"][0].update(least=1.0)), "truncated or edited"),
    ("forged", lambda f: edit(f / SIDECAR, lambda s: s["identity"]["device"].update(gpu="T4")), "truncated or edited"),
    (
        "another format",
        lambda f: edit(f / SIDECAR, lambda s: s.update(format=1)),
        "of another version of rtseg (format 1;",
    ),
    ("artifact cut", lambda f: (f / "step.plan").write_bytes(b"pla"), "step.plan: damaged or edited: sha256"),
    ("artifact edited", lambda f: (f / "parts/encoder.plan").write_bytes(b"planplaN"), "encoder.plan: damaged or edit"),
    ("artifact gone", lambda f: (f / "step.plan").unlink(), "step.plan: cannot be read (No such file"),
]


@pytest.mark.parametrize(("damage", "expected"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_what_is_damaged_is_refused(recipe: Recipe, damage: Callable[[Path], object], expected: str) -> None:
    damage(built(recipe))
    assert expected in refusal(recipe)


def test_what_was_never_built_is_refused(recipe: Recipe) -> None:
    assert "built/fast: not built yet" in refusal(recipe)
    with pytest.raises(EngineError, match="no engine is built for a recipe without a file"):
        find(replace(recipe, path=None), NANO, WEIGHTS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"precision": "fp16"}, "built with recipe.precision = bf16; expected fp16"),
        ({"image_size": 512}, "built with recipe.image_size = 320; expected 512"),
        ({"max_objects": 8}, "built with recipe.max_objects = 4; expected 8"),
        ({"memory": MemorySettings("fifo")}, "built with recipe.memory.policy = efp; expected fifo"),
        ({"memory": MemorySettings(spatial=6)}, "built with recipe.memory.spatial = 5; expected 6"),
        ({"runtime": "cuda"}, "built with recipe.runtime = tensorrt; expected cuda"),
    ],
)
def test_another_recipe_is_refused(recipe: Recipe, change: dict[str, Any], expected: str) -> None:
    built(recipe)
    assert expected in refusal(replace(recipe, **change))


def test_another_network_or_weights_are_refused(recipe: Recipe) -> None:
    built(recipe)
    assert "built with weights = aaaaaaaaaaaa; expected bbbbbbbbbbbb" in refusal(recipe, "b" * 64)
    with pytest.raises(EngineError, match="built with network = "):
        find(recipe, get_preset("sam2.1-tiny"), WEIGHTS)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("_gpu", lambda device: GPU | {"gpu": "NVIDIA L4"}, "device.gpu = NVIDIA H200; expected NVIDIA L4"),
        ("_gpu", lambda device: GPU | {"driver": "580.1"}, "device.driver = 570.86.15; expected 580.1"),
        ("_gpu", lambda device: GPU | {"capability": "8.9"}, "device.capability = 9.0; expected 8.9"),
        ("library_version", lambda name: "99.0" if name == "rtseg" else None, "versions.rtseg = "),
        ("_versions", lambda runtime: {"tensorrt": "11.5"}, "versions.tensorrt = not installed; expected 11.5"),
    ],
)
def test_another_machine_or_library_is_refused(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, expected: str
) -> None:
    monkeypatch.setattr(identities, "library_version", lambda name: None)
    built(recipe)
    find(recipe, NANO, WEIGHTS)
    monkeypatch.setattr(identities, name, value)
    assert expected in refusal(recipe)


def _not_installed(name: str) -> str:
    raise identities.importlib.metadata.PackageNotFoundError(name)


def test_a_cpu_that_lacks_an_instruction_is_another_machine(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(recipe, runtime="cpu", precision="fp32")  # which every CPU has
    monkeypatch.setattr(identities, "cpu_flags", lambda: ["avx2", "avx512f"])
    built(recipe)
    monkeypatch.setattr(identities, "cpu_flags", lambda: ["avx2"])
    assert "device.flags = avx2 avx512f; expected avx2" in refusal(recipe)


def test_a_runtime_that_can_do_without_says_why_it_does(recipe: Recipe) -> None:
    cpu = replace(recipe, runtime="cpu", precision="fp32")  # which every CPU has
    folder, why = locate(cpu, NANO, WEIGHTS)
    assert folder is None and "not built yet; run: rtseg build" in why
    with pytest.raises(EngineError, match="not built yet"):
        locate(recipe, NANO, WEIGHTS)
    assert locate(replace(recipe, runtime="torch"), NANO, WEIGHTS)[0] is None
    # What a CPU's artifacts do not depend on costs nobody a build.
    path = built(cpu)
    assert locate(replace(cpu, max_objects=9, memory=MemorySettings("fifo")), NANO, WEIGHTS) == (path, "")
    assert find(replace(cpu, image_size=512), NANO, WEIGHTS) == path


@pytest.mark.parametrize("runtime", ["cuda", "tensorrt"])
def test_what_was_refused_stays_so_until_a_build_succeeds(recipe: Recipe, runtime: str) -> None:
    recipe = replace(recipe, runtime=runtime)
    folder = built(recipe)
    assert locate(recipe, NANO, WEIGHTS) == (folder, "")
    with exclusive(folder, print), part_folder(folder) as part:
        refuse(folder, part, identity(recipe, NANO, WEIGHTS), "attend drifted")
    with pytest.raises(
        EngineError, match=r"built/fast: refused by the parity check \(attend drifted\); .*; run: rtseg build"
    ):
        locate(recipe, NANO, WEIGHTS)
    for other in ({"precision": "fp16"}, {"max_objects": 9}, {"memory": MemorySettings("fifo")}, {"image_size": 512}):
        with pytest.raises(EngineError, match="built with"):  # not what was refused, and not what was built
            find(replace(recipe, **other), NANO, WEIGHTS)
        assert refusal_of(replace(recipe, **other), identity(replace(recipe, **other), NANO, WEIGHTS)) == ""
    edit(folder.with_name(".fast.refused"), lambda record: record.pop("sources"))  # of an earlier version of rtseg
    assert locate(recipe, NANO, WEIGHTS) == (folder, "")
    clear_refusal(folder)
    assert locate(recipe, NANO, WEIGHTS) == (folder, "")


def test_an_engine_of_cuda_that_is_not_proved_says_so(recipe: Recipe) -> None:
    folder, why = locate(replace(recipe, runtime="cuda"), NANO, WEIGHTS)
    assert folder is None and why.startswith("not proved here: ") and "; run: rtseg build" in why


def test_the_version_of_a_library_is_its_own_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's wheels for one CUDA alone leave no package of the name "tensorrt"."""
    monkeypatch.setattr(identities.importlib.metadata, "version", _not_installed)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.5"))
    assert identities._versions("tensorrt")["tensorrt"] == "11.5"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert identities._versions("tensorrt")["tensorrt"] == "not installed"


def test_another_source_that_decides_is_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that does not decide is no reason to build again."""
    folder, seen = built(recipe), dict(identities.sources_of("tensorrt"))
    monkeypatch.setattr(identities, "sources_hash", lambda: "b" * 64)
    assert find(recipe, NANO, WEIGHTS) == folder
    monkeypatch.setattr(identities, "sources_of", lambda family: seen | {"engine/tensorrt/plans.py": "c" * 64})
    assert "built with rtseg/engine/tensorrt/plans.py = " in refusal(recipe)
    assert "; expected cccccccccccc; run" in refusal(recipe)
    monkeypatch.setattr(identities, "sources_of", lambda family: seen | {"sam2/new.py": "c" * 64})
    assert "built with rtseg/sam2/new.py = none; expected cccccccccccc" in refusal(recipe)
    with exclusive(folder, print), part_folder(folder) as part:
        refuse(folder, part, identity(recipe, NANO, WEIGHTS), "attend drifted")
    assert refusal_of(recipe, identity(recipe, NANO, WEIGHTS)) != ""
    monkeypatch.setattr(identities, "sources_hash", lambda: "d" * 64)
    monkeypatch.setattr(identities, "sources_of", lambda family: seen)
    assert refusal_of(recipe, identity(recipe, NANO, WEIGHTS)) == ""  # it was mended: another build may tell


@pytest.mark.parametrize("swaps", [True, False])
def test_an_engine_replaces_another(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, swaps: bool) -> None:
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    built(recipe, b"old")
    folder = built(recipe, b"new")
    assert (folder / "step.plan").read_bytes() == b"new"
    assert find(recipe, NANO, WEIGHTS) == folder
    assert sorted(p.name for p in folder.parent.iterdir()) == [".fast.lock", "fast"]


def test_a_reader_sees_a_whole_engine_while_it_is_replaced(recipe: Recipe) -> None:
    folder, done, seen = built(recipe), threading.Event(), 0

    def replace_it() -> None:
        for k in range(40):
            built(recipe, f"plan {k}".encode())
        done.set()

    writer = threading.Thread(target=replace_it)
    writer.start()
    while not done.is_set():
        assert find(recipe, NANO, WEIGHTS) == folder
        seen += 1
    writer.join()
    assert seen > 3


def test_what_died_is_swept_and_nothing_else(recipe: Recipe) -> None:
    folder = built(recipe)
    parent = folder.parent
    dead = [parent / ".fast.0123abcd.part", parent / ".fast.89abcdef.part"]
    others = [parent / ".fast.er.0123abcd.part", parent / ".fast.notes.part", parent / "fast.0123abcd.part"]
    for path in (*dead, *others):
        path.mkdir()
        (path / "x").write_text("x")
    with exclusive(folder, print):
        sweep(folder)
    assert not any(path.exists() for path in dead) and all(path.exists() for path in others)
    with part_folder(folder) as part:
        (part / "x").write_text("x")
    assert not part.exists() and find(recipe, NANO, WEIGHTS) == folder


def test_one_build_at_a_time(recipe: Recipe) -> None:
    final = folder_of(recipe)
    assert final is not None
    notes: list[str] = []
    order: list[str] = []

    def second() -> None:
        with exclusive(final, notes.append):
            order.append("second")

    with exclusive(final, notes.append):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert len(notes) == 1 and "another process is building it; waiting" in notes[0]
