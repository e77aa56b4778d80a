"""Codes the newest picture of a feed as JPEG: once for each size that somebody waits for, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from ..base.types import ImageU8

QUALITY: Final = 90  # 720p: 1.8 ms and 106 kB for the synthetic endoscope; 95 has 158 kB
DIVISORS: Final = (1, 2, 4)  # sizes that are sent: the source's own, half and a quarter of it


@dataclass(frozen=True, slots=True, eq=False)
class RawPicture:
    """A picture as a source gives it. `captured_ns` is None where its clock is another.

    `sample_aspect`: the width of a pixel divided by its height.
    """

    seq: int
    session: str
    width: int
    height: int
    captured_ns: int | None
    pixels: bytes | memoryview = field(repr=False)  # rgb24 of this size, or a JPEG
    is_jpeg: bool = False
    sample_aspect: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class CodedPicture:
    """A picture as it is sent. `number` counts the pictures of a feed; `jpeg` is shared by all viewers."""

    number: int
    divisor: int
    width: int
    height: int
    raw: RawPicture = field(repr=False)
    jpeg: bytes = field(repr=False)


def divisor_for(source_width: int, wanted_width: int | None) -> int:
    """By how much a picture is divided for a viewer that shows it `wanted_width` pixels wide; None: not at all."""
    if wanted_width is None:
        return 1
    return max(divisor for divisor in DIVISORS if divisor == 1 or source_width >= divisor * wanted_width)


def code(raw: RawPicture, divisor: int) -> tuple[int, int, bytes]:
    """Width, height and JPEG of a picture. `cv2.error` or `ValueError` if it is broken."""
    if raw.is_jpeg and divisor == 1:
        return raw.width, raw.height, bytes(raw.pixels)
    flat = np.frombuffer(raw.pixels, np.uint8)
    if raw.is_jpeg:
        image_bgr: ImageU8 = np.asarray(cv2.imdecode(flat, cv2.IMREAD_COLOR), np.uint8)
    else:
        image_bgr = np.asarray(cv2.cvtColor(flat.reshape(raw.height, raw.width, 3), cv2.COLOR_RGB2BGR), np.uint8)
    size = max(1, raw.width // divisor), max(1, raw.height // divisor)
    if divisor > 1:
        image_bgr = np.asarray(cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError(f"a {raw.width}x{raw.height} picture cannot be coded as JPEG")
    return *size, jpeg.tobytes()


class Encoder:
    """Codes pictures in its own thread. Thread-safe.

    Attributes:
        coded: how many pictures were coded, all sizes together.
        bad: how many could not be coded.
    """

    def __init__(self, name: str, coded: Callable[[CodedPicture], None]) -> None:
        """Begin. `coded` is called in the thread with each coded picture."""
        self.coded = self.bad = 0
        self._give = coded
        self._news = threading.Condition()
        self._raw: RawPicture | None = None
        self._number = 0
        self._wanted: set[int] = set()
        self._done: dict[int, int] = {}  # by divisor: the number of the picture that was coded last
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"encode {name}", daemon=True)
        self._thread.start()

    def offer(self, raw: RawPicture) -> None:
        """The newest picture; it replaces one that was not coded yet."""
        with self._news:
            self._raw, self._number = raw, self._number + 1
            self._news.notify()

    def forget(self) -> None:
        """Drop a picture that was not coded yet: it has become old."""
        with self._news:
            self._raw = None

    def want(self, divisor: int) -> None:
        """Somebody waits for a picture of this size that is newer than the last one coded."""
        with self._news:
            self._wanted.add(divisor)
            self._news.notify()

    def close(self) -> None:
        """Stop. May be called again."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _next(self) -> int | None:
        if self._raw is None:
            return None
        return next((one for one in sorted(self._wanted) if self._done.get(one) != self._number), None)

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closed or self._next() is not None)
                divisor, raw, number = self._next(), self._raw, self._number
                if self._closed or divisor is None or raw is None:
                    return
                self._wanted.discard(divisor)
                self._done[divisor] = number
            try:
                width, height, jpeg = code(raw, divisor)
            except (cv2.error, ValueError, TypeError):  # broken pixels: the next picture may be whole
                self.bad += 1
                self.want(divisor)
                continue
            self.coded += 1
            self._give(CodedPicture(number, divisor, width, height, raw, jpeg))
