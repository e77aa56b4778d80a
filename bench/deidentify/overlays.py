"""Text that a recorder would have burned in: drawn on the clips, and how much of it is still to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rtseg.base.types import BoolMask, Frame, ImageU8
from rtseg.offline.deidentify import Deidentify

from .streams import clip

FRAMES, FROM = 22, 10  # of each clip; the text is there from this frame on
INK = 40  # grey levels by which a pixel has to change to be ink
COVERED = 0.99  # of the ink
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN)
COLOURS = ((255, 255, 255), (240, 240, 90), (90, 255, 120), (20, 20, 20), (120, 200, 255))
WORDS = ("DOE, JANE", "12-03-1961", "ID 4811007", "M 58Y", "Dr. Smith 08:41:12")


@dataclass(frozen=True, slots=True)
class Overlay:
    """One text on a clip: the share of its ink that is black in its worst frame, and that frame."""

    name: str
    covered: float
    worst_hwc: ImageU8


def overlays(data: Path, count: int = 24) -> Iterator[Overlay]:
    """Texts of several fonts, sizes, colours and places, half of them with a clock that runs."""
    clips = {name: clip(data / "clips" / name, FRAMES) for name in ("laparoscopy_720p.mp4", "cholecystectomy_480p.mp4")}
    for n in range(count):
        rng = np.random.default_rng((n, 9))
        name = tuple(clips)[n % 2]
        height, width = clips[name][0].shape[:2]
        size = float(rng.uniform(0.022, 0.05)) * height  # of the letters, in pixels
        font, colour = FONTS[int(rng.integers(len(FONTS)))], COLOURS[int(rng.integers(len(COLOURS)))]
        scale = size / cv2.getTextSize("A", font, 1.0, 1)[0][1]
        thick = max(1, round(size / 12))
        text = WORDS[int(rng.integers(len(WORDS)))]
        room = cv2.getTextSize(text + " 0000", font, scale, thick)[0][0]
        place = int(rng.uniform(0.01, 0.98) * (width - room)), int(rng.uniform(0.05, 0.98) * height)
        drawn, inks = [], []
        for t, picture_hwc in enumerate(clips[name]):
            written_hwc, words = picture_hwc.copy(), f"{text} {t:04d}" if n % 4 == 0 else text
            if t >= FROM:
                cv2.putText(written_hwc, words, place, font, scale, colour, thick, cv2.LINE_AA)
            drawn.append(written_hwc)
            inks.append(np.abs(written_hwc.astype(int) - picture_hwc).max(2) > INK)
        covered, worst_hwc = _worst(drawn, inks)
        yield Overlay(f"{name}: {size:.0f} px, {colour}, at {place}", covered, worst_hwc)


def _worst(drawn: Sequence[ImageU8], inks: Sequence[BoolMask]) -> tuple[float, ImageU8]:
    """The least share of the ink that is black in any frame, and that frame as it is written."""
    worst = (1.0, drawn[-1])
    for picture_hwc, ink_hw in zip(masked(drawn), inks, strict=True):
        if ink_hw.any():
            share = float((picture_hwc[ink_hw].max(1) == 0).mean())
            worst = min(worst, (share, picture_hwc), key=lambda one: one[0])
    return worst


def masked(pictures: Sequence[ImageU8]) -> list[ImageU8]:
    hide = Deidentify(["text"])
    return [hide.picture(frame).image_hwc for frame in hide.ahead(Frame(p, n) for n, p in enumerate(pictures))]


def masked_share(pictures: Sequence[ImageU8]) -> float:
    """The share of the lit pixels of pictures without text that are black all the same."""
    lost = lit = 0
    for before_hwc, after_hwc in zip(pictures, masked(pictures), strict=True):
        lit_hw = before_hwc.max(2) > 26
        lit += int(lit_hw.sum())
        lost += int((lit_hw & (after_hwc.max(2) == 0)).sum())
    return lost / max(1, lit)
