"""What the parity gate watches: a synthetic clip that is made to be hard on a memory bank, or the user's own."""

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
from ..grab import HELD_OUT_SEED, open_source

# A held-out scene that both shipped networks follow well (IoU with the truth 0.87 and 0.88). Where they are lost, masks
# are chance, and rounding decides them: a clip for telling engines apart is one that the network can follow.
SEED = HELD_OUT_SEED + 49
FPS = 25
FRAMES = 64  # four times what any object remembers
MOST_FRAMES = 240  # of the user's clip
CALIBRATION = 32  # frames of another seed: an engine is not proved on what it was calibrated on

Prompts = Mapping[int, Sequence[Prompt]]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames, from the first at each call of `frames`; what is said on which; objects' ids in the truth, if known."""

    name: str
    frames: Callable[[], Iterator[Frame]]
    prompts: Prompts
    count: int | None = None
    truths: Mapping[int, int] = field(default_factory=dict)


def synthetic_clip(image_size: int, objects: int) -> Clip:
    """Two instruments, each followed once or twice, up to `objects` (four at most).

    Objects come at different times (so that no two banks look alike), from masks and from boxes; one is corrected
    half-way; and on the last frame the light is out, and nothing is to be seen.
    """
    source = open_source(_uri(image_size, SEED, FRAMES))

    def frames() -> Iterator[Frame]:
        for frame in source:
            yield _dark(frame) if frame.seq == FRAMES - 1 else frame

    plan = {0: (1, 1, "mask"), 4: (2, 2, "mask"), 8: (3, 1, "box"), 12: (4, 2, "box"), 24: (1, 1, "mask")}
    prompts = {}
    for frame in islice(source, max(plan) + 1):
        if frame.seq in plan and frame.truth_hw is not None:
            i, tool, kind = plan[frame.seq]
            if i <= objects:
                prompts[frame.seq] = [_prompt(i, frame.truth_hw == tool, kind)]
    return Clip("synthetic", frames, prompts, FRAMES, {i: tool for i, tool, _ in plan.values() if i <= objects})


def user_clip(uri: str, prompts: Path | None, objects: int) -> Clip:
    """The first frames of the user's clip with the prompts of a file; without one, boxes that stand in for objects.

    Raises `SourceError` or `PromptError`.
    """
    with closing(open_source(uri)) as source:
        first = next(iter(source), None)
    if first is None:
        raise SourceError(f"{uri}: holds no frame; expected at least one")
    given = dict(_read(prompts, objects)) if prompts else {first.seq: _boxes(first, objects)}
    count = None if source.frame_count is None else min(source.frame_count, MOST_FRAMES)
    last = max(given)
    if last >= (count or MOST_FRAMES):
        raise PromptError(
            f"{prompts}: prompt on frame {last}; the gate watches the first {count or MOST_FRAMES} of {uri}"
        )

    def frames() -> Iterator[Frame]:
        with closing(open_source(uri)) as opened:
            yield from islice(opened, MOST_FRAMES)

    return Clip(str(uri), frames, given, count)


def calibration(image_size: int, clip: Clip | None) -> list[ImageU8]:
    """Pictures to calibrate eight-bit precisions on: a synthetic scene that the gate does not show, and the user's."""
    with closing(open_source(_uri(image_size, SEED + 1, CALIBRATION))) as source:
        pictures = [frame.image_hwc for frame in source]
    return pictures + [frame.image_hwc for frame in islice(clip.frames(), CALIBRATION)] if clip else pictures


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


def _read(path: Path, objects: int) -> Prompts:
    prompts = load_prompts(path)
    known = {prompt.id for on_frame in prompts.values() for prompt in on_frame}
    if len(known) > objects:
        raise PromptError(f"{path}: {len(known)} objects; the recipe says max_objects = {objects}; raise it")
    return prompts


def _boxes(frame: Frame, objects: int) -> list[Prompt]:
    """The middle of the picture, then its left and its right half: nobody said what matters there."""
    w, h = frame.width, frame.height
    boxes = [
        (w / 4, h / 4, 3 * w / 4, 3 * h / 4),
        (w / 16, h / 4, w / 2, 3 * h / 4),
        (w / 2, h / 4, 15 * w / 16, 3 * h / 4),
    ]
    return [Prompt(i, box=box) for i, box in enumerate(boxes[:objects], 1)]
