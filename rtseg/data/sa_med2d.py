"""SA-Med2D-20M (Ye et al., arXiv 2311.11969): slices of many medical data sets, a binary mask an instance.

    images/ct_00--AbdomenCT1K--Case_00011--x_0040.png              modality--data set--case--axis_slice, or ...--2d_none
    masks/ct_00--AbdomenCT1K--Case_00011--x_0040--0003_000.png     and class_instance
    SAMed2D_v1_class_mapping_id.json                               {"AbdomenCT1K": {"liver": "0003", ...}, ...}
                                                                   or in annotations/, where some put the two .json

as its card names them (huggingface.co/datasets/OpenGVLab/SA-Med2D-20M). A sequence is one case cut along one axis, its
slices in order, called like its files without the slice: "ct_00--AbdomenCT1K--Case_00011--x". A picture that is no
slice, `2d_none`, is a sequence of one frame. An object is a class, numbered in the order of a sequence's classes:
instances are counted anew on each slice, so that they are no identities. A slice without a mask is not annotated, for
the data set has left out what covers less than 0.153 % of a slice.

There are 4.6 million pictures and 19.7 million masks: folders are read name by name, and of a name only what its case
does not say is kept, one string for all that are called alike. Where sequences are named, the others' masks are not
kept at all. Names that are not as above, and masks of no picture, are left out: one line in the log counts them.
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
from .lazy import Found, Lazy

EXPECTED = "images/MODALITY--DATASET--CASE--x_0040.png and masks/MODALITY--DATASET--CASE--x_0040--0003_000.png"
MAPPINGS = ("SAMed2D_v1_class_mapping_id.json", "annotations/SAMed2D_v1_class_mapping_id.json")

log = logging.getLogger("rtseg.evaluate")


def found(path: Path) -> bool:
    images, masks = path / "images", path / "masks"
    if not images.is_dir() or not masks.is_dir():
        return False
    with os.scandir(images) as listed:  # of which there may be millions
        return any(entry.name.count("--") == 3 for entry in islice(listed, 8))


def read(path: Path, wanted: Collection[str] = ()) -> Found:
    """Every case of every data set in there, by axis; of those that are not wanted, if any are, the name alone."""
    scan = Scan(frozenset(wanted))
    scan.pictures(path / "images")
    scan.masks(path / "masks")
    if scan.odd:
        log.warning(
            "%s: %d names are not as expected, or of masks without a picture, and left out: %s%s; expected %s",
            *(path, scan.odd, scan.first, ", ..." if scan.odd > 1 else "", EXPECTED),
        )
    mapping = next((path / name for name in MAPPINGS if (path / name).is_file()), None)
    labels = _labels(mapping) if mapping else {}
    cases = (
        Case(path, name, slices, scan.drawn[name], labels.get(name.split("--")[1], {}))
        for name, slices in scan.slices.items()
    )
    return Found(tuple(map(_sequence, cases)), others=tuple(scan.others))


def _labels(mapping: Path) -> dict[str, dict[int, str]]:
    """The name of each class of each data set."""
    given = read_json(mapping, dict)
    try:
        return {data: {int(number): str(name) for name, number in own.items()} for data, own in given.items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise SourceError(f'{mapping}: not like {{"AbdomenCT1K": {{"liver": "0003"}}}} ({e!r}); copy it again') from e


class Scan:
    """What the two folders hold, by case: `slices` of pictures ("0040"), and `drawn`, masks ("0040--0003_000").

    Of cases that are not `wanted`, where some are, only the name is kept, in `others`. Names that do not fit are
    counted in `odd`; `first` is one of them.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.slices: dict[str, list[str]] = {}
        self.drawn: dict[str, list[str]] = {}
        self.others: set[str] = set()
        self.odd, self.first = 0, ""
        self._wanted = wanted
        self._shared: dict[str, str] = {}  # most cases have a slice 0040, and on it an instance 0003_000

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
        self.odd += 1
        self.first = self.first or f"{folder.name}/{name}"


@dataclass(frozen=True, slots=True)
class Case:
    """One case, cut along one axis, as `Scan` found it; `labels` are the names of its data set's classes."""

    root: Path
    name: str
    slices: list[str]
    drawn: list[str]
    labels: Mapping[int, str]

    def image(self, t: int) -> ImageU8:
        return read_image(self._picture(t))

    def truth(self, t: int) -> Truth | None:
        """What slice t shows, the instances of a class as one; None where it has no mask."""
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
        """The slice of each mask, and its class and instance."""
        for mask in self.drawn:
            number, _, instance = mask.partition("--")
            yield number, instance

    def _ids(self) -> dict[int, int]:
        """The number of each class among this case's."""
        classes = sorted({int(instance.partition("_")[0]) for _, instance in self._instances()})
        if len(classes) > MAX_ID:
            raise SourceError(f"{self.name}: {len(classes)} classes; expected at most {MAX_ID} in one case")
        return {kind: i for i, kind in enumerate(classes, 1)}


def _sequence(case: Case) -> Sequence:
    flat = case.name.endswith("--2d")
    patient = "--".join(case.name.split("--")[1:3])  # cut along up to three axes, and seen in several modalities
    count = len(case.slices)
    return Lazy(case.name, count, case.targets, case.image, case.truth, volume=not flat, group=patient)
