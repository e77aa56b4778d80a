"""Nothing grows: 3,000 frames need no more memory than 500 did, with objects that come, are corrected, and go.

Each run is a process of its own (this file, run as a script), so that nothing but the tracker is measured. The policies
that are not the default run over an engine that computes nothing: what a tracker keeps does not depend on the numbers.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtseg import Tracker
from rtseg.engine import Decoded, Engine, Features, PromptBatch, Recall, Remembered
from rtseg.engine.base import Verbs
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, get_preset
from rtseg.track import Bank, Memory
from rtseg.track.bank import Update

pytestmark = pytest.mark.slow
FRAMES, SETTLED = 3000, 500
LIMIT = 0.01  # of the process's memory
BREAK = 100  # frames in which a second object is added and removed again
NANO = get_preset("nano-hiera")
RECIPE = Recipe(image_size=64, max_objects=2)


class Hollow(Verbs):
    """An engine with `nano`'s shapes at 64 px and random answers."""

    recipe, preset, image_size, weights_hash, description = RECIPE, NANO, 64, "", "hollow"

    def encode_image(self, image_hwc: np.ndarray) -> Features:
        return Features(torch.randn(1, 128, 4, 4), torch.randn(1, 32, 8, 8), torch.randn(1, 16, 16, 16))

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> torch.Tensor:
        return torch.randn(len(recalls), 128, 4, 4)

    def decode(self, conditioned_bchw: torch.Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        b = len(conditioned_bchw)
        return Decoded(torch.randn(b, 1, 16, 16), torch.ones(b), torch.randn(b), torch.randn(b, 128))

    def remember(
        self, features: Features, logits_b1hw: torch.Tensor, score_b: torch.Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        return [Remembered(torch.randn(64, 4, 4)) for _ in prompted]


def shallow() -> TorchEngine:
    """`nano`'s memory in a shallower network: what a frame leaves behind is the same, in half the time."""
    less = {"embed_dim": 8, "stages": (1, 1, 1, 1), "global_blocks": (), "windows": (8, 4, 4, 2)}
    return TorchEngine(Sam2(replace(NANO, **less, attention_layers=1), 64), RECIPE, "", "cpu")


def resident_pages() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1])


def follow(engine: Engine, policy: str) -> list[int]:
    """Memory of the process in pages, every `BREAK` frames from frame `SETTLED` on."""
    tracker = Tracker(engine, policy)
    pictures = np.random.default_rng(0).integers(0, 255, (7, 72, 96, 3), dtype=np.uint8)
    pages = []
    for t in range(FRAMES + 1):
        if t >= SETTLED and t % BREAK == 0:
            pages.append(resident_pages())
        prompt_and_remove(tracker, t)
        tracker.step(pictures[t % len(pictures)]).mask(1)
    return pages


def prompt_and_remove(tracker: Tracker, t: int) -> None:
    """What users do: a second object is added, the first is corrected, the second is removed; then all over again."""
    if t == 0:
        tracker.prompt(1, points=[(40, 30, 1)])
    elif t % BREAK == 20:
        tracker.prompt(2, box=(10, 10, 60, 50), label=f"object of frame {t}")
    elif t % BREAK == 40:
        tracker.prompt(1, points=[(5, 5, 0)])
    elif t % BREAK == 80:
        tracker.remove(2)


def forget_nothing() -> None:
    """Break every bank: what enters one stays in memory."""
    kept: list[Memory] = []
    apply = Bank.apply

    def apply_and_keep(bank: Bank, update: Update) -> None:
        kept.append(update.new)
        apply(bank, update)

    Bank.apply = apply_and_keep  # type: ignore[method-assign]


def growth(*arguments: str) -> float:
    """How much the memory of a run has grown since frame `SETTLED`, at most, as a share."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    pages = json.loads(done.stdout)
    assert len(pages) == (FRAMES - SETTLED) // BREAK + 1
    return max(pages) / pages[0] - 1


@pytest.mark.parametrize(("engine", "policy"), [("shallow", "efp"), ("hollow", "fifo"), ("hollow", "efp-window")])
def test_memory_does_not_grow(engine: str, policy: str) -> None:
    assert growth(engine, policy) < LIMIT


def test_a_tracker_that_forgets_nothing_is_noticed() -> None:
    assert growth("hollow", "efp", "leak") > LIMIT


if __name__ == "__main__":
    if "leak" in sys.argv:
        forget_nothing()
    torch.manual_seed(0)
    print(json.dumps(follow(shallow() if sys.argv[1] == "shallow" else Hollow(), sys.argv[2])))
