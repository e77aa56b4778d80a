"""What is made once and used by tests in several processes: builds, graphs, drawn clips."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.sam2 import Sam2, get_preset, save_weights
from rtseg.track import Tracker


class Shared:
    """A folder of folders, each made by whoever asks for it first; the others wait for it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of this name, as `make(folder)` left it. What uses it must not change it."""
        made, part = self._root / name, self._root / f"{name}.part"
        self._root.mkdir(exist_ok=True)
        with (self._root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go when it is closed, also by a crash
            if not made.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make(part)
                part.rename(made)
        return made


def plain(tracker: Tracker) -> Tracker:
    """A tracker without rules for cuts and overlaps: with random weights, any two masks may come to cover one thing."""
    tracker.cuts = False
    return tracker


def random_recipe(folder: Path, **keys: Any) -> Recipe:
    """An engine with random weights: quick, and as exact about repetition as a trained one. `keys` of the recipe."""
    torch.manual_seed(0)
    path = folder / "random.safetensors"
    # Random weights of a convolutional trunk make one scene of all: cuts need the features of Hiera.
    save_weights(Sam2(get_preset("nano-hiera"), 64), path)
    return replace(load_recipe(weights=path, image_size=64, **keys), model="nano-hiera")
