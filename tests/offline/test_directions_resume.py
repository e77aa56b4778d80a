"""A run both ways that is killed, or interrupted, in either pass goes on from there, with the same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtseg.base.errors import IncompleteError
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.offline import direction_pass, following, segment
from tests.offline.test_resume import files, read

RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
SOURCE = "synthetic:laparoscopy?width=160&height=120&seconds=1.6&seed=7"
FRAMES, EVERY = 40, 8
PROMPTS = {20: [Prompt(2, box=(10.0, 20.0, 80.0, 90.0))], 31: [Prompt(1, box=(30.0, 20.0, 60.0, 50.0))]}
AHEAD = 32  # frames of the backward pass


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SEGMENT", EVERY)
    monkeypatch.setattr(direction_pass, "CHECKPOINT_EVERY", EVERY)


def run(out: Path, stop_at: int = 0) -> list[int]:
    """A run; Ctrl-C after so many frames of both passes. Returns the numbers of frames that it said were done."""
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        if done == stop_at:
            raise KeyboardInterrupt

    segment(SOURCE, PROMPTS, out, RECIPE, direction="both", progress=progress)
    return seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "SEGMENT", EVERY)
        assert run(out) == list(range(1, AHEAD + FRAMES + 1))
    return out


def test_ctrl_c_in_either_pass(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(out, 2 * EVERY + 3)  # in the backward pass
    with pytest.raises(IncompleteError, match="interrupted"):
        run(out, AHEAD + 3)  # in the forward pass, before its first segment is done
    assert not out.exists()
    seen = run(out)
    assert seen[0] == AHEAD + 1  # the backward pass was whole
    assert files(out) == files(whole)
    assert read(out)["masks_of"] == read(whole)["masks_of"]
    assert os.listdir(tmp_path) == ["out"]
    assert not (out / ".backward").exists()


@pytest.mark.slow
def test_kill_9_in_either_pass(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    for at in (2 * EVERY + 3, AHEAD + 2 * EVERY + 3):
        code = (
            "import os\n"
            "import tests.offline.test_directions_resume as t\n"
            f"t.following.SEGMENT = t.direction_pass.CHECKPOINT_EVERY = {EVERY}\n"
            f"t.segment(t.SOURCE, t.PROMPTS, {str(out)!r}, t.RECIPE, direction='both',\n"
            f"    progress=lambda done, of: os.kill(os.getpid(), {int(signal.SIGKILL)}) if done == {at} else None)"
        )
        root = Path(__file__).parents[2]
        killed = subprocess.run(
            [sys.executable, "-c", code], cwd=root, check=False, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert not out.exists()
    seen = run(out)
    assert seen[0] - 1 - AHEAD in (EVERY, 2 * EVERY)  # at most one segment is lost
    assert files(out) == files(whole)
    assert read(out)["masks_of"] == read(whole)["masks_of"]
