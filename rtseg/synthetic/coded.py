"""Frames that carry their number as a visible code, to measure which frame arrived where, and when.

The code is a plate of black and white blocks in the upper left corner, 28 x 4 blocks with a white rim of one block:

    # . # # #  .  16 columns x 4 rows of bits  .  # # # . #

The bars at its ends are found along a row, at any position and scale. The bits are the number and its CRC-32, so that
nothing else is read as a number.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qsl

import cv2
import numpy as np
import numpy.typing as npt

from ..base.errors import SourceError
from ..base.source import Source
from ..base.types import Frame, ImageU8, now_ns
from .uri import read_numbers

_EDGES = np.array([0, 1, 2, 5, 23, 26, 27, 28])  # edges of the dark bars, in blocks from the left end
_BLOCKS = 28
_COLUMNS, _ROWS, _FIRST = 16, 4, 6  # of bits, and the block at which they begin
_LIGHT = 128
_MIN_BLOCK = 1.5  # pixels of the smallest block that can be read
_MAX_TRIES = 48  # candidates that are tried: bounds the time that a hostile picture can cost
# Without scrambling, a plain area would be a valid code: the CRC-32 of 32 ones is 32 ones.
_SCRAMBLE = np.unpackbits(np.frombuffer(bytes.fromhex("5ac36996a53cf00f"), np.uint8))
Ints = npt.NDArray[np.int64]


def _bits(number: int) -> ImageU8:
    data = number.to_bytes(4, "big")
    packed = np.frombuffer(data + zlib.crc32(data).to_bytes(4, "big"), np.uint8)
    return np.asarray(np.unpackbits(packed) ^ _SCRAMBLE, np.uint8)


def plate_box(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels of the plate on a picture of this size; `SourceError` if the picture is too small."""
    block = min(width // (_BLOCKS + 2), height // (2 * (_ROWS + 2)), max(8, width // 128))
    if block < 4:
        raise SourceError(f"a picture of {width}x{height}: too small for its number; expected at least 120x48")
    return block * (_ROWS + 2), block * (_BLOCKS + 2)


def stamp(image_hwc: ImageU8, number: int) -> None:
    """Write a number of 32 bits into the upper left corner of a picture, uint8 RGB [H, W, 3], in place."""
    if not 0 <= number < 2**32:
        raise ValueError(f"number {number}; expected 0 to {2**32 - 1}")
    height, width = plate_box(*image_hwc.shape[:2])
    dark = np.zeros((_ROWS + 2, _BLOCKS + 2), np.uint8)
    for start, end in _EDGES.reshape(-1, 2):
        dark[1:-1, start + 1 : end + 1] = 1
    dark[1:-1, _FIRST + 1 : _FIRST + 1 + _COLUMNS] = _bits(number).reshape(_ROWS, _COLUMNS)
    block = height // (_ROWS + 2)
    plate_hw = np.kron(255 * (1 - dark), np.ones((block, block), np.uint8))
    image_hwc[:height, :width] = plate_hw[..., None]


def read(image_hwc: ImageU8) -> int | None:
    """The number on a picture, uint8 RGB [H, W, 3], at any position and scale; None if it cannot be read.

    Survives cropping, scaling, JPEG and video coding; not rotation or mirroring.
    """
    height = image_hwc.shape[0]
    step = max(3, height // 180)
    green_hw = image_hwc[..., 1]  # for black and white as good as luma, and needs no conversion
    tries = 0
    for top, bottom in ((0, height // 6), (height // 6, height)):  # where the plate usually is, then everywhere else
        for y, left, right in _candidates(np.ascontiguousarray(green_hw[top:bottom:step])):
            number = _read_at(green_hw, top + y * step, left, right)
            tries += 1
            if number is not None or tries == _MAX_TRIES:
                return number
    return None


def _candidates(strip_hw: ImageU8) -> Iterator[tuple[int, int, int]]:
    """Candidates for a plate: the row, the left end and the right end of bars like those of a plate."""
    dark_hw = strip_hw < _LIGHT
    dark_hw[:, [0, -1]] = False  # every row begins and ends light, so that a bar at the edge does not count
    flat = dark_hw.reshape(-1).view(np.int8)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    lengths, gaps = ends - starts, starts[1:] - ends[:-1]
    narrow, wide = lengths[:-1], lengths[1:]
    first = np.flatnonzero(_has_bar_ratio(narrow, gaps, wide))
    last = np.flatnonzero(_has_bar_ratio(wide, gaps, narrow))
    if not len(first) or not len(last):
        return
    rights, lefts = ends[last + 1], starts[first]
    blocks = (ends[first + 1] - lefts) / 5
    nearest = np.searchsorted(rights, lefts + _BLOCKS * (blocks - 0.4) - 1)
    for more in range(3):  # bits can look like bars, so the nearest is not always the right one
        pair = np.flatnonzero(nearest + more < len(rights))
        i, j = first[pair], last[nearest[pair] + more]
        found = np.stack(
            [starts[i], ends[i], starts[i + 1], ends[i + 1], starts[j], ends[j], starts[j + 1], ends[j + 1]]
        )
        found -= found[0]
        block = found[-1] / _BLOCKS
        fits = (np.abs(found - _EDGES[:, None] * block) < 0.35 * block + 0.6).all(axis=0) & (block >= _MIN_BLOCK)
        for left, span in zip(starts[i[fits]].tolist(), found[-1, fits].tolist(), strict=True):
            y, x = divmod(left, strip_hw.shape[1])
            if x + span < strip_hw.shape[1]:  # not continued on the next row
                yield y, x, x + span


def _has_bar_ratio(one: Ints, gap: Ints, three: Ints) -> npt.NDArray[np.bool_]:
    """Which of these runs have lengths of about 1 : 1 : 3."""
    block = (one + gap + three) / 5
    slack = 0.4 * block + 0.6
    return np.asarray((np.abs(one - block) < slack) & (np.abs(gap - block) < slack) & (block >= 0.8 * _MIN_BLOCK))


def _read_at(green_hw: ImageU8, y: int, left: int, right: int) -> int | None:
    """The number of the plate whose bars are at row `y` from `left` to `right`; None if it is not a plate."""
    block = (right - left) / _BLOCKS
    reach = math.ceil(3 * _ROWS * block)
    start = max(0, y - reach)
    light = np.flatnonzero(green_hw[start : y + reach, int(left + 3.5 * block)] >= _LIGHT) + start
    above, below = light[light < y], light[light > y]
    if not len(above) or not len(below):
        return None
    top, bottom = above[-1] + 1, below[0]
    tall = (bottom - top) / _ROWS
    if not 0.4 < tall / block < 2.5:
        return None
    within = np.array([0.3, 0.5, 0.7])  # of a block: three samples each way, away from its blurred edges
    rows = (top + (np.arange(_ROWS)[:, None] + within) * tall).astype(int).ravel()
    columns = (left + (_FIRST + np.arange(_COLUMNS)[:, None] + within) * block).astype(int).ravel()
    samples = green_hw[np.ix_(rows, columns)].reshape(_ROWS, 3, _COLUMNS, 3).mean(axis=(1, 3))
    bits = (samples < _LIGHT).astype(np.uint8).ravel() ^ _SCRAMBLE
    packed = np.packbits(bits).tobytes()
    return int.from_bytes(packed[:4], "big") if zlib.crc32(packed[:4]).to_bytes(4, "big") == packed[4:] else None


_DEFAULTS = {"seconds": "60", "fps": "25", "width": "1280", "height": "720"}
_LIMITS = {"seconds": (0, 10**6), "fps": (0, 1000), "width": (120, 7680), "height": (48, 7680)}
_KEYS = (*_DEFAULTS, "stamps")


def _settings(uri: str) -> tuple[dict[str, Fraction], str]:
    """The values in the uri `coded:?key=value&...`, checked, with defaults; and the file for stamps, or ""."""
    head, _, query = uri.removeprefix("coded:").partition("?")
    if head:
        raise SourceError(f"{uri}: found {head!r} after coded:; expected coded:?seconds=60&fps=25")
    given = dict(parse_qsl(query, keep_blank_values=True))
    stamps = given.pop("stamps", "")
    return read_numbers(uri, given, _DEFAULTS, _LIMITS, _KEYS), stamps


def disc_box(height: int, width: int) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the disc on the first picture: an object to track, far from the plate."""
    radius, x, y = height // 8, width * 2 // 3, height * 2 // 3
    return x - radius, y - radius, x + radius, y + radius


class CodedSource(Source):
    """`coded:?seconds=60&fps=25&width=1280&height=720`: each picture carries its index; a disc moves in a circle.

    `stamps=FILE` makes it a camera with its own clock: each picture is released at its due time, counted from the
    first, and the file gets that time: int64 [frames], `now_ns()` just before the release, 0 if it was not released.
    """

    def __init__(self, uri: str, rate: Fraction | None = None) -> None:
        want, self._stamps = _settings(uri)
        self._rate = rate or want["fps"]
        width, height = int(want["width"]), int(want["height"])
        count = max(1, round(want["seconds"] * self._rate))
        super().__init__(uri, width, height, float(self._rate), count)
        self._count = count
        plate_box(height, width)
        rows, columns = np.mgrid[:height, :width]
        shade_hw = 90 + 50 * rows / height + 25 * np.sin(columns / width * 9)
        self._ground_hwc: ImageU8 = np.clip(shade_hw[..., None] * (1.25, 0.62, 0.55), 0, 255).astype(np.uint8)

    def render(self, index: int) -> ImageU8:
        """Picture `index`, uint8 RGB [H, W, 3]."""
        image_hwc = self._ground_hwc.copy()
        x0, y0, x1, y1 = disc_box(self.height, self.width)
        radius, turn = (x1 - x0) / 2, 2 * math.pi * index / (8 * self.fps)
        x = (x0 + x1) / 2 - 0.8 * radius * (1 - math.cos(turn))
        y = (y0 + y1) / 2 + 0.8 * radius * math.sin(turn)
        cv2.circle(image_hwc, (round(x), round(y)), round(radius), (205, 205, 215), cv2.FILLED, cv2.LINE_AA)
        stamp(image_hwc, index)
        return image_hwc

    def frames(self) -> Iterator[Frame]:
        released = self._stamp_file() if self._stamps else None
        start_ns, period_ns = now_ns(), 10**9 / self._rate
        for index in range(self._count):
            image_hwc = self.render(index)
            if released is not None:
                if self._closed.wait(max(0.0, (start_ns + int(index * period_ns) - now_ns()) / 1e9)):
                    return
                released[index] = now_ns()
            yield Frame(image_hwc, index, self.session, index, 1 / self._rate, now_ns())

    def _stamp_file(self) -> npt.NDArray[np.int64]:
        try:
            return np.memmap(self._stamps, np.int64, "w+", shape=(self._count,))
        except OSError as e:
            raise SourceError(f"{self.uri}: stamps: {e.strerror}; expected a file that can be written") from e


def read_stamps(path: Path) -> npt.NDArray[np.int64]:
    """When a source with `stamps=path` released each picture: int64 [frames], ns of the monotonic clock, 0: not yet."""
    return np.fromfile(path, np.int64)
