"""The scripts of examples/ run as a user would run them, are short, and use the public API alone."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

import rtseg
from rtseg.live.control import Client

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CLIP = "synthetic:laparoscopy?seconds=0.16&seed=7&width=320&height=240"  # 4 frames
PUBLIC = {"rtseg", "rtseg.live.control", "rtseg.track"}  # what a script may import of the package


def run(name: str, *arguments: object, cwd: Path = ROOT) -> str:
    """What an example prints; it has to end well."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def click() -> str:
    """A point on the tool of `CLIP`'s first frame, where it is thickest."""
    frame = next(iter(rtseg.open_source(CLIP)))
    assert frame.truth_hw is not None
    depth_hw = cv2.distanceTransform((frame.truth_hw == 1).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth_hw.argmax(), depth_hw.shape)
    return f"{x},{y}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_uses_the_public_api(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 40
    names = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    names += [a.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for a in node.names]
    assert {name for name in names if name.startswith("rtseg")} <= PUBLIC
    assert not re.search(r"\b\w+\._[a-z]", text)  # nothing private


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert all(f'run("{path.stem}"' in text for path in EXAMPLES)


def test_track_file(tmp_path: Path) -> None:
    out = run("track_file", CLIP, click(), tmp_path)
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(tmp_path.glob("*.png"))]
    assert len(maps) == 4 and out.count("pixels, visible") == 4
    overlaps = []
    for frame, ids_hw in zip(rtseg.open_source(CLIP), maps, strict=True):
        assert frame.truth_hw is not None and ids_hw is not None and set(np.unique(ids_hw)) <= {0, 1}
        truth_hw = frame.truth_hw == 1
        overlaps.append(((ids_hw == 1) & truth_hw).sum() / ((ids_hw == 1) | truth_hw).sum())
    assert np.mean(overlaps) > 0.5


@pytest.mark.slow
def test_export_masks(tmp_path: Path) -> None:
    if find_spec("supervision") is None:
        pytest.skip("SKIPPED: supervision is not installed; examples/export_masks.py was not run")
    import supervision as sv
    from pycocotools.coco import COCO

    run("export_masks", CLIP, click(), tmp_path)
    coco = COCO(str(tmp_path / "coco.json"))
    assert len(coco.imgs) == len(coco.anns) == 4 and coco.cats[1]["name"] == "grasper"
    assert all(coco.annToMask(entry).sum() == entry["area"] > 0 for entry in coco.anns.values())
    read = sv.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True)
    assert len(read) == 4
    for frame, (_, picture_hwc, found) in zip(rtseg.open_source(CLIP), read, strict=True):
        assert found.mask is not None and len(found) == 1
        # The annotator tints the mask, and leaves the rest to JPEG's rounding.
        changed_hw = np.abs(picture_hwc[..., ::-1].astype(int) - frame.image_hwc).max(-1)
        mask_hw = np.asarray(found.mask[0])
        assert changed_hw[mask_hw].mean() > 3 * changed_hw[~mask_hw].mean()


@pytest.mark.slow
def test_memory_policy() -> None:
    longer = CLIP.replace("0.16", "0.6")  # 15 frames
    ious = [float(iou) for iou in re.findall(r"agrees with fifo: IoU ([\d.]+)", run("memory_policy", longer, click()))]
    assert len(ious) == 15
    assert ious[:2] == [1, 1] and min(ious) > 0.5  # it tracks the same tool
    assert min(ious) < 1  # by other memories


@pytest.mark.slow
def test_volume(tmp_path: Path) -> None:
    """A ball in noise, from a box on its middle slice; and from a box beside it."""
    z, y, x = np.mgrid[:9, :160, :160]
    truth_dhw = (x - 70) ** 2 + (y - 90) ** 2 + (14 * (z - 4)) ** 2 < 60**2
    noise = np.random.default_rng(0).normal(0, 1, truth_dhw.shape)
    tissue = np.stack([cv2.GaussianBlur(noise_hw, (0, 0), 6) for noise_hw in noise])
    imgs = np.clip(70 + 15 * tissue / tissue.std() + 110 * truth_dhw, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "volume.npz", imgs=imgs)
    dice = []
    for box in ("8,28,132,152", "135,5,158,40"):
        run("volume", tmp_path / "volume.npz", 4, box, tmp_path / "masks.npz", ROOT / "engines/nano-cpu.toml")
        masks_dhw = np.load(tmp_path / "masks.npz")["segs"] > 0
        dice.append(2 * (masks_dhw & truth_dhw).sum((1, 2)) / (masks_dhw.sum((1, 2)) + truth_dhw.sum((1, 2))))
    assert dice[0][1:8].min() > 0.9  # on both sides of the slice with the box
    assert dice[1].max() < 0.1


PROFILE = """
source = "synthetic:laparoscopy?seconds=600&seed=7&width=320&height=240"
engine = "{root}/engines/micro-cpu.toml"
mask_budget_ms = 2000
[publish]
bind = "{publish}"
[control]
bind = "{control}"
"""


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A feed that is live: where it is published, and where it is controlled."""
    publish, control = (f"ipc://{tmp_path}/{name}" for name in ("publish", "control"))
    profile = tmp_path / "room.toml"
    profile.write_text(PROFILE.format(root=ROOT, publish=publish, control=control), "utf-8")
    command = [sys.executable, "-m", "rtseg", "live", str(profile), "--json"]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with rtseg.Subscriber(publish, ["overlay"]) as subscriber:
        assert subscriber.get("overlay", timeout=60) is not None
    yield publish, control
    with Client(control, timeout=20) as client:
        client.shutdown()
    report = json.loads(started.communicate(timeout=30)[0].splitlines()[-1])
    assert started.returncode == 0, report


def test_click_and_live_subscriber(feed: tuple[str, str], tmp_path: Path) -> None:
    publish, control = feed
    out = run("click", publish, control, 3, click(), cwd=tmp_path)
    snapshot = cv2.imread(str(tmp_path / "snapshot.png"))
    assert snapshot is not None and snapshot.shape == (240, 320, 3)
    assert re.search(r"clicked on frame \d+; masks of frame \d+, pixels by object: \{3: \d+\}", out), out

    out = run("live_subscriber", publish, tmp_path / "seen", 5)
    assert len(list((tmp_path / "seen").glob("*.jpg"))) == 5
    assert len(re.findall(r"frame \d+: (?:fresh|stale), masks \d+ ms old, 1 objects", out)) >= 3, out
