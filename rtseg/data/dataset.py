"""The types of a data set, for every layout: sequences of images with their ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..base.types import BoolMask, ImageU8

Truth = Mapping[int, BoolMask]


@dataclass(frozen=True, slots=True)
class Target:
    """One object of a sequence. `category` is its class in the data set, "" if the data set has none."""

    id: int
    label: str
    category: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Frames 0 to `count` - 1 of a video, or slices of a volume, which may be read in any order.

    - `image(t)`: uint8 [H, W, 3] RGB.
    - `truth(t)`: the mask of each target that is visible on frame t by its id, bool [H, W], never empty. A target that
      is missing in the map is not visible. None: the frame is not annotated; it is tracked, but not scored.
    - `unknown(t)`: targets without an annotation on a frame that is otherwise annotated; they are not scored on it.
    - `spacing_mm`, `slice_mm`: the size of a pixel (down, across) and the distance of two slices, if known.
    - `group`: sequences of one group show the same operation or patient, so they are not independent samples. A
      sequence without one is a group by itself.

    `image` and `truth` raise `SourceError`, in one line that names the file, if it cannot be read.
    """

    name: str
    count: int
    targets: tuple[Target, ...]
    image: Callable[[int], ImageU8]
    truth: Callable[[int], Truth | None]
    spacing_mm: tuple[float, float] | None = None
    volume: bool = False
    group: str = ""
    slice_mm: float | None = None
    unknown: Callable[[int], frozenset[int]] = lambda t: frozenset()


@dataclass(frozen=True, slots=True)
class Dataset:
    """The sequences of a data set; `layout` names the reader that listed them.

    `unannotated` are the names of sequences without any ground truth, which are left out.
    """

    name: str
    layout: str
    sequences: tuple[Sequence, ...]
    unannotated: tuple[str, ...] = ()
