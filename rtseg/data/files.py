"""Functions for all readers: listing folders, reading images and label maps, converting label maps to masks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from ..base.errors import SourceError
from ..base.prompt_schema import MAX_ID
from ..base.types import BoolMask, ImageU8
from ..grab.decode.image_file import read_image
from ..grab.image_order import SUFFIXES as PICTURES
from ..grab.image_order import frames_in, in_order, natural

__all__ = ["PICTURES", "natural", "read_image"]

MAPS = (".png", ".bmp", ".tif", ".tiff")
# Folders with files only, in some data sets millions of them: they are not searched for a layout.
CROWDED = ("JPEGImages", "Annotations", "images", "masks", "annotations", "imagesTr", "labelsTr", "imagesTs")
HIDDEN = (".", "__MACOSX")
TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder without hidden files, such as "._0001.jpg", which file managers leave behind."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(HIDDEN)]
    except OSError as e:
        raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the path and its permissions") from e


def names_in(folder: Path) -> Iterator[str]:
    """The names of a folder's entries, without hidden files, one by one and unsorted, for folders with millions."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(HIDDEN):
                    yield entry.name
    except OSError as e:
        raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the path and its permissions") from e


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order; empty if the folder does not exist."""
    found = entries(folder) if folder.is_dir() else []
    return sorted((Path(entry.path) for entry in found if entry.is_dir()), key=natural)


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these suffixes in a folder, in natural order; empty if the folder does not exist."""
    found = entries(folder) if folder.is_dir() else []
    return in_order(Path(entry.path) for entry in found if entry.name.lower().endswith(suffixes))


def frames(folder: Path) -> list[Path]:
    """The images that a folder has as a recording, in order; empty if the folder does not exist."""
    return frames_in([Path(entry.path) for entry in entries(folder)])[0] if folder.is_dir() else []


def find_folders(folder: Path, depth: int, wanted: Callable[[Path], bool]) -> list[Path]:
    """The `wanted` ones among the folder and those up to `depth` levels below it. A wanted one is not searched."""
    if wanted(folder):
        return [folder]
    children = folders(folder) if depth and folder.name not in CROWDED else []
    return [found for child in children for found in find_folders(child, depth - 1, wanted)]


def _stem(path: Path) -> str:
    return path.stem


def match_maps(pictures: Iterable[Path], maps: Iterable[Path], key: Callable[[Path], str] = _stem) -> dict[int, Path]:
    """The label maps by the index of the image with the same key. Raises `SourceError` for a map without an image."""
    numbers = {key(path): t for t, path in enumerate(pictures)}
    paired: dict[int, Path] = {}
    for path in maps:
        if key(path) not in numbers:
            raise SourceError(f"{path}: no image has this name; expected one for each annotated frame")
        paired[numbers[key(path)]] = path
    return paired


def read_json(path: Path, *expected: type) -> Any:
    """The value in a JSON file. Raises `SourceError` unless it has one of the `expected` types."""
    try:
        value = json.loads(path.read_bytes())  # UTF-8, 16 or 32
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the path and its permissions") from e
    except (ValueError, RecursionError) as e:
        raise SourceError(f"{path}: not JSON ({e}); copy it again") from e
    if not isinstance(value, expected):
        names = " or a ".join(kind.__name__ for kind in expected)
        raise SourceError(f"{path}: holds a {type(value).__name__}; expected a {names}")
    return value


def read_map(path: Path) -> npt.NDArray[Any]:
    """The numbers of a label map, integers [H, W]: a palette's indices or grey values, which may be stored as RGB.

    Raises `SourceError` if it cannot be read, or is a color image. Pillow reads it, because OpenCV returns a palette's
    colors.
    """
    values = read_pixels(path)
    if values.ndim == 3:
        if values.shape[2] > 2 and (values[..., 1:3] != values[..., :1]).any():
            raise SourceError(f"{path}: a color image; expected numbers: a PNG with a palette or grey values")
        values = values[..., 0]
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        raise SourceError(f"{path}: its values are {values.dtype}; expected whole numbers")
    return values


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """The pixels of a label map as stored, [H, W] or [H, W, channels]. Raises `SourceError` if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        why = "no image" if isinstance(e, UnidentifiedImageError) else getattr(e, "strerror", None) or e
        raise SourceError(f"{path}: not a readable mask ({why}); expected a PNG; copy it again") from e


def read_colors(path: Path) -> npt.NDArray[np.int32]:
    """The colors of a label map as `color_number`, int32 [H, W]. Raises `SourceError` if it is not a color image."""
    pixels = read_pixels(path)
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise SourceError(f"{path}: not a color image; expected one whose colors are classes")
    wide_hwc = pixels.astype(np.int32)
    return np.asarray(wide_hwc[..., 0] << 16 | wide_hwc[..., 1] << 8 | wide_hwc[..., 2], np.int32)


def color_number(color: Sequence[int]) -> int:
    """A color as one number; values after red, green and blue are ignored."""
    red, green, blue = color[:3]
    return red << 16 | green << 8 | blue


def as_ids(values_hw: npt.NDArray[Any], path: Path) -> ImageU8:
    """Integers as ids, uint8 [H, W]. Raises `SourceError` for a number that is not an id."""
    if values_hw.dtype != np.uint8 and values_hw.size:
        low, high = int(values_hw.min()), int(values_hw.max())
        if low < 0 or high > MAX_ID:
            wrong = low if low < 0 else high
            raise SourceError(f"{path}: object {wrong}; expected 0 for the background, and objects from 1 to {MAX_ID}")
    return np.asarray(values_hw, np.uint8)


def masks_by_id(ids_hw: ImageU8) -> dict[int, BoolMask]:
    """The mask of each id, bool [H, W], in a map of ids, uint8 [H, W]; 0 is the background."""
    # A histogram takes an eighth of the time of np.unique.
    counts = cv2.calcHist([np.ascontiguousarray(ids_hw)], [0], None, [256], [0, 256]).ravel()
    return {int(i): ids_hw == i for i in np.flatnonzero(counts) if i}


def picture_size(path: Path) -> tuple[int, int]:
    """The (height, width) that `read_image` would return for an image, from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Not for PNG: Pillow decodes all of it to find an orientation. Nor for TIFF, whose size is turned already.
            turned = (
                image.format in ("JPEG", "MPO", "WEBP") and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            )
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as e:
        raise SourceError(f"{path}: not a readable image; expected PNG, JPEG, BMP or TIFF; copy it again") from e
    return (width, height) if turned else (height, width)


def check_size(shape: tuple[int, ...], path: Path, picture: Path) -> None:
    """Raise `SourceError` unless a mask of this shape, read from `path`, has the size of its image."""
    height, width = picture_size(picture)
    if shape[:2] != (height, width):
        size = f"{shape[1]}x{shape[0]}"
        raise SourceError(
            f"{path}: the mask is {size}, its image {picture.name} is {width}x{height}; expected one size"
        )
