"""Masks that are kept as maps: one PNG for a frame, whose numbers are objects or classes."""

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
from .files import as_ids, check_size, read_map, split

MOST_IDS = 64  # in one frame; nobody draws more objects, and a smoothed edge has as many greys
THIN = 0.1  # of the grey pixels are amid their like, at most, where greys are but edges

Check = Callable[[int, tuple[int, ...], Path], None]  # raises unless a map of this shape fits frame t


def read_ids(path: Path) -> ImageU8:
    """A map of ids, uint8 [H, W]; `SourceError` unless each is 0 to 255."""
    return as_ids(read_map(path), path)


def read_binary(path: Path, picture: Path) -> BoolMask:
    """A mask, bool [H, W], true where the map is not 0; `SourceError` unless it has the size of its picture."""
    values_hw = read_map(path)
    check_size(values_hw.shape, path, picture)
    return np.asarray(values_hw > 0, np.bool_)


def fits(pictures: list[Path]) -> Check:
    """A check of a map against the picture of its frame."""
    return lambda t, shape, path: check_size(shape, path, pictures[t])


class IdMaps:
    """The maps of one sequence by frame, read when asked for; an id is an object, the same throughout.

    Where the first map that shows anything holds 255 and nothing else, the sequence has one object, drawn as 255,
    which is object 1. Otherwise 255 is an object, or with `void` a place that nobody decided on: background, as it is
    to DAVIS 2017's evaluator (davis.py). Of the other ids, `wanted` are objects; all if None.
    """

    def __init__(
        self, maps: Mapping[int, Path], check: Check, void: bool = False, wanted: frozenset[int] | None = None
    ) -> None:
        self._maps, self._check, self._void, self._wanted = maps, check, void, wanted

    def truth(self, t: int) -> Truth | None:
        """What frame t shows, None where it has no map."""
        if t not in self._maps:
            return None
        masks = self._read(t)
        if self._single:
            return {1: masks[MAX_ID]} if MAX_ID in masks else {}
        if self._void:
            masks.pop(MAX_ID, None)
        return {i: mask for i, mask in masks.items() if self._wanted is None or i in self._wanted}

    @cached_property
    def _single(self) -> bool:
        shown = (set(self._read(t)) for t in sorted(self._maps))
        return next((ids == {MAX_ID} for ids in shown if ids), False)

    def _read(self, t: int) -> dict[int, BoolMask]:
        ids_hw = read_ids(self._maps[t])
        self._check(t, ids_hw.shape, self._maps[t])
        _check_ids(ids_hw, masks := split(ids_hw), self._maps[t])
        return masks


def _check_ids(ids_hw: ImageU8, ids: Collection[int], path: Path) -> None:
    """`SourceError` for what is one white object whose edges were smoothed, so that its greys would be objects."""
    if len(ids) > MOST_IDS or (MAX_ID in ids and any(MOST_IDS < i < MAX_ID for i in ids) and _thin(ids_hw)):
        raise SourceError(
            f"{path}: holds {len(ids)} different numbers, which look like smoothed edges; expected an object each, "
            f"{MOST_IDS} at most: threshold the masks, and save them as PNG without smoothing"
        )


def _thin(ids_hw: ImageU8) -> bool:
    """Whether greys are but lines: hardly a pixel of them lies amid its like, as most pixels of an object do."""
    grey_hw = (ids_hw > 0) & (ids_hw < MAX_ID)
    around = np.ones((3, 3), np.uint8)
    amid_hw = cv2.erode(ids_hw, around) == cv2.dilate(ids_hw, around)
    return float((amid_hw & grey_hw).sum()) < THIN * float(grey_hw.sum())


def class_maps(
    pictures: list[Path], maps: Mapping[int, Path], decode: Callable[[Path], ImageU8]
) -> Callable[[int], Truth | None]:
    """The truth of a sequence with one object a class: `decode` gives a file's classes, 0 the background."""
    check = fits(pictures)

    def truth(t: int) -> Truth | None:
        if t not in maps:
            return None
        classes_hw = decode(maps[t])
        check(t, classes_hw.shape, maps[t])
        return split(classes_hw)

    return truth
