"""The public names, and their signatures: a change here is a change for every user, so it has to be made on purpose."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import rtseg

NAMES = {
    "__version__",
    "Client",
    "Engine",
    "Frame",
    "Masks",
    "Message",
    "Prompt",
    "RtsegError",
    "Subscriber",
    "Tracker",
    "open_engine",
    "open_source",
    "register_policy",
}


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_names_are_these() -> None:
    assert set(rtseg.__all__) == NAMES == set(dir(rtseg))
    for name in NAMES:
        assert getattr(rtseg, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'open_sauce'"):
        _ = rtseg.open_sauce


def test_the_signatures_are_these() -> None:
    assert parameters(rtseg.open_engine) == ["recipe", "fetch", "overrides"]
    assert parameters(rtseg.open_source) == ["uri", "fps", "deinterlace", "damaged", "bits", "window", "plane"]
    assert parameters(rtseg.register_policy) == [
        "name", "full_bank", "most", "needs_similarity", "needs_rivals", "compared", "warning",
    ]  # fmt: skip
    assert parameters(rtseg.Tracker) == ["engine", "policy"]
    assert parameters(rtseg.Tracker.prompt) == ["object_id", "points", "box", "mask", "label"]
    assert parameters(rtseg.Tracker.step) == ["frame"]
    assert parameters(rtseg.Tracker.rename) == ["object_id", "label"]
    assert parameters(rtseg.Tracker.remove) == ["object_id"]
    for method in (rtseg.Masks.mask, rtseg.Masks.logits, rtseg.Masks.score, rtseg.Masks.label):
        assert parameters(method) == ["object_id"]
    assert "ids" in [field.name for field in fields(rtseg.Masks)]
    assert [field.name for field in fields(rtseg.Prompt)] == ["id", "points", "box", "mask", "label"]


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, rtseg; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "rtseg" in loaded
    assert not {"torch", "av", "zmq", "cv2"} & set(loaded)


ALONE = """
import sys
for name in ("av", "zmq", "msgpack", "pycocotools", "rich", "PIL", "safetensors", "transformers"):
    sys.modules[name] = None
import numpy as np, torch, rtseg
from rtseg.engine.recipe import load_recipe
from rtseg.sam2 import Sam2, get_preset
torch.save(Sam2(get_preset("nano"), 64).state_dict(), sys.argv[1])
tracker = rtseg.Tracker(rtseg.open_engine(load_recipe(weights=sys.argv[1], image_size=64)))
tracker.prompt(1, points=[(5, 5, 1)])
for _ in range(2):
    masks = tracker.step(np.zeros((40, 60, 3), np.uint8))
print(masks.mask(1).shape)
try:
    rtseg.Subscriber
except ImportError:
    print("hidden")
"""


@pytest.mark.slow
def test_the_network_and_the_tracker_need_only_torch_numpy_and_opencv(tmp_path: Path) -> None:
    """Where every other library is hidden, a tracker still follows an object."""
    command = [sys.executable, "-c", ALONE, str(tmp_path / "x.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["(40, 60)", "hidden"], done.stderr
