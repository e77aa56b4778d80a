"""The backward pass gives the masks of Meta's own video predictor, asked for `reverse=True`; random weights."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
import torch

pytest.importorskip("sam2", reason="Meta's sam2 is not installed; the Makefile says how, and `make test` does it")

from rtseg import Tracker
from rtseg.base.rle import decode_rle
from rtseg.base.timing import Stages
from rtseg.base.types import Frame, Masks, Prompt
from rtseg.offline.direction_pass import BackwardPass
from rtseg.offline.direction_records import Records
from tests.shared import plain
from tests.track.conftest import video  # noqa: F401  # a fixture
from tests.track.test_meta import DISC, SMALL_21, Said, iou, pair, their_tracks

pytestmark = pytest.mark.slow
LAST = 24
PROMPTS: dict[str, Said] = {
    "point": {LAST: {"points": [(51, 64, 1)]}, 14: {"points": [(70, 64, 1), (10, 100, 0)]}},
    "mask": {LAST: {"mask": DISC}, 14: {"mask": np.roll(DISC, 13, axis=1)}},
}


class Unfitted(Tracker):
    """Masks as the network draws them, before their edges are fitted to the picture, as theirs are."""

    def step(self, frame: Any) -> Masks:
        return replace(super().step(frame), guide=None)


class Shown:
    """The frames of a video in memory."""

    def __init__(self, frames_thwc: np.ndarray) -> None:
        self._frames_thwc = frames_thwc
        self.uri, self.height, self.width, self.fps, self.session = "video", *frames_thwc.shape[1:3], 25.0, ""
        self.count, self.sample_aspect = len(frames_thwc), Fraction(1)

    def frame(self, number: int) -> Frame:
        return Frame(self._frames_thwc[number], number)

    def near(self, number: int) -> int:
        return number

    def seconds(self, number: int) -> float:
        return number / 25

    def number_at(self, seconds: float) -> int:
        return round(seconds * 25)

    def again(self, *, backward: bool = False) -> Self:
        return self

    def close(self) -> None:
        """Nothing is open."""


def our_masks(engine: Any, frames_thwc: np.ndarray, said: Said, folder: Path) -> dict[int, torch.Tensor]:
    prompts = {t: [Prompt(1, **keywords)] for t, keywords in said.items()}
    records = Records(folder / "records.sqlite")
    tracker = plain(Unfitted(engine, "fifo"))
    BackwardPass(Shown(frames_thwc), tracker, prompts, records, Stages("segment", "write")).run()
    found = {t: records.masks(t)[1] for t in range(LAST + 1)}
    records.close()
    return {t: torch.from_numpy(decode_rle(mask.rle, *frames_thwc.shape[1:3])).float() for t, mask in found.items()}


@pytest.fixture(scope="module")
def both() -> SimpleNamespace:
    return pair(SMALL_21, "sam2.1/sam2.1_hiera_t")


@pytest.mark.parametrize("name", PROMPTS)
def test_backward_gives_the_masks_of_their_reverse_propagation(
    tmp_path: Path,
    both: SimpleNamespace,
    video: np.ndarray,  # noqa: F811
    name: str,
) -> None:
    said = PROMPTS[name]
    theirs = their_tracks(both.theirs, video, {1: said}, back=True)[1].full
    assert sorted(theirs) == list(range(LAST + 1))
    ours = our_masks(both.engine, video, said, tmp_path)
    assert min(iou(ours[t], theirs[t]) for t in theirs) >= 0.999
    assert all(0.01 < float((logits > 0).float().mean()) < 0.99 for logits in theirs.values())
    # Negative control: without the correction on its way, the masks behind it are others.
    (tmp_path / "other").mkdir()
    other = our_masks(both.engine, video, {LAST: said[LAST]}, tmp_path / "other")
    assert min(iou(other[t], theirs[t]) for t in range(15, LAST + 1)) >= 0.999
    assert min(iou(other[t], theirs[t]) for t in range(14)) < 0.99
