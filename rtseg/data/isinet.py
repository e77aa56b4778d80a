"""EndoVis 2017 and 2018 by instrument type, in the layout of ISINet and SurgicalSAM.

    fold0/images/seq1_frame000.png  fold0/annotations/seq1_frame000.png      2017, four folds
    val/images/seq2_frame000.png    val/annotations/seq2_frame000.png        2018, train and val
    labels_2017.json                                                         [{"name", "classid"}, ...], may be missing

or with a folder per sequence, `val/images/seq2/00000.png` and `val/annotations/seq2/00000.png`. The number in a map is
the type (github.com/BCV-Uniandes/ISINet, data/; github.com/wenxi-yue/SurgicalSAM).

An object is a type. The instances in `binary_annotations/seq1_frame000_class2_inst0.png` are numbered separately on
each frame: when the first of two forceps leaves the image, the second takes its number. So they do not identify
objects. For instances that keep their number, use the layouts `endovis2017` (as released) and `davis` (VOS-Endovis17
and 18).

Sequences are called "fold0/seq1" and "val/seq2"; "val" selects all of a split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..base.errors import SourceError
from .dataset import Sequence, Target
from .endovis2017 import TYPES as TYPES_2017
from .files import MAPS, PICTURES, files, folders, match_maps, read_json
from .id_maps import class_truth, read_ids
from .lazy_sequence import Listing, image_sequence
from .sa_med2d import MAPPINGS as SA_MED2D

EXPECTED = "fold0/ to fold3/, or train/ and val/, with images/seq1_frame000.png and annotations/ of the same names"
TYPES_2018 = (
    "Bipolar Forceps",
    "Prograsp Forceps",
    "Large Needle Driver",
    "Monopolar Curved Scissors",
    "Ultrasound Probe",
    "Suction Instrument",
    "Clip Applier",
)
YEARS = {
    "fold": TYPES_2017,
    "0": TYPES_2017,
    "train": TYPES_2018,
    "val": TYPES_2018,
}  # by the start of a split's name; SurgicalSAM has 2017 in 0/


def matches(path: Path) -> bool:
    return bool(_roots(path))


def read(path: Path) -> Listing:
    """List every sequence of every split. Raises `SourceError` if a file is not as expected."""
    sequences = []
    for prefix, root in _roots(path).items():
        types = _types(root)
        pictures, maps = _by_sequence(root / "images"), _by_sequence(root / "annotations")
        if not pictures:
            raise SourceError(f"{root / 'images'}: holds no seq1_frame000.png; expected the frames of each sequence")
        for name, drawn in maps.items():
            if name not in pictures:
                raise SourceError(f"{root / 'images'}: holds no image of {name}; expected its frames")
            sequences.append(_sequence(f"{prefix}{name}", pictures[name], drawn, types))
    return Listing(tuple(sequences))


def _roots(path: Path) -> dict[str, Path]:
    """The folders that hold images and annotations, by the prefix of their sequences' names."""
    if _is_root(path):
        return {"": path}
    return {f"{folder.name}/": folder for folder in folders(path) if _is_root(folder)}


def _is_root(path: Path) -> bool:
    if any((path / name).is_file() for name in SA_MED2D):  # that layout may have both folders, too
        return False
    return (path / "images").is_dir() and (path / "annotations").is_dir()


def _types(root: Path) -> Mapping[int, str]:
    """The name of each type, from labels*.json next to the splits, or else by the split's name; empty if unknown."""
    for file in files(root, (".json",)) + files(root.parent, (".json",)):
        if file.name.startswith(("labels", "final_labels")):
            try:
                return {int(row["classid"]): str(row["name"]) for row in read_json(file, list)}
            except (KeyError, ValueError, TypeError) as e:
                raise SourceError(f"{file}: not a list of name and classid ({e!r}); copy it again") from e
    types = next((types for start, types in YEARS.items() if root.name.startswith(start)), ())
    return dict(enumerate(types, 1))


def _by_sequence(folder: Path) -> dict[str, list[Path]]:
    """Files by sequence: "seq1" of seq1_frame000.png, or of seq1/00000.png."""
    nested = {child.name: files(child, PICTURES) for child in folders(folder)}
    if nested:
        return nested
    grouped: dict[str, list[Path]] = {}
    for file in files(folder, PICTURES):
        name = re.match(r"(.+)_(?:frame)?\d+$", file.stem)
        if name is None:
            raise SourceError(f"{file}: its name holds no sequence; expected one like seq1_frame000.png")
        grouped.setdefault(name[1], []).append(file)
    return grouped


def _sequence(name: str, pictures: list[Path], drawn: list[Path], types: Mapping[int, str]) -> Sequence:
    maps = match_maps(pictures, [path for path in drawn if path.suffix.lower() in MAPS])
    truth = class_truth(pictures, maps, read_ids)
    return image_sequence(name, pictures, truth, lambda i: _target(i, types.get(i, f"type {i}")))


def _target(i: int, kind: str) -> Target:
    return Target(i, kind, kind)
