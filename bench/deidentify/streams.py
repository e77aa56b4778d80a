"""Streams of frames whose truth is known: inside a body, out of it through the port, into the room, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from rtseg.base.types import Frame, ImageU8
from rtseg.offline.deidentify import Deidentify
from rtseg.offline.deidentify.judge import BEFORE, STEADY
from rtseg.synthetic.source import EndoscopeSource

from .pictures import is_grey

INSIDE, LEAVING, OUTSIDE = 40, 12, 25  # frames
SIZE = (480, 270)
HALF = 0.5  # the share of the picture from which a frame of a withdrawal is out-of-body


@dataclass(frozen=True, slots=True)
class Stream:
    """What became of a stream: frames outside and those of them that were shown; frames inside that no margin excuses,
    and those of them that were hidden; and the first frame of each fault.
    """

    name: str
    outside: int
    shown: int
    inside: int
    hidden: int
    leak: ImageU8 | None = None
    alarm: ImageU8 | None = None


def watched(name: str, pictures: list[ImageU8], out: list[bool]) -> Stream:
    """Hide what is out-of-body in these frames, and compare with the truth."""
    hide = Deidentify(["out-of-body"])
    frames = [Frame(picture_hwc, n) for n, picture_hwc in enumerate(pictures)]
    hid = [not np.array_equal(hide.picture(f).image_hwc, f.image_hwc) for f in hide.ahead(frames)]
    excused = [n < STEADY + 1 or any(out[max(0, n - STEADY) : n + BEFORE + 1]) for n in range(len(out))]
    leaks = [n for n, is_out in enumerate(out) if is_out and not hid[n]]
    alarms = [n for n, is_out in enumerate(out) if not is_out and hid[n] and not excused[n]]
    judged = sum(not is_out and not why for is_out, why in zip(out, excused, strict=True))
    first_leak, first_alarm = (pictures[of[0]] if of else None for of in (leaks, alarms))
    return Stream(name, sum(out), len(leaks), judged, len(alarms), first_leak, first_alarm)


def joined(inside: list[ImageU8], outside: list[ImageU8]) -> tuple[list[ImageU8], list[bool]]:
    """Inside, out through the port, outside, and with a cut inside again."""
    last_hwc, first_hwc = inside[-1], outside[0]
    shares = np.linspace(0, 1, LEAVING + 2)[1:-1]
    leaving = [_through_port(last_hwc, first_hwc, float(share)) for share in shares]
    out = [False] * len(inside) + [share >= HALF for share in shares] + [True] * len(outside) + [False] * len(inside)
    return [*inside, *leaving, *outside, *inside], out


def _through_port(inside_hwc: ImageU8, outside_hwc: ImageU8, share: float) -> ImageU8:
    """The inside in a disc that leaves `share` of the picture to the outside."""
    height, width = inside_hwc.shape[:2]
    y_hw, x_hw = np.indices((height, width), np.float32)
    away_hw = np.hypot((y_hw - height / 2) / height, (x_hw - width / 2) / width)
    soft_hw = cv2.GaussianBlur((away_hw < np.quantile(away_hw, 1 - share)).astype(np.float32), (0, 0), 3)[..., None]
    return np.asarray(inside_hwc * soft_hw + outside_hwc * (1 - soft_hw), np.uint8)


def sized(image_hwc: ImageU8) -> ImageU8:
    return np.asarray(cv2.resize(image_hwc, SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def clip(path: Path, count: int | None = None) -> list[ImageU8]:
    """The first frames of a video, in its own size."""
    capture, found = cv2.VideoCapture(str(path)), []
    while (count is None or len(found) < count) and (read := capture.read())[0]:
        found.append(np.ascontiguousarray(read[1][..., ::-1]).astype(np.uint8))
    return found


def streams(data: Path, scenes: int = 6) -> Iterator[Stream]:
    """The real clips and synthetic scenes as they are, and both joined with DAVIS's validation sequences."""
    clips = {name: clip(data / "clips" / name) for name in ("laparoscopy_720p.mp4", "cholecystectomy_480p.mp4")}
    for name, pictures in clips.items():
        yield watched(f"clip: {name}", pictures, [False] * len(pictures))
    bodies = {name: [sized(p) for p in pictures[:INSIDE]] for name, pictures in clips.items()}
    for seed in range(1001, 1001 + 2 * scenes, 2):  # odd: those of the test
        source = EndoscopeSource(f"synthetic:laparoscopy?seconds=4&seed={seed}&width=480&height=270&fps=25")
        if not is_grey(source.frame(0).image_hwc):
            pictures = [source.frame(seq).image_hwc for seq in range(2 * INSIDE)]
            bodies[f"synthetic {seed}"] = pictures[:INSIDE]
            yield watched(f"scene: {seed}", pictures, [False] * len(pictures))
    folders = sorted((data / "davis-subset" / "JPEGImages").iterdir())
    names = list(bodies)
    for n, folder in enumerate(folders):
        rooms = [sized(_read(path)) for path in islice(sorted(folder.glob("*.jpg")), OUTSIDE)]
        name = names[n % len(names)]
        yield watched(f"joined: {name}, {folder.name}", *joined(bodies[name], rooms))


def _read(path: Path) -> ImageU8:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
