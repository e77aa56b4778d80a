"""What the readers share: listing files, reading pictures and maps, and turning what an annotator drew into masks."""

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
# Folders that hold nothing but files, in some data sets millions: not to be searched for a layout.
CROWDED = ("JPEGImages", "Annotations", "images", "masks", "annotations", "imagesTr", "labelsTr", "imagesTs")
HIDDEN = (".", "__MACOSX")
TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, but for hidden files ("._0001.jpg" is what a file manager left behind)."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(HIDDEN)]
    except OSError as e:
        raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the path and its permissions") from e


def names_in(folder: Path) -> Iterator[str]:
    """The names in a folder of millions, one after the other, as `entries` gives them; in no order."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(HIDDEN):
                    yield entry.name
    except OSError as e:
        raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the path and its permissions") from e


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order; none where there is no such folder."""
    found = entries(folder) if folder.is_dir() else []
    return sorted((Path(entry.path) for entry in found if entry.is_dir()), key=natural)


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these endings in a folder, in natural order; none where there is no such folder."""
    found = entries(folder) if folder.is_dir() else []
    return in_order(Path(entry.path) for entry in found if entry.name.lower().endswith(suffixes))


def frames(folder: Path) -> list[Path]:
    """The pictures that a folder has as a source of frames, in order; none where there is no such folder."""
    return frames_in([Path(entry.path) for entry in entries(folder)])[0] if folder.is_dir() else []


def below(folder: Path, depth: int, wanted: Callable[[Path], bool]) -> list[Path]:
    """The folder itself and those up to `depth` levels below it that are wanted; not looking inside one that is."""
    if wanted(folder):
        return [folder]
    children = folders(folder) if depth and folder.name not in CROWDED else []
    return [found for child in children for found in below(child, depth - 1, wanted)]


def _stem(path: Path) -> str:
    return path.stem


def pair(pictures: Iterable[Path], maps: Iterable[Path], key: Callable[[Path], str] = _stem) -> dict[int, Path]:
    """Maps by the number of the picture with the same key; `SourceError` for a map without a picture."""
    numbers = {key(path): t for t, path in enumerate(pictures)}
    paired: dict[int, Path] = {}
    for path in maps:
        if key(path) not in numbers:
            raise SourceError(f"{path}: there is no picture of this name; expected one for each annotated frame")
        paired[numbers[key(path)]] = path
    return paired


def read_json(path: Path, *expected: type) -> Any:
    """What a JSON file holds; `SourceError` unless it is one of `expected`."""
    try:
        value = json.loads(path.read_bytes())  # whatever its coding
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the path and its permissions") from e
    except (ValueError, RecursionError) as e:
        raise SourceError(f"{path}: not JSON ({e}); copy it again") from e
    if not isinstance(value, expected):
        names = " or a ".join(kind.__name__ for kind in expected)
        raise SourceError(f"{path}: holds a {type(value).__name__}; expected a {names}")
    return value


def read_map(path: Path) -> npt.NDArray[Any]:
    """The numbers of a map, [H, W] of integers: a palette's indices, or grey values, also where they are kept as RGB.

    `SourceError` if it cannot be read, or is a colour picture. Pillow, because OpenCV gives a palette's colours.
    """
    values = read_pixels(path)
    if values.ndim == 3:
        if values.shape[2] > 2 and (values[..., 1:3] != values[..., :1]).any():
            raise SourceError(f"{path}: a picture in colour; expected numbers: a palette or a grey PNG")
        values = values[..., 0]
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        raise SourceError(f"{path}: its values are {values.dtype}; expected whole numbers")
    return values


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """The pixels of a map as they are kept, [H, W] or [H, W, channels]; `SourceError` if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        why = "no image" if isinstance(e, UnidentifiedImageError) else getattr(e, "strerror", None) or e
        raise SourceError(f"{path}: not a readable mask ({why}); expected a PNG; copy it again") from e


def read_colors(path: Path) -> npt.NDArray[np.int32]:
    """The colours of a map, int32 [H, W], each as `color_number`; `SourceError` if it is no picture in colour."""
    pixels = read_pixels(path)
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise SourceError(f"{path}: not a picture in colour; expected one whose colours are classes")
    wide_hwc = pixels.astype(np.int32)
    return np.asarray(wide_hwc[..., 0] << 16 | wide_hwc[..., 1] << 8 | wide_hwc[..., 2], np.int32)


def color_number(color: Sequence[int]) -> int:
    """A colour as one number; what follows red, green and blue is ignored."""
    red, green, blue = color[:3]
    return red << 16 | green << 8 | blue


def as_ids(values_hw: npt.NDArray[Any], path: Path) -> ImageU8:
    """Numbers as ids, uint8 [H, W]; `SourceError` for one that is none."""
    if values_hw.dtype != np.uint8 and values_hw.size:
        low, high = int(values_hw.min()), int(values_hw.max())
        if low < 0 or high > MAX_ID:
            wrong = low if low < 0 else high
            raise SourceError(f"{path}: object {wrong}; expected 0 for the background, and objects from 1 to {MAX_ID}")
    return np.asarray(values_hw, np.uint8)


def split(ids_hw: ImageU8) -> dict[int, BoolMask]:
    """Each id's mask, bool [H, W], of a map of ids, uint8 [H, W]; 0 is the background."""
    # An eighth of the time of np.unique.
    counts = cv2.calcHist([np.ascontiguousarray(ids_hw)], [0], None, [256], [0, 256]).ravel()
    return {int(i): ids_hw == i for i in np.flatnonzero(counts) if i}


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` gives it, from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Not of a PNG: Pillow would decode it all to look for an orientation at its end. A TIFF's size is turned.
            turned = (
                image.format in ("JPEG", "MPO", "WEBP") and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            )
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as e:
        raise SourceError(f"{path}: not a readable image; expected PNG, JPEG, BMP or TIFF; copy it again") from e
    return (width, height) if turned else (height, width)


def check_size(shape: tuple[int, ...], path: Path, picture: Path) -> None:
    """`SourceError` unless a mask of this shape, from `path`, has the size of its picture."""
    height, width = picture_size(picture)
    if shape[:2] != (height, width):
        size = f"{shape[1]}x{shape[0]}"
        raise SourceError(
            f"{path}: the mask is {size}, its picture {picture.name} is {width}x{height}; expected one size"
        )
