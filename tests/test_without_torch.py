"""rtseg on a machine without torch: what works there, and what is said where it does not.

torch is hidden from the processes that are started here by a `sitecustomize` of ours, which those that they start read
too. That the hiding works is shown by the runtimes that need torch, which must fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtseg import open_source
from rtseg.engine.policy import POLICIES

ROOT = Path(__file__).parents[1]
HIDE = 'import sys\nsys.modules["torch"] = None\n'
CLIP = "synthetic:laparoscopy?width=320&height=240&fps=25&seed=7&seconds=1"
BOX = [{"frame": 0, "id": 1, "label": "tool", "box": [120, 100, 240, 200]}]
RECIPE = 'model = "micro"\nweights = "package:micro"\nimage_size = 224\nruntime = "{}"\n'
FEED = """
source = "synthetic:laparoscopy?width=320&height=240&fps=10&seed=7&seconds=2"
engine = "{}.toml"
[publish]
bind = "tcp://127.0.0.1:*"
[[object]]
id = 1
box = [120, 100, 240, 200]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip of three frames, prompts, a recipe and a feed of each runtime; and what hides torch."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "hidden").mkdir()
    (folder / "hidden/sitecustomize.py").write_text(HIDE)
    (folder / "clip").mkdir()
    for frame, _ in zip(open_source(CLIP), range(3), strict=False):
        cv2.imwrite(str(folder / f"clip/{frame.seq}.png"), frame.image_hwc[..., ::-1])
    (folder / "prompts.json").write_text(json.dumps(BOX))
    for runtime in ("onnx", "torch", "cpu", "auto"):
        (folder / f"{runtime}.toml").write_text(RECIPE.format(runtime))
        (folder / f"feed-{runtime}.toml").write_text(FEED.format(runtime))
    return folder


def python(place: Path, *arguments: str, hidden: bool = True) -> subprocess.CompletedProcess[str]:
    paths = [str(place / "hidden")] * hidden + [str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def rtseg(place: Path, *arguments: str) -> tuple[int, dict[str, Any], list[str]]:
    """A verb without torch: its exit code, its document, and what it wrote to stderr."""
    code = "import sys\nfrom rtseg.cli import main\nsys.exit(main())"
    done = python(place, "-c", code, *arguments, "--json")
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


PEAK = """
import atexit, re, sys
from pathlib import Path
# Not ru_maxrss: it begins with what the process had that forked this one.
status = Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1], file=sys.stderr))
exec(sys.argv.pop(1))
"""


def memory(place: Path, code: str, *words: str) -> float:
    """The most memory in MB of a process that has torch, and runs this code."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK, code, *words]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1]) / 1024


# Points, a box, a mask, a correction, three objects of which one comes late; then the banks are full.
TRACKED = """
import json, sys
import numpy as np
import rtseg

runtime, policies, out = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
engine = rtseg.open_engine(f"{runtime}.toml", precision="fp32")
frames = [frame for frame, _ in zip(rtseg.open_source(sys.argv[4]), range(12))]
mask_hw = np.zeros((240, 320), bool)
mask_hw[40:100, 30:90] = True
seen = {}
for policy in policies:
    tracker = rtseg.Tracker(engine, policy)
    tracker.prompt(1, points=[(180, 150, 1), (20, 20, 0)])
    tracker.prompt(2, box=(120, 100, 240, 200))
    for n, frame in enumerate(frames):
        if n == 3:
            tracker.prompt(3, mask=mask_hw)
        if n == 6:
            tracker.prompt(1, points=[(150, 120, 1)])
        masks = tracker.step(frame)
        seen[f"{policy}-{n}"] = np.stack([masks.mask(i) for i in masks.ids])
np.savez(out, **seen)
print(json.dumps({"torch": sys.modules.get("torch") is not None, "engine": engine.description}))
"""


def tracked(place: Path, runtime: str, policies: tuple[str, ...], hidden: bool) -> tuple[dict[str, Any], Any]:
    (place / "tracked.py").write_text(TRACKED)
    out = place / f"{runtime}-{len(policies)}.npz"
    done = python(place, "tracked.py", runtime, ",".join(policies), str(out), CLIP, hidden=hidden)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), np.load(out)


def iou(one: Any, other: Any) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


@pytest.mark.slow
def test_every_policy_tracks_as_the_reference_does(place: Path) -> None:
    facts, found = tracked(place, "onnx", tuple(POLICIES), hidden=True)
    assert facts["engine"].startswith("onnx") and not facts["torch"]
    facts, expected = tracked(place, "torch", tuple(POLICIES), hidden=False)
    assert facts["torch"]
    assert found.files == expected.files and len(found.files) == 12 * len(POLICIES)
    ious = [iou(one, other) for name in found.files for one, other in zip(found[name], expected[name], strict=True)]
    assert min(ious) > 0.95 and np.mean(ious) > 0.995
    # The negative control: were a frame late, it would show.
    late = [iou(found[f"fifo-{n}"][0], expected[f"fifo-{n + 1}"][0]) for n in range(3)]
    assert min(late) < 0.95


def test_torch_is_not_imported_although_it_is_there(place: Path) -> None:
    facts, _ = tracked(place, "onnx", ("efp",), hidden=False)
    assert not facts["torch"]


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_a_recording_is_segmented(place: Path, runtime: str) -> None:
    arguments = (
        "segment",
        "clip",
        "--prompts",
        "prompts.json",
        "--out",
        "out",
        "--force",
        "--engine",
        f"{runtime}.toml",
    )
    code, report, errors = rtseg(place, *arguments)
    assert code == 0, errors
    assert report["frames"]["in"] == 3 and report["engine"].startswith("onnx")
    assert len(list((place / "out/masks").iterdir())) == 3
    assert any(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).any() for path in (place / "out/masks").iterdir())


@pytest.mark.slow
def test_masks_take_less_memory_than_torch_alone(place: Path) -> None:
    code = "from rtseg.cli import main; raise SystemExit(main())"
    words = ["segment", "clip", "--prompts", "prompts.json", "--out", "lean", "--force"]
    words += ["--precision", "fp32", "--engine", "onnx.toml"]
    assert memory(place, code, *words) <= 200 < memory(place, "import torch")


@pytest.mark.parametrize("runtime", ["torch", "cpu"])
def test_what_needs_torch_says_so_in_one_line(place: Path, runtime: str) -> None:
    arguments = ("segment", "clip", "--prompts", "prompts.json", "--out", "none", "--engine", f"{runtime}.toml")
    code, report, errors = rtseg(place, *arguments)
    assert (code, report["kind"], len(errors)) == (2, "EngineError", 1)
    for part in (f'"{runtime}"', "torch", "not installed", "pip install", '"onnx"'):
        assert part in errors[0]
    assert not (place / "none").exists()


@pytest.mark.parametrize("verb", ["train", "build"])
def test_so_do_the_verbs_that_are_made_of_it(place: Path, verb: str) -> None:
    file = {"train": str(ROOT / "engines/training/nano.toml"), "build": "cpu.toml"}[verb]
    more = {"train": ("--data", ".", "--out", "none"), "build": ()}[verb]
    code, _, errors = rtseg(place, verb, file, *more)
    assert (code, len(errors)) == (2, 1), errors
    assert "torch" in errors[0] and "pip install" in errors[0]


def test_a_feed_runs(place: Path) -> None:
    code, report, errors = rtseg(place, "live", "feed-onnx.toml")
    assert code == 0, errors
    assert report["frames"]["shown"] > 0 and report["stages_ms"]["segment"]["count"] > 0


def test_a_feed_that_cannot_is_refused_in_one_line(place: Path) -> None:
    code, report, errors = rtseg(place, "live", "feed-torch.toml")
    assert (code, report["kind"]) == (2, "EngineError")
    assert "not installed" in errors[-1] and '"onnx"' in errors[-1]


def test_the_doctor_says_what_works(place: Path) -> None:
    code, report, errors = rtseg(place, "doctor")
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert code == 0, errors
    assert findings["torch"]["ok"] is None and "not installed" in findings["torch"]["text"]
    assert findings["runtime auto"]["ok"] is True and "onnx" in findings["runtime auto"]["text"]
