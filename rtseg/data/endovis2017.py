"""EndoVis 2017, robotic instruments (Allan et al., arXiv 1902.06426), as released and as TernausNet crops it.

    .../instrument_dataset_1/left_frames/frame000.png                                    1920x1080, black at the sides
    .../instrument_dataset_1/ground_truth/Left_Prograsp_Forceps_labels/frame000.png      one folder an instrument

A map tells an instrument's parts: 10 shaft, 20 wrist, 30 claspers, 40 probe; whatever is above 0 is the instrument.
An object is one such folder, the same instrument throughout; its category is the type that the name holds. Folders
that name no type (maps that others have derived) are no instruments. The picture proper is the 1280x1024 from row 28
and column 320 on; frames and maps of 1920x1080 are cropped to it, as everyone does (the challenge's own README).

The test videos come in two archives, which are paired from the folder that holds both, or from either:

    instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png              also 5_8 and 9_10
    instrument_2017_test/instrument_2017_test/instrument_dataset_1/TypeSegmentation/frame225.png      or gt/Type...

One map is for all instruments, of types 1 to 7, and 8, which the release's list does not name: an instrument of the
type Other, as it is to some of the public code that meets it (others leave it out). `BinarySegmentation` and
`PartsSegmentation` beside it tell no instrument from another, and are left alone. What
github.com/ternaus/robot-surgery-segmentation prepares, `instrument_dataset_1/images/frame000.jpg` and
`instruments_masks/frame000.png`, has 32 times the type. In both an object is a type: two needle drivers are one.

There is no validation set, but four folds, which TernausNet chose and ISINet and SurgicalSAM follow: the split
"fold0" is what is validated in it, datasets 1 and 3.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..base.errors import SourceError
from ..base.types import ImageU8
from .dataset import Sequence, Target, Truth
from .files import MAPS, PICTURES, below, files, folders, pair, read_image
from .id_maps import class_maps, read_binary, read_ids
from .lazy import Found, Lazy, of_pictures

T = TypeVar("T", bound=np.generic)

EXPECTED = (
    "instrument_dataset_1/left_frames with ground_truth/..._labels, or images with instruments_masks, "
    "or instrument_1_4_testing with instrument_2017_test"
)
TYPES = (
    "Bipolar Forceps",
    "Prograsp Forceps",
    "Large Needle Driver",
    "Vessel Sealer",
    "Grasping Retractor",
    "Monopolar Curved Scissors",
    "Other",
)  # 1 to 7, as instrument_type_mapping.json of the release numbers them
FOLDS = {"fold0": (1, 3), "fold1": (2, 5), "fold2": (4, 8), "fold3": (6, 7)}
TESTED = ("TypeSegmentation", "gt/TypeSegmentation")
TYPE_FOLDERS = {**dict.fromkeys(TESTED, 1), "instruments_masks": 32}  # and what a type counts
KINDS = ("ground_truth", "gt", "BinarySegmentation", "PartsSegmentation", *TYPE_FOLDERS)  # what annotates a video
ANSWERS = "instrument_2017_test"  # the archive of the test videos' maps, which some unpack into a folder of its name
FRAMES = "instrument_*_testing"  # and those of their frames
OTHER, UNNAMED = 7, 8  # types
FULL, CROP = (1080, 1920), (slice(28, 28 + 1024), slice(320, 320 + 1280))


def found(path: Path) -> bool:
    return bool(_videos(path))


def read(path: Path) -> Found:
    """Every video with truth. `SourceError` where a file is not as expected."""
    videos = _videos(path)
    annotated = [video for video in videos if not _is_bare(video)]
    pictures = {video: _pictures(video) for video in annotated}
    used = {frames[0].parent.parent for frames in pictures.values()}
    bare = [video for video in videos if _is_bare(video) and video not in used]
    if bare and not annotated:
        raise SourceError(
            f"{bare[0]}: frames without maps; there is no ground_truth in it, and no "
            f"{ANSWERS}/{bare[0].name}/{TESTED[0]} in {path}; expected the folder that holds both archives"
        )
    alike = len({video.name for video in annotated}) < len(annotated)  # as in the archives of train and test
    names = {video: video.relative_to(path).as_posix() if alike else video.name for video in annotated}
    sequences = tuple(_sequence(names[video], video, frames) for video, frames in pictures.items())
    trained = [video for video in annotated if not any((video / kind).is_dir() for kind in TESTED)]
    numbers = {names[video]: int(video.name.rpartition("_")[2]) for video in trained}
    splits = {fold: tuple(name for name, number in numbers.items() if number in own) for fold, own in FOLDS.items()}
    unannotated = tuple(video.relative_to(path).as_posix() for video in bare)
    return Found(sequences, {fold: own for fold, own in splits.items() if own}, unannotated)


def _videos(path: Path) -> list[Path]:
    nested = (place / ANSWERS for place in below(path, 1, lambda folder: folder.name == ANSWERS))
    deep = [video for place in nested if place.is_dir() for video in below(place, 1, _is_video)]
    return list(dict.fromkeys([*below(path, 2, _is_video), *deep]))


def _is_video(folder: Path) -> bool:
    if not re.fullmatch(r"instrument_dataset_\d+", folder.name):
        return False
    return any((folder / kind).is_dir() for kind in ("left_frames", *KINDS))


def _is_bare(video: Path) -> bool:
    """Whether it is frames alone, as in the archives of test frames."""
    return not any((video / kind).is_dir() for kind in KINDS)


def _pictures(video: Path) -> list[Path]:
    """The frames that a video annotates: its own, or of a test video those in the other archive."""
    own, apart = (video / "left_frames", video / "images"), f"{FRAMES}/{video.name}/left_frames"
    tested = not (video / "ground_truth").is_dir()
    others = [folder for place in video.parents[:3] for folder in place.glob(apart)] if tested else []
    pictures = next((found for folder in (*own, *others) if (found := files(folder, PICTURES))), None)
    if pictures is None:
        beside = f", and beside {ANSWERS} there is no {apart}" if tested else ""
        raise SourceError(f"{video}: holds no left_frames/frame000.png{beside}; expected the frames that it annotates")
    return pictures


def _sequence(name: str, video: Path, pictures: list[Path]) -> Sequence:
    instruments = {folder: kind for folder in folders(video / "ground_truth") if (kind := _type(folder.name))}
    if instruments:
        return _of_instruments(name, pictures, instruments)
    kind = next((kind for kind in TYPE_FOLDERS if (video / kind).is_dir()), None)
    if kind is None:
        raise SourceError(
            f"{video}: names no instrument; expected folders like ground_truth/Prograsp_Forceps_labels, "
            f"or {' or '.join(TESTED)}"
        )
    return _of_types(name, pictures, video / kind, TYPE_FOLDERS[kind])


def _group(name: str) -> str:
    """The operation: the test videos 1 to 8 are the last 75 frames of those that the training videos begin."""
    return name.rpartition("/")[2]


def _of_instruments(name: str, pictures: list[Path], instruments: dict[Path, str]) -> Sequence:
    maps = [pair(pictures, files(folder, MAPS)) for folder in instruments]

    def truth(t: int) -> Truth | None:
        drawn = [by_frame[t] for by_frame in maps if t in by_frame]
        if not drawn:
            return None
        if len(drawn) < len(maps):
            missing = next(folder for folder, by_frame in zip(instruments, maps, strict=True) if t not in by_frame)
            raise SourceError(f"{missing / drawn[0].name}: is not there; expected a map of each instrument or of none")
        masks = {i: _crop(read_binary(path, pictures[t])) for i, path in enumerate(drawn, 1)}
        return {i: mask_hw for i, mask_hw in masks.items() if mask_hw.any()}

    targets = tuple(
        Target(i, folder.name.removesuffix("_labels").replace("_", " "), kind)
        for i, (folder, kind) in enumerate(instruments.items(), 1)
    )
    return Lazy(name, len(pictures), targets, lambda t: _read_cropped(pictures[t]), truth, group=_group(name))


def _of_types(name: str, pictures: list[Path], folder: Path, factor: int) -> Sequence:
    def decode(path: Path) -> ImageU8:
        coded_hw = read_ids(path)
        if factor == 1:
            coded_hw = np.where(coded_hw == UNNAMED, np.uint8(OTHER), coded_hw)
        if (coded_hw % factor).any() or coded_hw.max() > factor * len(TYPES):
            raise SourceError(f"{path}: value {coded_hw.max()}; expected {factor} times the type, 0 to {len(TYPES)}")
        return coded_hw // factor

    whole = class_maps(pictures, pair(pictures, files(folder, MAPS)), decode)

    def truth(t: int) -> Truth | None:
        masks = whole(t)
        return None if masks is None else {i: cut for i, mask_hw in masks.items() if (cut := _crop(mask_hw)).any()}

    def target(i: int) -> Target:
        return Target(i, TYPES[i - 1], TYPES[i - 1])

    return of_pictures(name, pictures, truth, target, _read_cropped, group=_group(name))


def _read_cropped(path: Path) -> ImageU8:
    return _crop(read_image(path))


def _type(folder: str) -> str | None:
    """The instrument type that a folder's name holds: "Maryland_Bipolar_Forceps_labels" is of "Bipolar Forceps"."""
    return next((kind for kind in TYPES if kind.replace(" ", "_") in folder), None)


def _crop(array: npt.NDArray[T]) -> npt.NDArray[T]:
    return np.ascontiguousarray(array[CROP]) if array.shape[:2] == FULL else array
