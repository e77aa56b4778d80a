"""The clips of the parity check: a synthetic one, made to be hard for a memory bank, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from ..base.errors import PromptError, SourceError
from ..base.prompt_files import load_prompts
from ..base.types import BoolMask, Frame, ImageU8, Prompt
from ..grab import open_source
from ..synthetic import HELD_OUT_SEED

# A held-out scene that both shipped networks track well (IoU with the truth 0.87 and 0.88). Where a network fails to
# track, rounding alone decides its masks, and engines cannot be compared.
SEED = HELD_OUT_SEED + 49
FPS = 25
FRAMES = 64  # four times what any object remembers
MOST_FRAMES = 240  # frames that are read of the user's clip
CALIBRATION = 32  # frames of another seed, so that no engine is checked on the pictures that it was calibrated on

PromptsByFrame = Mapping[int, Sequence[Prompt]]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A short video with prompts.

    Each call of `frames` yields the frames from the first one. `prompts` maps a frame's seq to its prompts. `count` is
    the number of frames, if known. `truths` maps an object's id to its id in the frames' `truth_hw`, if they have one.
    """

    name: str
    frames: Callable[[], Iterator[Frame]]
    prompts: PromptsByFrame
    count: int | None = None
    truths: Mapping[int, int] = field(default_factory=dict)


def synthetic_clip(image_size: int, objects: int) -> Clip:
    """A scene with two instruments, each tracked once or twice: `objects` objects, but four at most.

    Objects are prompted at different times (so that no two banks are alike), by masks and by boxes; one is corrected
    later; the last frame is black, and nothing is visible.
    """
    source = open_source(_uri(image_size, SEED, FRAMES))

    def frames() -> Iterator[Frame]:
        for frame in source:
            yield _dark(frame) if frame.seq == FRAMES - 1 else frame

    # By frame: an object's id, its instrument, and the kind of prompt.
    script = {0: (1, 1, "mask"), 4: (2, 2, "mask"), 8: (3, 1, "box"), 12: (4, 2, "box"), 24: (1, 1, "mask")}
    prompts = {}
    for frame in islice(source, max(script) + 1):
        if frame.seq in script and frame.truth_hw is not None:
            i, tool, kind = script[frame.seq]
            if i <= objects:
                prompts[frame.seq] = [_prompt(i, frame.truth_hw == tool, kind)]
    return Clip("synthetic", frames, prompts, FRAMES, {i: tool for i, tool, _ in script.values() if i <= objects})


def user_clip(uri: str, prompts: Path | None, objects: int) -> Clip:
    """The first frames of the user's clip with the prompts of a file, or with boxes at fixed places without one.

    Raises `SourceError` for a clip without frames, `PromptError` for prompts that do not fit it.
    """
    with closing(open_source(uri)) as source:
        first = next(iter(source), None)
    if first is None:
        raise SourceError(f"{uri}: holds no frame; expected at least one")
    given = dict(_read(prompts, objects)) if prompts else {first.seq: _boxes(first, objects)}
    count = None if source.frame_count is None else min(source.frame_count, MOST_FRAMES)
    last = max(given)
    if last >= (count or MOST_FRAMES):
        most = count or MOST_FRAMES
        raise PromptError(f"{prompts}: prompt on frame {last}; expected one of the first {most} frames of {uri}")

    def frames() -> Iterator[Frame]:
        with closing(open_source(uri)) as opened:
            yield from islice(opened, MOST_FRAMES)

    return Clip(str(uri), frames, given, count)


def calibration_images(image_size: int, clip: Clip | None) -> list[ImageU8]:
    """Pictures to calibrate eight-bit precisions on: of a synthetic scene that no check uses, and of `clip`."""
    with closing(open_source(_uri(image_size, SEED + 1, CALIBRATION))) as source:
        images = [frame.image_hwc for frame in source]
    return images + [frame.image_hwc for frame in islice(clip.frames(), CALIBRATION)] if clip else images


def _uri(size: int, seed: int, frames: int) -> str:
    seconds = Fraction(frames, FPS)
    return f"synthetic:laparoscopy?seed={seed}&seconds={seconds}&fps={FPS}&width={size}&height={size}"


def _dark(frame: Frame) -> Frame:
    blank = np.zeros_like(frame.image_hwc)
    return replace(frame, image_hwc=blank, truth_hw=None if frame.truth_hw is None else np.zeros_like(frame.truth_hw))


def _prompt(i: int, mask_hw: BoolMask, kind: str) -> Prompt:
    if kind == "mask":
        return Prompt(i, mask=mask_hw)
    rows, columns = np.nonzero(mask_hw)
    return Prompt(i, box=(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)))


def _read(path: Path, objects: int) -> PromptsByFrame:
    prompts = load_prompts(path)
    known = {prompt.id for on_frame in prompts.values() for prompt in on_frame}
    if len(known) > objects:
        raise PromptError(f"{path}: {len(known)} objects; the recipe says max_objects = {objects}; raise it")
    return prompts


def _boxes(frame: Frame, objects: int) -> list[Prompt]:
    """Boxes to track if no prompts are given: the middle of the picture, then its left and its right half."""
    w, h = frame.width, frame.height
    boxes = [
        (w / 4, h / 4, 3 * w / 4, 3 * h / 4),
        (w / 16, h / 4, w / 2, 3 * h / 4),
        (w / 2, h / 4, 15 * w / 16, 3 * h / 4),
    ]
    return [Prompt(i, box=box) for i, box in enumerate(boxes[:objects], 1)]
