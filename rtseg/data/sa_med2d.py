"""SA-Med2D-20M (Ye et al., arXiv 2311.11969): slices of many medical data sets, one binary mask per instance.

    images/ct_00--AbdomenCT1K--Case_00011--x_0040.png              modality--data set--case--axis_slice, or ...--2d_none
    masks/ct_00--AbdomenCT1K--Case_00011--x_0040--0003_000.png     and class_instance
    SAMed2D_v1_class_mapping_id.json                               {"AbdomenCT1K": {"liver": "0003", ...}, ...}
                                                                   or in annotations/, where some put the two .json

as described at huggingface.co/datasets/OpenGVLab/SA-Med2D-20M. A sequence is one case cut along one axis, with its
slices in order; its name is that of its files without the slice: "ct_00--AbdomenCT1K--Case_00011--x". A 2-D image,
`2d_none`, is a sequence of one frame. An object is a class, numbered in the order of a sequence's classes: instances
are numbered separately on each slice, so they do not identify objects. A slice without a mask counts as not annotated,
because the data set leaves out objects that cover less than 0.153 % of a slice.

There are 4.6 million images and 19.7 million masks. So folders are read name by name; in memory, a name is stored
without its case, and equal strings are shared. If sequences are selected, the masks of the others are not stored.
Unexpected names, and masks without an image, are left out; one log line counts them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import Path

import numpy as np

from ..base.errors import SourceError
from ..base.prompt_schema import MAX_ID
from ..base.types import ImageU8
from .dataset import Sequence, Target, Truth
from .files import names_in, read_image, read_json
from .id_maps import read_binary
from .lazy_sequence import LazySequence, Listing

EXPECTED = "images/MODALITY--DATASET--CASE--x_0040.png and masks/MODALITY--DATASET--CASE--x_0040--0003_000.png"
MAPPINGS = ("SAMed2D_v1_class_mapping_id.json", "annotations/SAMed2D_v1_class_mapping_id.json")

log = logging.getLogger("rtseg.data")


def matches(path: Path) -> bool:
    images, masks = path / "images", path / "masks"
    if not images.is_dir() or not masks.is_dir():
        return False
    with os.scandir(images) as listed:  # the folder may have millions of entries
        return any(entry.name.count("--") == 3 for entry in islice(listed, 8))


def read(path: Path, wanted: Collection[str] = ()) -> Listing:
    """List every case of every data set, by axis. If `wanted` is not empty, only the names of others are listed."""
    scan = Scan(frozenset(wanted))
    scan.pictures(path / "images")
    scan.masks(path / "masks")
    if scan.unexpected:
        log.warning(
            "%s: %d names left out, which are unexpected or of masks without an image: %s%s; expected %s",
            *(path, scan.unexpected, scan.first, ", ..." if scan.unexpected > 1 else "", EXPECTED),
        )
    mapping = next((path / name for name in MAPPINGS if (path / name).is_file()), None)
    labels = _labels(mapping) if mapping else {}
    cases = (
        Case(path, name, slices, scan.drawn[name], labels.get(name.split("--")[1], {}))
        for name, slices in scan.slices.items()
    )
    return Listing(tuple(map(_sequence, cases)), others=tuple(scan.others))


def _labels(mapping: Path) -> dict[str, dict[int, str]]:
    """The name of each class of each data set."""
    given = read_json(mapping, dict)
    try:
        return {data: {int(number): str(name) for name, number in own.items()} for data, own in given.items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise SourceError(f'{mapping}: not like {{"AbdomenCT1K": {{"liver": "0003"}}}} ({e!r}); copy it again') from e


class Scan:
    """The content of the two folders by case: `slices`, its images ("0040"), and `drawn`, its masks ("0040--0003_000").

    If some cases are `wanted`, only the names of all others are kept, in `others`. `unexpected` counts names that do
    not fit; `first` is one of them.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.slices: dict[str, list[str]] = {}
        self.drawn: dict[str, list[str]] = {}
        self.others: set[str] = set()
        self.unexpected, self.first = 0, ""
        self._wanted = wanted
        self._shared: dict[str, str] = {}  # most cases have a slice 0040 with an instance 0003_000

    def pictures(self, folder: Path) -> None:
        for name in names_in(folder):
            case, _, number = name.removesuffix(".png").rpartition("_")
            if case.count("--") != 3 or not name.endswith(".png"):
                self._leave_out(folder, name)
            elif self._wanted and case not in self._wanted:
                self.others.add(case)
            else:
                self.slices.setdefault(case, []).append(self._share(number))
        for slices in self.slices.values():
            slices.sort(key=lambda number: (int(number), "") if number.isdecimal() else (-1, number))
        self.drawn = {case: [] for case in self.slices}

    def masks(self, folder: Path) -> None:
        for name in names_in(folder):
            stem, _, instance = name.removesuffix(".png").rpartition("--")
            case, _, number = stem.rpartition("_")
            if case in self.drawn and name.endswith(".png") and instance.partition("_")[0].isdecimal():
                self.drawn[case].append(self._share(f"{number}--{instance}"))
            elif case not in self.others:
                self._leave_out(folder, name)
        for case, masks in self.drawn.items():
            known = set(self.slices[case])
            lost = {mask for mask in masks if mask.partition("--")[0] not in known}
            for mask in lost:
                self._leave_out(folder, f"{case}_{mask}.png")
            masks[:] = [mask for mask in masks if mask not in lost] if lost else masks

    def _share(self, text: str) -> str:
        return self._shared.setdefault(text, text)

    def _leave_out(self, folder: Path, name: str) -> None:
        self.unexpected += 1
        self.first = self.first or f"{folder.name}/{name}"


@dataclass(frozen=True, slots=True)
class Case:
    """One case cut along one axis, as listed by `Scan`; `labels` are the names of its data set's classes."""

    root: Path
    name: str
    slices: list[str]
    drawn: list[str]
    labels: Mapping[int, str]

    def image(self, t: int) -> ImageU8:
        return read_image(self._picture(t))

    def truth(self, t: int) -> Truth | None:
        """The mask of each class on slice t, with its instances merged; None if the slice has no mask."""
        by_class: dict[int, list[Path]] = {}
        for number, instance in self._instances():
            if number == self.slices[t]:
                file = self.root / "masks" / f"{self.name}_{number}--{instance}.png"
                by_class.setdefault(int(instance.partition("_")[0]), []).append(file)
        ids, picture = self._ids(), self._picture(t)
        drawn = {
            ids[kind]: reduce(np.logical_or, (read_binary(file, picture) for file in by_class[kind]))
            for kind in sorted(by_class)
        }
        return {i: mask_hw for i, mask_hw in drawn.items() if mask_hw.any()} if drawn else None

    def targets(self) -> tuple[Target, ...]:
        named = {i: self.labels.get(kind, f"class {kind:04d}") for kind, i in self._ids().items()}
        return tuple(Target(i, name, name) for i, name in named.items())

    def _picture(self, t: int) -> Path:
        return self.root / "images" / f"{self.name}_{self.slices[t]}.png"

    def _instances(self) -> Iterator[tuple[str, str]]:
        """The slice of each mask, and its class and instance as in the file's name."""
        for mask in self.drawn:
            number, _, instance = mask.partition("--")
            yield number, instance

    def _ids(self) -> dict[int, int]:
        """The object id of each class of this case."""
        classes = sorted({int(instance.partition("_")[0]) for _, instance in self._instances()})
        if len(classes) > MAX_ID:
            raise SourceError(f"{self.name}: {len(classes)} classes; expected at most {MAX_ID} in one case")
        return {kind: i for i, kind in enumerate(classes, 1)}


def _sequence(case: Case) -> Sequence:
    flat = case.name.endswith("--2d")
    patient = "--".join(case.name.split("--")[1:3])  # may have several axes and modalities
    count = len(case.slices)
    return LazySequence(case.name, count, case.targets, case.image, case.truth, volume=not flat, group=patient)
