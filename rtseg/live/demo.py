"""The main job on what comes with the package: a recording, the shipped weights, and a display of its own.

The recording (`RECORDING`, which `python -m rtseg.live.demo` makes) is of a synthetic endoscope, and is played as a
camera would, so that the network has the machine. The display is a subscriber like any other: what it records is what
went over the wire. The truth is known, so the masks are judged afterwards, each on the frame it is of.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..base.errors import OutputError
from ..base.files import atomic_path
from ..base.timing import Histogram
from ..base.types import BoolMask, Frame, ImageU8, Prompt, now_ns
from ..engine.recipe import Recipe
from ..grab import open_source
from ..publish import Message, Mp4Writer, Subscriber
from ..synthetic import HELD_OUT_SEED, EndoscopeSource
from . import Feed, run_live
from .profile import Publish, StreamProfile

SEED = HELD_OUT_SEED + 10  # a scene that no training draws
ENGINE = Recipe("micro", "package:micro", 224)  # which keeps up before anything is built for this machine
LEAST = 160  # pixels that the network sees where the machine is too slow for more
SECONDS = 20.0
SOURCE = f"synthetic:laparoscopy?width=800&height=450&fps=25&seed={SEED}&seconds={SECONDS:g}"
RECORDING = Path(__file__).with_name("demo.mp4")  # of SOURCE, in order
LABELS = {1: "scissors", 2: "grasper"}
JUDGE_EACH = 3  # of the frames with masks, after the prompted one, so many are one that is judged
POSTER_AFTER = 3.0  # seconds: by then the masks are the tracker's own
_KEPT = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class Display(threading.Thread):
    """Receives the overlay of a feed as an operating room would, and keeps it.

    The video is written afterwards: its encoder would take a quarter of a small machine from the network.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(name="display")
        self.subscriber = Subscriber(endpoint, ("overlay", "masks", "status"))
        self.kinds = dict.fromkeys(("overlay", "masks", "status"), 0)
        self.masks: list[Message] = []
        self.delay = Histogram()
        self._kept: list[ImageU8] = []  # JPEGs of the overlay, of a tenth of its size
        self._poster_hwc: ImageU8 | None = None
        self._best = (False, -1)

    def run(self) -> None:
        for message in self.subscriber:
            self.kinds[message.kind] += 1
            if message.kind == "masks":
                self.masks.append(message)
            if message.kind == "overlay":
                self.delay.add((now_ns() - message.header["captured_ns"]) / 1e6)
                image_hwc = message.image_hwc()
                self._kept.append(np.asarray(cv2.imencode(".jpg", image_hwc[..., ::-1], _KEPT)[1], np.uint8))
                self._consider(message.header, image_hwc)

    def _consider(self, header: dict[str, Any], image_hwc: ImageU8) -> None:
        """The poster shows both objects, apart if they ever are, and of those pictures the larger smaller one."""
        seconds = header["pts"] * header["time_base"][0] / header["time_base"][1]
        areas, boxes = [o["area"] for o in header["objects"]], [o["box"] for o in header["objects"]]
        if header["state"] != "fresh" or len(areas) < len(LABELS) or seconds < POSTER_AFTER:
            return
        value = _apart(boxes[0], boxes[1], header["width"] // 6), min(areas)
        if value > self._best:
            self._best, self._poster_hwc = value, image_hwc

    def finish(self) -> None:
        """Stop receiving."""
        self.subscriber.close()
        self.join()

    def write(self, folder: Path, width: int, height: int, fps: float) -> list[str]:
        """Put `overlay.mp4` and `poster.png` into a folder; the files that there are."""
        poster, video = folder / "poster.png", folder / "overlay.mp4"
        poster.unlink(missing_ok=True)  # of an earlier run
        with Mp4Writer(video, width, height, fps) as recorder:
            for jpeg in self._kept:
                recorder.write(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), np.uint8))
        if self._poster_hwc is not None:
            with atomic_path(poster) as part:
                part.write_bytes(cv2.imencode(".png", self._poster_hwc[..., ::-1])[1].tobytes())
        return [str(path) for path in (video, poster) if path.exists()]


def demo(out: str | Path = "out/demo", seconds: float = SECONDS) -> dict[str, Any]:
    """Run the live pipeline on the recording; leaves `overlay.mp4` and `poster.png` in `out`.

    Returns the feed's report, what the display received, and the IoU of each tool against the truth.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be made ({e.strerror}); expected a folder that can be written") from e
    source = EndoscopeSource(SOURCE)
    first_hw = _truth(source.frame(0))
    prompts = tuple(Prompt(i, mask=first_hw == i, label=label) for i, label in LABELS.items())
    profile = StreamProfile(
        str(RECORDING), "demo", ENGINE, objects=prompts, publish=Publish("tcp://127.0.0.1:*"), carry="behind",
        least_image_size=min(LEAST, ENGINE.image_size),
    )  # fmt: skip
    displays: list[Display] = []

    def ready(feed: Feed, endpoint: str) -> None:
        displays.append(Display(endpoint))
        displays[0].start()

    try:
        report = run_live(profile, seconds if seconds < SECONDS else None, ready=ready)
    finally:
        for display in displays:
            display.finish()
    if not displays:  # it was ended before anything could be seen
        return report
    seen = displays[0]
    wrote = seen.write(folder, source.width, source.height, source.fps)
    return {
        **report,
        "display": {
            "received": seen.kinds,
            "glass-to-display ms": seen.delay.summary(),
        },
        "iou": judge(SOURCE, {message.seq: message.masks() for message in seen.masks[1::JUDGE_EACH]}),
        "wrote": wrote,
    }


def judge(uri: str, wanted: dict[int, dict[int, BoolMask]]) -> dict[str, Any]:
    """Mean IoU of each object where it is visible, and how often a mask was empty where it is not.

    `wanted`: the masks of some frames, by seq and object, bool [H, W]. Each frame is drawn again to know its truth.
    """
    visible: dict[int, list[float]] = {i: [] for i in LABELS}
    absent: dict[int, list[bool]] = {i: [] for i in LABELS}
    scene = EndoscopeSource(uri)
    for seq, masks in wanted.items():
        ids_hw = _truth(scene.frame(seq))
        for i in masks:  # while objects are restored there are none
            truth_hw, mask_hw = ids_hw == i, masks[i]
            if truth_hw.any():
                visible[i].append(float((truth_hw & mask_hw).sum() / (truth_hw | mask_hw).sum()))
            else:
                absent[i].append(not mask_hw.any())
    per_object = {LABELS[i]: round(float(np.mean(v)), 3) for i, v in visible.items() if v}
    everything = [x for v in visible.values() for x in v]
    empty = [ok for rows in absent.values() for ok in rows]
    return {
        **per_object,
        "mean": round(float(np.mean(everything)), 3) if everything else None,
        "frames judged": len(wanted),
        "empty where absent": f"{sum(empty)} of {len(empty)}",
    }


def _apart(a: list[int], b: list[int], gap: int) -> bool:
    """Whether two boxes x0, y0, x1, y1 have a gap between them, side by side."""
    return a[2] + gap <= b[0] or b[2] + gap <= a[0]


def _truth(frame: Frame) -> ImageU8:
    assert frame.truth_hw is not None  # the synthetic source always knows
    return frame.truth_hw


def record(path: Path) -> None:
    """Draw SOURCE and write it to a file: after a change to the synthetic endoscope, the recording is made anew."""
    with open_source(SOURCE) as source, Mp4Writer(path, source.width, source.height, source.fps) as recorder:
        for frame in source:
            recorder.write(frame.image_hwc)


if __name__ == "__main__":
    record(RECORDING)
