"""CholecSeg8k (Hong et al., arXiv 2012.12453): clips of 80 frames from Cholec80, every pixel one of 13 classes.

    video01/video01_00080/frame_80_endo.png                   the frame
    video01/video01_00080/frame_80_endo_watershed_mask.png    its classes as grey codes
    video01/video01_00080/frame_80_endo_color_mask.png        its classes as colors

Codes and colors are those of the data set (kaggle.com/datasets/newslab/cholecseg8k). The grey map is read, and the
color map only if the grey one is missing. An object is a class: two graspers are one object. Class 0, the black border
around the endoscope's image, is the background, and so are pixels of unknown codes (a white line at the border, and
specks).

A sequence is a clip, "video01/video01_00080"; "video01" selects all clips of a video, and is their group.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base.errors import SourceError
from ..base.types import ImageU8
from .dataset import Sequence, Target
from .files import color_number, files, find_folders, match_maps, read_colors
from .id_maps import class_truth, read_ids
from .lazy_sequence import Listing, image_sequence

EXPECTED = "video01/video01_00080/frame_80_endo.png and frame_80_endo_watershed_mask.png"
ENDO, WATERSHED, COLOR = "_endo.png", "_endo_watershed_mask.png", "_endo_color_mask.png"


class Class(NamedTuple):
    name: str
    code: int
    color: tuple[int, int, int]


CLASSES = (
    Class("Black Background", 50, (127, 127, 127)),
    Class("Abdominal Wall", 11, (210, 140, 140)),
    Class("Liver", 21, (255, 114, 114)),
    Class("Gastrointestinal Tract", 13, (231, 70, 156)),
    Class("Fat", 12, (186, 183, 75)),
    Class("Grasper", 31, (170, 255, 0)),
    Class("Connective Tissue", 23, (255, 85, 0)),
    Class("Blood", 24, (255, 0, 0)),
    Class("Cystic Duct", 25, (255, 255, 0)),
    Class("L-hook Electrocautery", 32, (169, 255, 184)),
    Class("Gallbladder", 22, (255, 160, 165)),
    Class("Hepatic Vein", 33, (0, 50, 128)),
    Class("Liver Ligament", 5, (111, 74, 0)),
)  # by number, 0 to 12
CLASS_OF_CODE = np.zeros(256, np.uint8)
CLASS_OF_CODE[[known.code for known in CLASSES]] = range(len(CLASSES))


def matches(path: Path) -> bool:
    return bool(_clips(path))


def read(path: Path) -> Listing:
    """List every clip. Raises `SourceError` if a file is not as expected."""
    return Listing(tuple(_sequence(clip) for clip in _clips(path)))


def _clips(path: Path) -> list[Path]:
    return find_folders(path, 2, lambda folder: re.fullmatch(r"video\d+_\d+", folder.name) is not None)


def _sequence(clip: Path) -> Sequence:
    pictures = files(clip, (ENDO,))
    maps, decode = _maps(clip)
    if not pictures or not maps:
        raise SourceError(f"{clip}: holds no frame_80{ENDO} with its frame_80{WATERSHED}; expected both of each frame")
    by_frame = match_maps(pictures, maps, lambda path: path.name.partition("_endo")[0])
    truth = class_truth(pictures, by_frame, decode)
    video = clip.name.partition("_")[0]
    name = f"{video}/{clip.name}"
    return image_sequence(name, pictures, truth, lambda i: Target(i, CLASSES[i].name, CLASSES[i].name), group=video)


def _maps(clip: Path) -> tuple[list[Path], Callable[[Path], ImageU8]]:
    """The maps of a clip, and the function that reads their classes."""
    watershed = files(clip, (WATERSHED,))
    return (watershed, _read_codes) if watershed else (files(clip, (COLOR,)), _read_color_map)


def _read_codes(path: Path) -> ImageU8:
    return CLASS_OF_CODE[read_ids(path)]


def _read_color_map(path: Path) -> ImageU8:
    color_hw = read_colors(path)
    classes_hw = np.zeros(color_hw.shape, np.uint8)
    for number, known in enumerate(CLASSES[1:], 1):
        classes_hw[color_hw == color_number(known.color)] = number
    return classes_hw
