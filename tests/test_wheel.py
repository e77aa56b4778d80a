"""A wheel and an sdist hold all that a user needs, and `rtseg demo` runs from an installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENTRY_POINT = "rtseg = rtseg.cli:main"

pytestmark = pytest.mark.slow


@cache
def tracked_files() -> frozenset[str]:
    """The files of the package, by git."""
    listed = subprocess.run(["git", "ls-files", "rtseg"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(listed.stdout.splitlines())


def clean_environment() -> dict[str, str]:
    """Our environment without PYTHONPATH, by which a new one would find the checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: git says which files belong to the package")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in (*tracked_files(), "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def missing(wheel: Path) -> frozenset[str]:
    """What a wheel lacks of the package's files and the command."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    return (tracked_files() - names) | ({ENTRY_POINT} - {line for text in points for line in text.splitlines()})


def without(wheel: Path, name: str, out: Path) -> Path:
    """A copy of a wheel without the files that have this in their names."""
    out = out / wheel.name
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(out, "w") as thinner:
        for item in archive.infolist():
            if name not in item.filename:
                thinner.writestr(item, archive.read(item))
    return out


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel in it; what rtseg needs is taken from ours. The folder of its commands."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, env=clean_environment(), cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "zz.pth").write_text(sysconfig.get_paths()["purelib"])  # its own .pth files are not read
    return folder / "bin"


def demo(commands: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [str(commands / "rtseg"), "demo", "--json", "--out", str(out)]
    place = {"env": clean_environment(), "cwd": out.parent}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, **place)  # type: ignore[call-overload,no-any-return]


def test_a_wheel_holds_the_package_and_its_command(wheel: Path, tmp_path: Path) -> None:
    assert missing(wheel) == set()
    for name in ("py.typed", "frame.cu", "demo.mp4", "nano.safetensors", "nano-320/encode.onnx", "entry_points.txt"):
        lost = missing(without(wheel, name, tmp_path))
        assert len(lost) == 1 and next(iter(lost)).endswith((name, ENTRY_POINT))


def test_an_sdist_holds_the_package(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert tracked_files() - names == set() and {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_demo_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    commands = install(wheel, tmp_path / "env")
    where = "import rtseg, rtseg.engine; print(rtseg.__file__, rtseg.__version__)"
    command, place = [str(commands / "python"), "-c", where], {"env": clean_environment(), "cwd": tmp_path}
    said = subprocess.run(command, capture_output=True, text=True, check=True, **place)  # type: ignore[call-overload]
    assert said.stdout.startswith(str(tmp_path / "env"))
    done = demo(commands, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["iou"]["mean"] > 0.3  # the network has run
    assert (tmp_path / "out/overlay.mp4").stat().st_size > 10_000 and (tmp_path / "out/poster.png").exists()


def test_the_demo_of_a_wheel_without_weights_and_graphs_fails(wheel: Path, tmp_path: Path) -> None:
    commands = install(without(wheel, "sam2/shipped/", tmp_path), tmp_path / "env")
    done = demo(commands, tmp_path / "out")
    assert done.returncode == 2 and "not shipped in this package" in done.stderr
