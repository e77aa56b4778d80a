"""Frames from a folder of numbered images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError
from ..types import Frame, ImageU8, now_ns
from .source import Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which frame10 follows frame9."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_picture(path: Path) -> ImageU8:
    # OpenCV, not FFmpeg: it reads every TIFF, obeys EXIF orientation, and upsamples JPEG chroma as the readers of
    # datasets do. From memory, because imread pads a JPEG that was cut off with grey and says nothing.
    try:
        coded = np.fromfile(path, np.uint8)
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the file's permissions") from e
    image_hwc = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB) if coded.size else None
    if image_hwc is None:
        raise SourceError(f"{path}: not a readable image; expected PNG, JPEG, BMP or TIFF; copy it again")
    return np.asarray(image_hwc, np.uint8)


class FolderSource(Source):
    """The images of one folder in natural order, all of one size, as 8-bit RGB at a stated rate."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        # A leading dot marks what a file manager left behind: "._0001.jpg" is not an image.
        try:
            files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        except OSError as e:
            raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the folder's permissions") from e
        self._paths = sorted(files, key=natural)
        if not self._paths:
            raise SourceError(f"{folder}: no images in this folder; expected files ending in {', '.join(SUFFIXES)}")
        height, width, _ = read_picture(self._paths[0]).shape
        super().__init__(str(folder), width, height, float(rate), len(self._paths))
        self._time_base = 1 / rate

    def frames(self) -> Iterator[Frame]:
        for seq, path in enumerate(self._paths):
            image_hwc = read_picture(path)
            captured_ns = now_ns()
            height, width, _ = image_hwc.shape
            if (width, height) != (self.width, self.height):
                raise SourceError(
                    f"{path}: {width}x{height}, but the first image is {self.width}x{self.height}; "
                    "expected one size in a folder"
                )
            yield Frame(image_hwc, seq, self.session, seq, self._time_base, captured_ns)
