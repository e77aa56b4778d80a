"""SA-Med2D-20M (Ye et al., arXiv 2311.11969): slices of many medical data sets, a binary mask an instance.

    images/ct_00--AbdomenCT1K--Case_00011--x_0040.png              modality--data set--case--axis_slice, or ...--2d_none
    masks/ct_00--AbdomenCT1K--Case_00011--x_0040--0003_000.png     and class_instance
    SAMed2D_v1_class_mapping_id.json                               {"AbdomenCT1K": {"liver": "0003", ...}, ...}

as its card names them (huggingface.co/datasets/OpenGVLab/SA-Med2D-20M). A sequence is one case cut along one axis, its
slices in order, called like its files without the slice: "ct_00--AbdomenCT1K--Case_00011--x". A picture that is no
slice, `2d_none`, is a sequence of one frame. An object is a class, numbered in the order of a sequence's classes:
instances are counted anew on each slice, so that they are no identities. A slice without a mask is not annotated, for
the data set has left out what covers less than 0.153 % of a slice.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import reduce
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import SourceError
from ...types import MAX_ID
from ..dataset import Sequence, Target, Truth
from .files import entries, files, read_json, read_picture
from .id_maps import read_binary
from .lazy import Found, Lazy

EXPECTED = "images/MODALITY--DATASET--CASE--x_0040.png and masks/MODALITY--DATASET--CASE--x_0040--0003_000.png"
MAPPING = "SAMed2D_v1_class_mapping_id.json"

Masks = dict[str, dict[int, list[Path]]]  # of a picture by its stem: class to its instances


def found(path: Path) -> bool:
    images, masks = path / "images", path / "masks"
    if not images.is_dir() or not masks.is_dir():
        return False
    with os.scandir(images) as listed:  # of which there may be millions
        return any(entry.name.count("--") == 3 for entry in islice(listed, 8))


def read(path: Path) -> Found:
    """Every case of every data set in there, by axis. `SourceError` where a name is not as expected."""
    slices: dict[str, list[Path]] = defaultdict(list)
    for picture in files(path / "images", (".png",)):
        if picture.stem.count("--") != 3:
            raise SourceError(f"{picture}: expected a name like MODALITY--DATASET--CASE--x_0040.png")
        slices[picture.stem.rpartition("_")[0]].append(picture)
    masks = _masks(path / "masks", {picture.stem for case in slices.values() for picture in case})
    names = _names(path / MAPPING)
    return Found(tuple(_sequence(case, own, masks, names.get(case.split("--")[1], {})) for case, own in slices.items()))


def _names(mapping: Path) -> dict[str, dict[int, str]]:
    """The name of each class of each data set, where the file is there."""
    given = read_json(mapping, dict) if mapping.is_file() else {}
    try:
        return {data: {int(number): str(name) for name, number in own.items()} for data, own in given.items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise SourceError(f'{mapping}: not like {{"AbdomenCT1K": {{"liver": "0003"}}}} ({e!r}); copy it again') from e


def _masks(folder: Path, pictures: set[str]) -> Masks:
    masks: Masks = defaultdict(lambda: defaultdict(list))
    for entry in entries(folder):
        stem, _, instance = entry.name.rpartition("--")
        number = instance.partition("_")[0]
        if stem not in pictures or not number.isdecimal():
            raise SourceError(f"{entry.path}: expected the name of a picture in images/, then --CLASS_INSTANCE.png")
        masks[stem][int(number)].append(Path(entry.path))
    return masks


def _sequence(case: str, pictures: list[Path], masks: Masks, names: dict[int, str]) -> Sequence:
    own = [masks.get(picture.stem, {}) for picture in pictures]
    classes = sorted({number for by_class in own for number in by_class})
    if len(classes) > MAX_ID:
        raise SourceError(f"{case}: {len(classes)} classes; expected at most {MAX_ID} in one case")
    ids = {number: i for i, number in enumerate(classes, 1)}

    def truth(t: int) -> Truth | None:
        drawn = {
            ids[number]: reduce(np.logical_or, (read_binary(path, pictures[t]) for path in paths))
            for number, paths in own[t].items()
        }
        return {i: mask_hw for i, mask_hw in drawn.items() if mask_hw.any()} if drawn else None

    labels = {i: names.get(number, f"class {number:04d}") for number, i in ids.items()}
    targets = tuple(Target(i, label, label) for i, label in labels.items())
    flat = case.endswith("--2d")
    patient = "--".join(case.split("--")[1:3])  # cut along up to three axes, and seen in several modalities
    return Lazy(
        case, len(pictures), targets, lambda t: read_picture(pictures[t]), truth, volume=not flat, group=patient
    )
