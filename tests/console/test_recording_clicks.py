"""One grasper through a clip in which gauze covers it twice: at most three clicks, given by a script."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import rtseg
from rtseg.base.types import BoolMask, Prompt
from rtseg.console.recording_session import Session
from rtseg.engine.recipe import load_recipe
from rtseg.publish import Mp4Writer

SOURCE = "synthetic:laparoscopy?seconds=6&seed=10003&width=640&height=360&fps=25"
COVERED = ((45, 60), (95, 110))  # frames on which nothing of the grasper is seen
MOST_CLICKS, ENOUGH = 3, 0.7


def made(path: Path) -> list[BoolMask]:
    """Write the clip. Returns where its largest instrument is seen on each frame."""
    frames = list(rtseg.open_source(SOURCE))
    first = frames[0].truth_hw
    assert first is not None
    tool = int(np.bincount(first[first > 0]).argmax())
    seen = []
    with Mp4Writer(path, 640, 360, 25) as video:
        for frame in frames:
            assert frame.truth_hw is not None
            mask_hw, image_hwc = frame.truth_hw == tool, frame.image_hwc.copy()
            if any(a <= frame.seq < b for a, b in COVERED):
                cover_hw = cv2.dilate(mask_hw.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
                image_hwc[cover_hw] = (225, 215, 205)
                mask_hw = np.zeros_like(mask_hw)
            video.write(image_hwc, frame.seconds)
            seen.append(mask_hw)
    return seen


def middle(wrong_hw: BoolMask) -> tuple[float, float]:
    """The point that lies deepest in an area."""
    depth_hw = cv2.distanceTransform(np.pad(wrong_hw.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth_hw.argmax()), depth_hw.shape)
    return float(x), float(y)


def click(session: Session, number: int, truth_hw: BoolMask) -> None:
    """Click where the mask is worst, and carry it on."""
    known = session.state.find(1)
    frame = session.frames.frame(number)
    mask_hw = session.masks(frame).mask(1) if known else np.zeros_like(truth_hw)
    missing, extra = truth_hw & ~mask_hw, mask_hw & ~truth_hw
    label = int(missing.sum() >= extra.sum())
    session.prompt(Prompt(1, points=[(*middle(missing if label else extra), label)], label="grasper"), number)
    session.track("forward")
    session.worker.wait()


def ious(session: Session, truth: list[BoolMask]) -> dict[int, float]:
    found = {}
    for number, truth_hw in enumerate(truth):
        if truth_hw.any():
            mask_hw = session.masks(session.frames.frame(number)).mask(1)
            found[number] = float((mask_hw & truth_hw).sum() / (mask_hw | truth_hw).sum())
    return found


@pytest.mark.slow
def test_three_clicks_mask_a_grasper_through_two_occlusions(tmp_path: Path) -> None:
    truth = made(tmp_path / "clip.mp4")
    figures = []
    with Session(tmp_path / "clip.mp4", load_recipe(None), tmp_path / "session") as session:
        worst = 0
        for clicks in range(1, MOST_CLICKS + 1):
            click(session, worst, truth[worst])
            by_frame = ious(session, truth)
            figures.append((clicks, round(float(np.mean(list(by_frame.values()))), 3)))
            print(figures[-1], min(by_frame.items(), key=lambda each: each[1]))
            if figures[-1][1] >= ENOUGH:
                break
            worst = min(by_frame, key=lambda number: by_frame[number])
        covered = [session.masks(session.frames.frame(n)).mask(1).mean() for a, b in COVERED for n in range(a + 2, b)]
        assert np.median(covered) < 0.01  # what is not seen is not masked
    assert figures[-1][1] >= ENOUGH, figures
