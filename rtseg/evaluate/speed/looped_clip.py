"""The frames of a benchmark, read into memory before the clock starts, and the prompts on the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ...base.errors import ConfigError, SourceError
from ...base.prompt_files import load_prompts
from ...base.types import BoolMask, Frame, Prompt
from ...grab import Source, open_source
from ...synthetic import HELD_OUT_SEED

SYNTHETIC = f"synthetic:laparoscopy?seed={HELD_OUT_SEED + 10}"
MOST_FRAMES = 64  # frames in memory at most: 230 MB at 720p; a longer benchmark plays them forwards and backwards


@dataclass(frozen=True, slots=True, eq=False)
class LoopedClip:
    """Frames in memory, played forwards and backwards without end, and a prompt for each object on the first one.

    `knows_truth`: the prompts are true masks, and every frame has the truth of their objects in `truth_hw`.
    """

    source: str
    frames: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]
    knows_truth: bool = False

    def frame(self, step: int) -> Frame:
        """The frame of a step. Steps go to the end of the clip, back to its beginning, and so on, without a jump."""
        last = len(self.frames) - 1
        return self.frames[last - abs(last - step % (2 * last))] if last else self.frames[0]

    def prompt(self, object_id: int) -> Prompt:
        """The prompt of object 1, 2, ... If there are more objects than prompts, several share one.

        This is allowed, because the time of a frame does not depend on where its objects are.
        """
        return replace(self.prompts[(object_id - 1) % len(self.prompts)], id=object_id)

    def click(self, object_id: int, step: int) -> tuple[float, float, int]:
        """A click on this object, as a person would place it, on the frame of this step."""
        prompt, truth_hw = self.prompts[(object_id - 1) % len(self.prompts)], self.frame(step).truth_hw
        if self.knows_truth and truth_hw is not None and (truth_hw == prompt.id).any():
            return _thickest(truth_hw == prompt.id)
        if prompt.mask is not None:
            return _thickest(prompt.mask)
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            return (x0 + x1) / 2, (y0 + y1) / 2, 1
        return next(point for point in prompt.points if point[2] == 1)


def load_clip(uri: str | None, prompts: Path | None = None, most: int = MOST_FRAMES) -> LoopedClip:
    """The first frames of a source (None: a synthetic endoscope), with prompts for its first frame.

    The prompts are those of the file `prompts`, if it is given; else the true masks, if the source has them; else one
    box in the middle of the picture. Raises `SourceError`, `ConfigError` or `PromptError`.
    """
    uri = uri or SYNTHETIC
    with closing(_open(uri)) as source:
        frames = tuple(islice(iter(source), most))
    if not frames:
        raise SourceError(f"{uri}: holds no frame; expected at least one")
    given = tuple(_given(prompts, frames[0]) if prompts else _found(uri, frames[0]))
    return LoopedClip(uri, frames, given, knows_truth=prompts is None and all(f.truth_hw is not None for f in frames))


def _open(uri: str) -> Source:
    try:
        return open_source(uri)
    except ImportError as e:
        raise SourceError(f"{uri}: a video file needs PyAV (pip install av); {SYNTHETIC} needs nothing") from e


def _given(path: Path, first: Frame) -> Iterator[Prompt]:
    prompts = load_prompts(path).get(first.seq, [])
    if not prompts:
        raise ConfigError(f"{path}: no prompt on frame {first.seq}, with which the benchmark begins; expected one")
    for prompt in prompts:
        prompt.check(first.height, first.width, first=True)
        yield prompt


def _found(uri: str, first: Frame) -> Iterator[Prompt]:
    """The true masks of a frame or, if they are unknown, a box of half its size in the middle."""
    if first.truth_hw is None:
        width, height = first.width, first.height
        yield Prompt(1, box=(width / 4, height / 4, 3 * width / 4, 3 * height / 4))
        return
    ids = [int(i) for i in np.unique(first.truth_hw) if i]
    if not ids:
        raise ConfigError(f"{uri}: no instrument is visible on its first frame; expected one: try another seed")
    for i in ids:
        yield Prompt(i, mask=first.truth_hw == i)


def _thickest(mask_hw: BoolMask) -> tuple[float, float, int]:
    """A click at the point of the mask that is farthest from its edge."""
    depth_hw = cv2.distanceTransform(np.pad(mask_hw, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = divmod(int(np.argmax(depth_hw)), mask_hw.shape[1])
    return float(x), float(y), 1
