"""Pictures with a label, by video: inside a body, or not. Nothing of them is kept in the repository.

What is here of operations are stills and two short clips; outside of a body there are everyday pictures (DAVIS,
BSDS500), the few pictures of laparoscopy-stills that show the room, drapes or a screen, and cloths, gauze and skin
drawn here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rtseg.base.types import ImageU8
from rtseg.synthetic.source import EndoscopeSource

WIDTH = 240  # pixels to which wider pictures are reduced: the classifier looks at 96
# laparoscopy-stills: 16 operations of 20 pictures. Looked at one by one; the rest is inside, or black.
OUTSIDE = {3, 29, 34, 35, 36, 37, 38, 39, 40, 47, 77, 100, 102, 103, 104, 140, 148, 152, 153, 154, 155, 159, 178, 179,
           185, 204, 236, 255, 283}  # fmt: skip
# Inside a trocar, blurred beyond telling, or half and half: nobody can say, so neither counts.
UNCLEAR = {16, 20, 58, 60, 68, 88, 112, 122, 151, 160, 168, 180, 197, 220, 240, 313, 315, 316, 318}
BLACK = 20  # grey levels: a picture whose mean is not above this is no example


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture, uint8 RGB [H, W, 3]; whether it is out-of-body; its video, and where it comes from."""

    image_hwc: ImageU8
    out: bool
    video: str
    kind: str


def is_test(video: str) -> bool:
    """Whether a video is kept for the test. Each third operation, and what the data's own split keeps."""
    name, _, part = video.rpartition("/")
    if name == "laparoscopy-stills":
        return int(part) % 3 == 2
    if name == "synthetic":
        return int(part) % 2 == 1
    if name == "drawn":
        return zlib.crc32(part.encode()) % 3 == 0
    return video in ("endovis15-stills/op3", "bsds500/val") or name in ("davis-subset", "clips")


def read(path: Path) -> ImageU8:
    """A picture as uint8 RGB, at most `WIDTH` wide."""
    image_hwc = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image_hwc is not None, path
    return reduced(np.asarray(image_hwc, np.uint8))


def reduced(image_hwc: ImageU8) -> ImageU8:
    height, width = image_hwc.shape[:2]
    if width <= WIDTH:
        return image_hwc
    return np.asarray(cv2.resize(image_hwc, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA))


def examples(data: Path, synthetic: int = 30) -> Iterator[Example]:
    """Every picture that is used, of training and of test."""
    yield from stills(data / "laparoscopy-stills")
    for path in sorted((data / "endovis15-stills" / "JPEGImages").glob("*/*")):
        yield Example(read(path), False, f"endovis15-stills/{path.parent.name}", "endovis")
    yield from clips(data / "clips")
    for seed in range(synthetic):
        source = EndoscopeSource(f"synthetic:laparoscopy?seconds=20&seed={1000 + seed}&width=240&height=180&fps=25")
        for seq in range(0, 500, 180):
            image_hwc = source.frame(seq).image_hwc
            if not is_grey(image_hwc):
                yield Example(image_hwc, False, f"synthetic/{seed}", "synthetic")
    for name, step in (("davis-train", 8), ("davis-subset", 8)):
        for folder in sorted((data / name / "JPEGImages").iterdir()):
            for path in sorted(folder.glob("*.jpg"))[::step]:
                yield Example(read(path), True, f"{name}/{folder.name}", "davis")
    for part in ("train", "test", "val"):
        for path in sorted((data / "bsds500" / "JPEGImages" / part).glob("*.jpg")):
            yield Example(read(path), True, f"bsds500/{part}", "bsds")
    yield from drawn()


def stills(folder: Path) -> Iterator[Example]:
    """Those of laparoscopy-stills about which a person can tell."""
    for path in sorted(folder.glob("*.jpg")):
        number = int(path.stem)
        image_hwc = read(path)
        if number not in UNCLEAR and (image_hwc.mean() > BLACK or number in OUTSIDE):
            kind = "room" if number in OUTSIDE else "stills"
            yield Example(image_hwc, number in OUTSIDE, f"laparoscopy-stills/{number // 20}", kind)


def clips(folder: Path, step: int = 5) -> Iterator[Example]:
    """Every fifth frame of the two clips of laparoscopies."""
    for name in ("laparoscopy_720p.mp4", "cholecystectomy_480p.mp4"):
        capture, n = cv2.VideoCapture(str(folder / name)), 0
        while (found := capture.read())[0]:
            if n % step == 0:
                yield Example(reduced(np.asarray(found[1][..., ::-1], np.uint8)), False, f"clips/{name}", "clip")
            n += 1


def is_grey(image_hwc: ImageU8) -> bool:
    return float((image_hwc.max(2).astype(int) - image_hwc.min(2)).mean()) < 4


def drawn(count: int = 240) -> Iterator[Example]:
    """Cloths in blue and green, gauze, metal, and skin without features: soft folds in one colour, with some weave."""
    colours = {
        "drape": ((40, 90, 150), (30, 120, 130), (60, 140, 110), (120, 160, 210), (25, 50, 90)),
        "gauze": ((225, 225, 220), (235, 228, 215), (210, 215, 220)),
        "metal": ((150, 155, 160), (110, 112, 118), (180, 180, 178)),
        "skin": ((225, 180, 160), (200, 150, 120), (150, 100, 75), (95, 60, 45), (240, 200, 185)),
    }
    for n in range(count):
        rng = np.random.default_rng((n, 77))
        kind = tuple(colours)[n % len(colours)]
        image_hwc = np.empty((180, 240, 3), np.float32)
        image_hwc[:] = colours[kind][int(rng.integers(len(colours[kind])))] + rng.normal(0, 10, 3)
        for scale, strength in ((8, 0.5), (30, 0.25), (120, 0.06)):
            folds_hw = rng.normal(0, 1, (max(2, scale * 3 // 4), scale)).astype(np.float32)
            image_hwc *= 1 + strength * rng.uniform(0.1, 0.9) * cv2.resize(folds_hw, (240, 180))[..., None] / 2
        image_hwc += rng.normal(0, rng.uniform(0, 6), image_hwc.shape)
        yield Example(image_hwc.clip(0, 255).astype(np.uint8), True, f"drawn/{n}", kind)
