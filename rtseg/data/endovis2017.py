"""EndoVis 2017, robotic instruments (Allan et al., arXiv 1902.06426), as released and as TernausNet crops it.

    .../instrument_dataset_1/left_frames/frame000.png                                    1920x1080, black at the sides
    .../instrument_dataset_1/ground_truth/Left_Prograsp_Forceps_labels/frame000.png      one folder per instrument

A map labels an instrument's parts: 10 shaft, 20 wrist, 30 claspers, 40 probe; all values above 0 are the instrument. An
object is one such folder: the same instrument on all frames. Its category is the type in the folder's name. Folders
without a type in their name (maps derived by others) are left out. The image proper is 1280x1024 from row 28 and column
320 on; frames and maps of 1920x1080 are cropped to it, as the challenge's README asks.

The test videos come in two archives, which are paired if either, or the folder that holds both, is opened:

    instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png              also 5_8 and 9_10
    instrument_2017_test/instrument_2017_test/instrument_dataset_1/TypeSegmentation/frame225.png      or gt/Type...

There, one map holds all instruments, with the types 1 to 7, and 8, which the release's list does not name. It is read
as an instrument of the type Other, as some public code does (other code leaves it out). `BinarySegmentation` and
`PartsSegmentation`, next to it, do not separate instruments and are not read. The layout that
github.com/ternaus/robot-surgery-segmentation prepares, `instrument_dataset_1/images/frame000.jpg` and
`instruments_masks/frame000.png`, stores 32 times the type. In both, an object is a type: two needle drivers are one
object.

There is no validation set. TernausNet chose four folds, which ISINet and SurgicalSAM follow: the split "fold0" is the
validation set of that fold, datasets 1 and 3.
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
from .files import MAPS, PICTURES, files, find_folders, folders, match_maps, read_image
from .id_maps import class_truth, read_binary, read_ids
from .lazy_sequence import LazySequence, Listing, image_sequence

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
TYPE_FOLDERS = {**dict.fromkeys(TESTED, 1), "instruments_masks": 32}  # folder to the factor of a type in its maps
KINDS = ("ground_truth", "gt", "BinarySegmentation", "PartsSegmentation", *TYPE_FOLDERS)  # folders of annotations
ANSWERS = "instrument_2017_test"  # the archive of the test videos' maps, which may be in a folder of the same name
FRAMES = "instrument_*_testing"  # the archives of the test videos' frames
OTHER, UNNAMED = 7, 8  # types
FULL, CROP = (1080, 1920), (slice(28, 28 + 1024), slice(320, 320 + 1280))


def matches(path: Path) -> bool:
    return bool(_videos(path))


def read(path: Path) -> Listing:
    """List every annotated video. Raises `SourceError` if a file is not as expected."""
    videos = _videos(path)
    annotated = [video for video in videos if not _is_bare(video)]
    pictures = {video: _pictures(video) for video in annotated}
    used = {frames[0].parent.parent for frames in pictures.values()}
    unpaired = [video for video in videos if _is_bare(video) and video not in used]
    if unpaired and not annotated:
        raise SourceError(
            f"{unpaired[0]}: frames without maps; there is no ground_truth in it, and no "
            f"{ANSWERS}/{unpaired[0].name}/{TESTED[0]} in {path}; expected the folder that holds both archives"
        )
    alike = len({video.name for video in annotated}) < len(annotated)  # train and test have videos of the same names
    names = {video: video.relative_to(path).as_posix() if alike else video.name for video in annotated}
    sequences = tuple(_sequence(names[video], video, frames) for video, frames in pictures.items())
    trained = [video for video in annotated if not any((video / kind).is_dir() for kind in TESTED)]
    numbers = {names[video]: int(video.name.rpartition("_")[2]) for video in trained}
    splits = {fold: tuple(name for name, number in numbers.items() if number in own) for fold, own in FOLDS.items()}
    unannotated = tuple(video.relative_to(path).as_posix() for video in unpaired)
    return Listing(sequences, {fold: own for fold, own in splits.items() if own}, unannotated)


def _videos(path: Path) -> list[Path]:
    nested = (place / ANSWERS for place in find_folders(path, 1, lambda folder: folder.name == ANSWERS))
    deep = [video for place in nested if place.is_dir() for video in find_folders(place, 1, _is_video)]
    return list(dict.fromkeys([*find_folders(path, 2, _is_video), *deep]))


def _is_video(folder: Path) -> bool:
    if not re.fullmatch(r"instrument_dataset_\d+", folder.name):
        return False
    return any((folder / kind).is_dir() for kind in ("left_frames", *KINDS))


def _is_bare(video: Path) -> bool:
    """Whether a folder holds only frames, as in the archives of test frames."""
    return not any((video / kind).is_dir() for kind in KINDS)


def _pictures(video: Path) -> list[Path]:
    """The frames of a video: those in its folder, or for a test video those in the other archive."""
    own, apart = (video / "left_frames", video / "images"), f"{FRAMES}/{video.name}/left_frames"
    tested = not (video / "ground_truth").is_dir()
    others = [folder for place in video.parents[:3] for folder in place.glob(apart)] if tested else []
    pictures = next((found for folder in (*own, *others) if (found := files(folder, PICTURES))), None)
    if pictures is None:
        beside = f", and next to {ANSWERS} there is no {apart}" if tested else ""
        raise SourceError(f"{video}: holds no left_frames/frame000.png{beside}; expected the frames that it annotates")
    return pictures


def _sequence(name: str, video: Path, pictures: list[Path]) -> Sequence:
    instruments = {folder: kind for folder in folders(video / "ground_truth") if (kind := _type(folder.name))}
    if instruments:
        return _instrument_sequence(name, pictures, instruments)
    kind = next((kind for kind in TYPE_FOLDERS if (video / kind).is_dir()), None)
    if kind is None:
        raise SourceError(
            f"{video}: no folder names an instrument; expected some like ground_truth/Prograsp_Forceps_labels, "
            f"or {' or '.join(TESTED)}"
        )
    return _type_sequence(name, pictures, video / kind, TYPE_FOLDERS[kind])


def _group(name: str) -> str:
    """The operation: test videos 1 to 8 are the last 75 frames of the same operations as training videos 1 to 8."""
    return name.rpartition("/")[2]


def _instrument_sequence(name: str, pictures: list[Path], instruments: dict[Path, str]) -> Sequence:
    maps = [match_maps(pictures, files(folder, MAPS)) for folder in instruments]

    def truth(t: int) -> Truth | None:
        drawn = [by_frame[t] for by_frame in maps if t in by_frame]
        if not drawn:
            return None
        if len(drawn) < len(maps):
            missing = next(folder for folder, by_frame in zip(instruments, maps, strict=True) if t not in by_frame)
            raise SourceError(f"{missing / drawn[0].name}: is missing; expected a map of each instrument, or of none")
        masks = {i: _crop(read_binary(path, pictures[t])) for i, path in enumerate(drawn, 1)}
        return {i: mask_hw for i, mask_hw in masks.items() if mask_hw.any()}

    targets = tuple(
        Target(i, folder.name.removesuffix("_labels").replace("_", " "), kind)
        for i, (folder, kind) in enumerate(instruments.items(), 1)
    )
    return LazySequence(name, len(pictures), targets, lambda t: _read_cropped(pictures[t]), truth, group=_group(name))


def _type_sequence(name: str, pictures: list[Path], folder: Path, factor: int) -> Sequence:
    def decode(path: Path) -> ImageU8:
        coded_hw = read_ids(path)
        if factor == 1:
            coded_hw = np.where(coded_hw == UNNAMED, np.uint8(OTHER), coded_hw)
        if (coded_hw % factor).any() or coded_hw.max() > factor * len(TYPES):
            raise SourceError(f"{path}: value {coded_hw.max()}; expected {factor} times the type, 0 to {len(TYPES)}")
        return coded_hw // factor

    whole = class_truth(pictures, match_maps(pictures, files(folder, MAPS)), decode)

    def truth(t: int) -> Truth | None:
        masks = whole(t)
        return None if masks is None else {i: cut for i, mask_hw in masks.items() if (cut := _crop(mask_hw)).any()}

    def target(i: int) -> Target:
        return Target(i, TYPES[i - 1], TYPES[i - 1])

    return image_sequence(name, pictures, truth, target, _read_cropped, group=_group(name))


def _read_cropped(path: Path) -> ImageU8:
    return _crop(read_image(path))


def _type(folder: str) -> str | None:
    """The type in a folder's name, "Bipolar Forceps" in "Maryland_Bipolar_Forceps_labels"; None if it has none."""
    return next((kind for kind in TYPES if kind.replace(" ", "_") in folder), None)


def _crop(array: npt.NDArray[T]) -> npt.NDArray[T]:
    return np.ascontiguousarray(array[CROP]) if array.shape[:2] == FULL else array
