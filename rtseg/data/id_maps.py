"""Label maps: one PNG per frame, whose numbers are the ids of objects or classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from ..base.errors import SourceError
from ..base.prompt_schema import MAX_ID
from ..base.types import BoolMask, ImageU8
from .dataset import Truth
from .files import as_ids, check_size, masks_by_id, read_map

MAX_IDS = 128  # ids in one frame: annotators draw fewer objects, and a smoothed edge mostly has more grey values
MANY_IDS = 64  # of more than these, a map is looked at
THIN = 0.1  # in smoothed edges, at most this share of the grey pixels has only equal neighbours

Check = Callable[
    [int, tuple[int, ...], Path], None
]  # (frame, shape, path): raises if a map of this shape does not match the frame


def read_ids(path: Path) -> ImageU8:
    """A map of ids, uint8 [H, W]. Raises `SourceError` unless each is from 0 to 255."""
    return as_ids(read_map(path), path)


def read_binary(path: Path, picture: Path) -> BoolMask:
    """The mask, bool [H, W], where a map is not 0. Raises `SourceError` unless it has the size of its image."""
    values_hw = read_map(path)
    check_size(values_hw.shape, path, picture)
    return np.asarray(values_hw > 0, np.bool_)


def size_check(pictures: list[Path]) -> Check:
    """A check that a map has the size of the image of its frame."""
    return lambda t, shape, path: check_size(shape, path, pictures[t])


class IdMaps:
    """The label maps of one sequence by frame, read on demand. An id is the same object on all frames.

    If the first map that is not empty holds only 255, the sequence has one object, drawn as 255, with the id 1.
    Otherwise 255 is an object; with `ignore_255` it is the ignore label, which counts as background, as in the
    evaluator of DAVIS 2017 (davis.py). `wanted` are the ids that are objects; None: all.
    """

    def __init__(
        self, maps: Mapping[int, Path], check: Check, ignore_255: bool = False, wanted: frozenset[int] | None = None
    ) -> None:
        self._maps, self._check, self._ignore_255, self._wanted = maps, check, ignore_255, wanted

    def truth(self, t: int) -> Truth | None:
        """The masks of frame t by id; None if it has no map."""
        if t not in self._maps:
            return None
        masks = self._read(t)
        if self._single:
            return {1: masks[MAX_ID]} if MAX_ID in masks else {}
        if self._ignore_255:
            masks.pop(MAX_ID, None)
        return {i: mask for i, mask in masks.items() if self._wanted is None or i in self._wanted}

    @cached_property
    def _single(self) -> bool:
        shown = (set(self._read(t)) for t in sorted(self._maps))
        return next((ids == {MAX_ID} for ids in shown if ids), False)

    def _read(self, t: int) -> dict[int, BoolMask]:
        ids_hw = read_ids(self._maps[t])
        self._check(t, ids_hw.shape, self._maps[t])
        _check_ids(ids_hw, masks := masks_by_id(ids_hw), self._maps[t])
        return masks


def _check_ids(ids_hw: ImageU8, ids: Collection[int], path: Path) -> None:
    """Raise `SourceError` for a white object with smoothed edges, whose grey values would be read as objects."""
    many = len(ids) > MANY_IDS or (MAX_ID in ids and any(MANY_IDS < i < MAX_ID for i in ids))
    if len(ids) > MAX_IDS or (many and _thin(ids_hw)):
        raise SourceError(
            f"{path}: holds {len(ids)} different numbers, which look like smoothed edges; expected "
            f"one for each object, at most {MAX_IDS}: threshold the masks, and save them as PNG without smoothing"
        )


def _thin(ids_hw: ImageU8) -> bool:
    """Whether grey values form only lines: few of their pixels have equal neighbours, unlike those of an object."""
    grey_hw = (ids_hw > 0) & (ids_hw < MAX_ID)
    around = np.ones((3, 3), np.uint8)
    equal_hw = cv2.erode(ids_hw, around) == cv2.dilate(ids_hw, around)
    return float((equal_hw & grey_hw).sum()) < THIN * float(grey_hw.sum())


def class_truth(
    pictures: list[Path], maps: Mapping[int, Path], decode: Callable[[Path], ImageU8]
) -> Callable[[int], Truth | None]:
    """The ground truth of a sequence with one object per class; `decode` reads a file's classes, 0 the background."""
    check = size_check(pictures)

    def truth(t: int) -> Truth | None:
        if t not in maps:
            return None
        classes_hw = decode(maps[t])
        check(t, classes_hw.shape, maps[t])
        return masks_by_id(classes_hw)

    return truth
