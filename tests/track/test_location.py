"""Where the camera turns away from an object, nothing drawn elsewhere is the object; otherwise nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from rtseg import Frame, Tracker
from rtseg.base.types import ImageU8, Masks
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, get_preset
from rtseg.track.cut_detector import SIZE, CutDetector
from rtseg.track.location import Location, follow

from .test_cut_detector import tissue, window
from .test_cuts import AlwaysVisible, seen

Script = Sequence[tuple[float, float] | None]  # where the network draws on each picture, x0 to x1
WORLD = tissue(1, 400, 1300)
WIDTH, SIDE = 320, 32  # of a picture; cells of a mask
OBJECT, TWIN = (100, 180), (500, 580)  # x in the world
AWAY = [100, 100, *range(100, 520, 35), *range(520, 100, -35), 100, 100]  # the camera's x: the twin is in view, or both


class Scripted(AlwaysVisible):
    """A network that draws where a test wants it, from x0 to x1 in pixels of the picture; None: nothing."""

    draws: tuple[float, float] | None = None

    def _drawn(self, decoded: Any) -> Any:
        logits = torch.full_like(decoded.logits_b1hw, -8)
        x0, x1 = (round(max(0, x) * SIDE / WIDTH) for x in self.draws or (0, 0))
        logits[..., 10:20, x0:x1] = 8
        return replace(decoded, logits_b1hw=logits, score_b=torch.full_like(decoded.score_b, 6 if x1 > x0 else -6))


@pytest.fixture()
def scripted() -> Scripted:
    torch.manual_seed(0)
    network = Sam2(get_preset("nano"), 128)
    return Scripted(TorchEngine(network, Recipe(model="nano", image_size=128, runtime="torch"), "", "cpu"))


def follow_camera(
    engine: Scripted, camera: list[int], script: Script, cuts: bool = True
) -> tuple[list[Masks], Tracker]:
    """Masks while the camera is at these x, and the network draws by this script."""
    tracker, masks = Tracker(engine), []
    tracker.cuts = cuts
    tracker.prompt(1, box=(20, 20, 120, 120))
    for i, (x, span) in enumerate(zip(camera, script, strict=True)):
        engine.draws = span
        masks.append(tracker.step(Frame(window(WORLD, x), i)))
    return masks, tracker


def jumping(camera: list[int]) -> Script:
    """What a network draws that takes the twin where the object is out of view."""
    return [(OBJECT[0] - x, OBJECT[1] - x) if OBJECT[1] > x + 10 else (TWIN[0] - x, TWIN[1] - x) for x in camera]


def in_small(span: tuple[int, int], x: int) -> bool:
    return span[1] > x + 10 and span[0] < x + WIDTH - 10


def test_the_twin_is_not_drawn_while_the_camera_looks_elsewhere(scripted: Scripted) -> None:
    masks, tracker = follow_camera(scripted, AWAY, jumping(AWAY))
    there = [in_small(OBJECT, x) for x in AWAY]
    wrong = [i for i, x in enumerate(AWAY) if not there[i] and in_small(TWIN, x)]
    assert len(wrong) > 12
    assert not any(seen(masks[i]) or masks[i].score(1) for i in wrong)
    assert all(masks[i].lost == (1,) for i in wrong)
    assert not any(m.cut for m in masks)
    found = [seen(m) for m, here in zip(masks, there, strict=True) if here]
    assert found.count(False) <= 3 and found[-1] and masks[-1].lost == ()
    assert all(m.seq not in wrong for m in tracker._objects[1].bank.memories)  # nothing of the twin is remembered


def test_without_locations_the_twin_is_drawn(scripted: Scripted) -> None:
    """Negative control of the test above."""
    masks, _ = follow_camera(scripted, AWAY, jumping(AWAY), cuts=False)
    assert all(
        seen(m) and m.lost == ()
        for i, m in enumerate(masks)
        if not in_small(OBJECT, AWAY[i]) and in_small(TWIN, AWAY[i])
    )


@pytest.mark.parametrize("case", ["leaps", "leaves", "followed", "hidden"])
def test_what_moves_by_itself_is_not_lost(scripted: Scripted, case: str) -> None:
    """Negative control: no overlap from one mask to the next, and the same masks as without locations."""
    camera = [400] * 8
    script: Script = [(x, x + 50.0) for x in (0, 120, 240, 60, 270, 0, 150, 200)]
    if case == "leaves":  # over one side, and comes back over the other
        script = [(x, x + 60.0) for x in (40, 0, -40)] + [None] * 2 + [(x, x + 60.0) for x in (260, 220, 180)]
    elif case == "followed":  # by a camera that turns with it
        camera = [100 + 25 * i for i in range(8)]
        script = [(130.0, 200.0), (160.0, 230.0)] * 4
    elif case == "hidden":  # behind something, and comes out on its other side
        script = [(20.0, 80.0)] * 2 + [None] * 3 + [(230.0, 290.0)] * 3
    with_locations, _ = follow_camera(scripted, camera, script)
    plain, _ = follow_camera(scripted, camera, script, cuts=False)
    for one, other in zip(with_locations, plain, strict=True):
        assert one.lost == () and one.scores == other.scores
        assert_array_equal(one.mask_logits_bhw, other.mask_logits_bhw)


def test_a_prompt_overrides_lost(scripted: Scripted) -> None:
    camera = AWAY[:12]
    masks, tracker = follow_camera(scripted, camera, jumping(camera))
    assert masks[-1].lost == (1,)
    tracker.prompt(1, points=[(50, 50, 1)])
    after = [tracker.step(Frame(window(WORLD, camera[-1]), 12 + i)) for i in range(3)]
    assert all(m.lost == () and seen(m) for m in after)


def test_a_fork_of_a_lost_object_is_lost_and_without_locations_it_no_longer_is(scripted: Scripted) -> None:
    camera = AWAY[:12]
    masks, tracker = follow_camera(scripted, camera, jumping(camera))
    fork = tracker.fork([1], 12)
    here = Frame(window(WORLD, camera[-1]), 12)
    assert masks[-1].lost == fork.step(here).lost == tracker.step(here).lost == (1,)
    tracker.cuts = False
    after = tracker.step(Frame(window(WORLD, camera[-1]), 13))
    assert after.lost == () and seen(after)


def test_an_object_may_have_moved_while_out_of_small() -> None:
    logits_hw = np.full((32, 32), -1, np.float32)
    logits_hw[:, 16:20] = 1  # cells 32 to 40 of 64
    gone = Location((-10, 0, -2, 48), 10)
    assert gone.out_of_view and follow(gone, logits_hw, None, None, True)[1]
    assert not follow(replace(gone, unseen=200), logits_hw, None, None, True)[1]


@pytest.mark.parametrize("step", [(10, 0), (-20, 0), (0, 10), (15, -10)])
def test_a_location_moves_with_the_camera(step: tuple[int, int]) -> None:
    pictures = [_small(window(WORLD, 400 + i * step[0], 60 + i * step[1])) for i in range(2)]
    location = Location((20, 20, 30, 30)).moved(*pictures)
    moved = np.subtract(location.box[:2], (20, 20))
    expected = (-step[0] * SIZE[0] / WIDTH, -step[1] * SIZE[1] / 240)
    assert np.abs(moved - expected).max() < 0.5 and location.unseen == 1
    assert Location((20, 20, 30, 30)).moved(pictures[0], pictures[0]).box == (20, 20, 30, 30)


def _small(image_hwc: ImageU8) -> Any:
    return CutDetector().update(image_hwc)[0].picture
