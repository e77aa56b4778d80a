"""Checks of the tracker's inputs, and the merging of prompts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ..base.errors import PromptError, SourceError, short
from ..base.schema import plain
from ..base.types import Frame, Prompt


def merged(before: Prompt | None, prompt: Prompt) -> Prompt:
    """Two prompts for one object on one frame as one: a mask replaces points and boxes, and they replace a mask."""
    if before is None:
        return prompt
    prompt = replace(prompt, label=prompt.label or before.label)
    if prompt.mask is not None or before.mask is not None:
        return prompt
    return replace(prompt, points=before.points + prompt.points, box=prompt.box or before.box)


def check_picture(frame: Frame) -> None:
    """Raise `SourceError` unless the picture is uint8 [H, W, 3] and not empty."""
    image = frame.image_hwc
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"{image.dtype}, {' x '.join(map(str, image.shape))}"
        raise SourceError(f"frame {frame.seq} is {found}; expected uint8, H x W x 3, RGB")


def check_prompts(prompts: dict[int, Prompt], known: Collection[int], frame: Frame) -> None:
    """Raise `PromptError` for a prompt that does not fit the frame, and drop it. `known`: ids with an object."""
    for prompt in prompts.values():
        try:
            prompt.check(frame.height, frame.width, first=prompt.id not in known)
        except PromptError:
            del prompts[prompt.id]
            raise


def as_frame_number(seq: object) -> int:
    """The number of a frame as an int. Raises `PromptError` if `seq` is no whole number."""
    number = plain(seq)
    if type(number) is not int:
        raise PromptError(f"fork: seq = {short(seq)}; expected the number of a frame")
    return number
