"""Sequences that know how to find out what they hold, and find it out when they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..base.types import ImageU8
from .dataset import Sequence, Target, Truth
from .files import read_image

Spacing = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader found: sequences, and named lists of them ("val", "fold0") that the data set itself defines.

    `unannotated` are names of sequences that have pictures, and no truth at all; `others` are names of sequences that
    are there, and were left aside because the reader was told which are wanted.
    """

    sequences: tuple[Sequence, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unannotated: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class Lazy(Sequence):
    """A sequence whose count, targets and spacing are worked out when first asked for: a data set of a thousand
    sequences is opened without reading one mask. Each may be the value, or a function that returns it.
    """

    def __init__(
        self,
        name: str,
        count: int | Callable[[], int],
        targets: tuple[Target, ...] | Callable[[], tuple[Target, ...]],
        image: Callable[[int], ImageU8],
        truth: Callable[[int], Truth | None],
        spacing_mm: Spacing | Callable[[], Spacing] = None,
        volume: bool = False,
        group: str = "",
        slice_mm: float | Callable[[], float] | None = None,
        unknown: Callable[[int], frozenset[int]] = lambda t: frozenset(),
    ) -> None:
        given = {"name": name, "image": image, "truth": truth, "volume": volume, "group": group, "unknown": unknown}
        later = {"_count": count, "_targets": targets, "_spacing_mm": spacing_mm, "_slice_mm": slice_mm}
        for key, value in {**given, **later}.items():
            object.__setattr__(self, key, value)  # the class is frozen

    @cached_property
    def count(self) -> int:
        value: int | Callable[[], int] = self.__dict__["_count"]
        return value() if callable(value) else value

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        value: tuple[Target, ...] | Callable[[], tuple[Target, ...]] = self.__dict__["_targets"]
        return value if isinstance(value, tuple) else value()

    @cached_property
    def spacing_mm(self) -> Spacing:
        value: Spacing | Callable[[], Spacing] = self.__dict__["_spacing_mm"]
        return value if value is None or isinstance(value, tuple) else value()

    @cached_property
    def slice_mm(self) -> float | None:
        value: float | Callable[[], float] | None = self.__dict__["_slice_mm"]
        return value() if callable(value) else value


def of_pictures(
    name: str,
    pictures: list[Path],
    truth: Callable[[int], Truth | None],
    target: Callable[[int], Target],
    read: Callable[[Path], ImageU8] = read_image,
    volume: bool = False,
    group: str = "",
) -> Sequence:
    """A sequence of picture files, whose targets are what its masks show: each is read once, when they are asked for.

    `target` describes an object by its id; `read` reads a picture.
    """
    count = len(pictures)
    return Lazy(
        name,
        count,
        lambda: tuple(target(i) for i in sorted({i for t in range(count) for i in truth(t) or ()})),
        lambda t: read(pictures[t]),
        truth,
        volume=volume,
        group=group,
    )
