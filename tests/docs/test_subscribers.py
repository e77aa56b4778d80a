"""The subscribers of docs/wire.md, in plain pyzmq and in JavaScript, read what a publisher of rtseg sends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtseg import Frame, Masks
from rtseg.base.types import now_ns
from rtseg.publish.publisher import Publisher

ROOT = Path(__file__).parents[2]
CODE = ROOT / "docs" / "code"
MODULES = ROOT / "out" / "node" / "node_modules"  # as .ci/run installs them
MESSAGES = 12


def frame_and_masks(seq: int) -> tuple[Frame, Masks]:
    """A small picture with two objects that grow with `seq`."""
    logits_bhw = np.full((2, 48, 64), -4, np.float32)
    logits_bhw[0, 4 : 10 + seq % 8, 5:23] = 4
    logits_bhw[1, 20:40, 30 : 40 + seq % 8] = 4
    frame = Frame(np.full((48, 64, 3), seq % 255, np.uint8), seq, "session")
    about = (seq, "session", frame.captured_ns, now_ns(), 48, 64, (1, 7), ("grasper", "liver"), (0.9, 0.8), (0.9, 0.8))
    return frame, Masks(*about, logits_bhw)


def lines_of(command: list[str], cwd: Path) -> list[dict[str, object]]:
    """What a subscriber prints while masks and status are published."""
    with Publisher("tcp://127.0.0.1:*", "room", topics=["masks", "status"]) as publisher:
        reader = subprocess.Popen([*command, publisher.endpoint, str(MESSAGES)], stdout=subprocess.PIPE, cwd=cwd)
        seq = 0
        while True:
            try:
                out, _ = reader.communicate(timeout=0.04)
                break
            except subprocess.TimeoutExpired:
                if seq > 1000:  # 40 s and more
                    reader.kill()
                    reader.communicate()
                    pytest.fail(f"{command} did not print {MESSAGES} messages")
            frame, masks = frame_and_masks(seq)
            publisher.publish_masks(masks, frame)
            publisher.set_status({"state": "running"})
            seq += 1
    assert reader.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def check(lines: list[dict[str, object]]) -> None:
    """Every mask that was printed is the one that was sent."""
    masks = [line for line in lines if line["topic"] == "room/masks"]
    assert MESSAGES <= len(lines) <= MESSAGES + 1 and masks  # one of each topic may come at once
    for line in masks:
        seq = line["seq"]
        assert isinstance(seq, int)
        _, sent = frame_and_masks(seq)
        objects = [{"id": i, "label": sent.label(i), "area": int(sent.mask(i).sum())} for i in sent.ids]
        assert line["objects"] == objects and line["state"] == "fresh"
    seqs = [int(str(line["seq"])) for line in masks]
    assert seqs == sorted(set(seqs))
    assert any(line["topic"] == "room/status" and line["masks"] == "running" for line in lines)


def test_in_plain_pyzmq(tmp_path: Path) -> None:
    assert "rtseg" not in "".join(
        line for line in (CODE / "subscribe.py").read_text("utf-8").splitlines() if "import" in line
    )
    check(lines_of([sys.executable, str(CODE / "subscribe.py")], tmp_path))


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("SKIPPED: no node on this machine; docs/code/subscribe.mjs was not run")
    return found


def test_in_javascript(tmp_path: Path) -> None:
    command = node()
    if not MODULES.is_dir():
        pytest.skip(f"SKIPPED: no {MODULES.relative_to(ROOT)} (.ci/run makes it); docs/code/subscribe.mjs was not run")
    shutil.copy(CODE / "subscribe.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    check(lines_of([command, "subscribe.mjs"], tmp_path))


def test_the_javascript_is_javascript() -> None:
    subprocess.run([node(), "--check", str(CODE / "subscribe.mjs")], check=True)
