"""What an evaluation runs on: sequences of pictures with their truth, in whatever layout they lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..base.types import BoolMask, ImageU8

Truth = Mapping[int, BoolMask]


@dataclass(frozen=True, slots=True)
class Target:
    """One object of a sequence; `category` is its class in the data set, "" where the data set has none."""

    id: int
    label: str
    category: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Frames 0 to `count` - 1 of a video, or slices of a volume, read when asked for, in any order.

    `image(t)` is uint8 [H, W, 3] RGB. `truth(t)` maps the id of each target that is visible on frame t to its mask,
    bool [H, W], never empty; a target that is missing there is absent from the picture; None means that nobody
    annotated the frame, which is then tracked and not scored. `unknown(t)` are the targets that are left out on a frame
    that is otherwise annotated: nobody said whether they are there, and they are not scored on it. `spacing_mm` is the
    size of a pixel (down, across) and `slice_mm` the distance of two slices, where they are known. Sequences of one
    `group` show the same operation or patient, so they are no independent samples; of a sequence without one, its name
    is the group. `image` and `truth` raise `SourceError`, in one line with the file's name, for a file that cannot be
    read.
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
    """Sequences that are judged together. `layout` names the reader that found them.

    `unannotated` are those that lie there without a truth, and are left out.
    """

    name: str
    layout: str
    sequences: tuple[Sequence, ...]
    unannotated: tuple[str, ...] = ()
