"""The network of the oracle (see tests/sam2/conftest.py) under a tracker of ours, and a driver for theirs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, get_preset, load_weights

_SPEC = importlib.util.spec_from_file_location("sam2_oracle", Path(__file__).parents[1] / "sam2" / "conftest.py")
assert _SPEC and _SPEC.loader
oracle = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(oracle)
SIZE: int = oracle.SIZE


@pytest.fixture(scope="session")
def tracked_pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """(`theirs`, `engine`): transformers' model and an engine of ours with the same weights."""
    theirs = oracle.hf_model(oracle.SMALL, seed=6)
    folder = tmp_path_factory.mktemp("tracked")
    theirs.save_pretrained(folder)
    network = Sam2(oracle.SMALL, SIZE)
    load_weights(network, folder / "model.safetensors")
    recipe = Recipe(model="small", image_size=SIZE, runtime="torch")
    return SimpleNamespace(theirs=theirs, engine=TorchEngine(network, recipe, "", "cpu"))


@pytest.fixture(scope="session")
def video() -> np.ndarray:
    """30 frames of moving coloured blobs, uint8 [30, 128, 128, 3]."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    frames = []
    for t in range(30):
        planes = [np.sin(7 * x + 0.15 * t + c) * np.cos(5 * y - 0.1 * t * (c - 1)) for c in range(3)]
        disc = np.hypot(x - 0.4 - 0.01 * t, y - 0.5) < 0.17
        frame = np.stack(planes, -1) * 90 + 128
        frame[disc] = (230, 60, 40)
        frames.append(frame.astype(np.uint8))
    return np.stack(frames)


@pytest.fixture()
def small_engine() -> TorchEngine:
    """A nano network with fixed random weights at 64 px: quick, for tests of behaviour."""
    torch.manual_seed(0)
    network = Sam2(get_preset("nano"), 64)
    return TorchEngine(network, Recipe(model="nano", image_size=64, runtime="torch"), "", "cpu")
