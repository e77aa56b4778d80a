"""`bench.gpu` says on one line that there is no GPU, and its CPU parts run without av, zmq and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import gpu

ROOT = Path(__file__).parents[2]
BARE = """
import sys
for name in ("av", "zmq", "msgpack", "rich", "transformers", "pycocotools"):
    sys.modules[name] = None  # an import of it fails
from bench.gpu import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr().err
    assert "sees no CUDA device; see `rtseg doctor`" in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_dry_run_on_a_bare_machine(tmp_path: Path) -> None:
    written = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--cases", "nano:64", "--warm", "2", "--rounds", "2", "--frames", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words, str(written)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(written.read_text())["cases"]
    assert case["rows"][gpu.OURS]["ms"]["count"] == 4
    assert case["rows"][gpu.OURS]["iou"]["mean"] > 0.9
    assert set(case["absent"]) == {"transformers fp32", gpu.EAGER, gpu.COMPILED}
    assert "transformers bf16: not run: ModuleNotFoundError" in done.stdout


def test_goals_are_held_against_what_was_measured() -> None:
    row = {"ms": {"p50": 1.4, "p99": 1.8}, "faster_than": {gpu.EAGER: {"median": 6.0}, gpu.COMPILED: {"median": 0.9}}}
    reached = gpu.goals("sam2.1-tiny:512", {gpu.OURS: row})
    assert list(reached.values()) == [True, False, True, False]
    assert gpu.goals("nano:64", {gpu.OURS: row}) == {} == gpu.goals("sam2.1-tiny:512", {})
