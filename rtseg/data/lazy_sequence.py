"""Sequences whose properties are computed on first use, so that a large data set opens quickly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..base.types import ImageU8
from .dataset import Dataset, Sequence, Target, Truth
from .files import read_image

Spacing = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reader lists: sequences, and the splits ("val", "fold0") that the data set itself defines.

    `unannotated` are names of sequences that have images but no ground truth. `others` are names of sequences that the
    reader left out because they were not selected.
    """

    sequences: tuple[Sequence, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unannotated: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class LazySequence(Sequence):
    """A sequence whose count, targets, spacing and slice distance are computed on first use.

    Each of them is given as a value or as a function that returns it. So a data set of a thousand sequences opens
    without reading a mask.
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


def image_sequence(
    name: str,
    pictures: list[Path],
    truth: Callable[[int], Truth | None],
    target: Callable[[int], Target],
    read: Callable[[Path], ImageU8] = read_image,
    volume: bool = False,
    group: str = "",
) -> Sequence:
    """A sequence of image files. Its targets are the objects that its masks show, which are all read on first use.

    `target` makes the target of an id; `read` reads an image file.
    """
    count = len(pictures)
    return LazySequence(
        name,
        count,
        lambda: tuple(target(i) for i in sorted({i for t in range(count) for i in truth(t) or ()})),
        lambda t: read(pictures[t]),
        truth,
        volume=volume,
        group=group,
    )


def single_pictures(dataset: Dataset) -> Dataset:
    """The same data set with each annotated picture as a sequence of its own, called "SEQ/00000", in the group SEQ.

    For pictures that have nothing to do with one another: their figures are then means over all objects of all of them.
    """
    pictures = (
        _one_picture(sequence, t)
        for sequence in dataset.sequences
        for t in range(sequence.count)
        if sequence.truth(t) is not None
    )
    return replace(dataset, sequences=tuple(pictures))


def _one_picture(sequence: Sequence, t: int) -> Sequence:
    return LazySequence(
        f"{sequence.name}/{t:05d}",
        1,
        lambda: tuple(target for target in sequence.targets if target.id in (sequence.truth(t) or ())),
        lambda _: sequence.image(t),
        lambda _: sequence.truth(t),
        sequence.spacing_mm,
        group=sequence.group or sequence.name,
        unknown=lambda _: sequence.unknown(t),
    )
