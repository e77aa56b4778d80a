"""The main job on what comes with the package: a synthetic endoscope, the shipped weights, and a display of its own.

The display is a subscriber like any other: what it records is what went over the wire. The truth is known, so the
masks are judged afterwards, each on the frame it is of.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .config import Publish, Recipe, StreamProfile
from .errors import OutputError
from .grab import HELD_OUT_SEED, open_source
from .live import Feed, run_live
from .publish import Message, Recorder, Subscriber, atomic_path
from .timing import Histogram
from .types import BoolMask, Frame, ImageU8, Prompt, now_ns

SEED = HELD_OUT_SEED + 10  # a scene that no training draws
ENGINE = Recipe("micro", "package:micro", 224)  # which keeps up before anything is built for this machine
SOURCE = f"synthetic:laparoscopy?width=800&height=450&fps=25&seed={SEED}&seconds={{:g}}"
LABELS = {1: "scissors", 2: "grasper"}
JUDGE_EACH = 3  # of the frames with masks, after the prompted one, so many are one that is judged
POSTER_AFTER = 3.0  # seconds: by then the masks are the tracker's own


class Display(threading.Thread):
    """Receives the overlay of a feed as an operating room would, and records it."""

    def __init__(self, endpoint: str, folder: Path, width: int, height: int, fps: float) -> None:
        super().__init__(name="display")
        self.subscriber = Subscriber(endpoint)
        self.kinds = dict.fromkeys(("video", "overlay", "masks", "status"), 0)
        self.masks: list[Message] = []
        self.delay = Histogram()
        self.error: OutputError | None = None
        self._recorder = Recorder(folder / "overlay.mp4", width, height, fps)
        self._poster, self._best = folder / "poster.png", -1
        self._poster_hwc: ImageU8 | None = None
        self._poster.unlink(missing_ok=True)  # of an earlier run

    def run(self) -> None:
        try:
            for message in self.subscriber:
                self.kinds[message.kind] += 1
                if message.kind == "masks":
                    self.masks.append(message)
                if message.kind == "overlay":
                    self.delay.add((now_ns() - message.header["captured_ns"]) / 1e6)
                    self._recorder.write(message.image_hwc())
                    self._consider(message.header, message.image_hwc())
        except OutputError as e:
            self.error = e

    def _consider(self, header: dict[str, Any], image_hwc: ImageU8) -> None:
        """The poster shows both objects apart, and of those pictures it is the one with the larger smaller object."""
        seconds = header["seq"] * header["time_base"][0] / header["time_base"][1]
        areas, boxes = [o["area"] for o in header["objects"]], [o["box"] for o in header["objects"]]
        if header["state"] != "fresh" or len(areas) < len(LABELS) or seconds < POSTER_AFTER:
            return
        if min(areas) > self._best and _apart(boxes[0], boxes[1], header["width"] // 6):
            self._best, self._poster_hwc = min(areas), image_hwc

    def finish(self) -> None:
        """Stop receiving and put the files in place."""
        self.subscriber.close()
        self.join()
        if self.error is not None:
            self._recorder.abort()
            raise self.error
        self._recorder.close()
        if self._poster_hwc is not None:
            with atomic_path(self._poster) as part:
                part.write_bytes(cv2.imencode(".png", self._poster_hwc[..., ::-1])[1].tobytes())


def demo(out: str | Path = "out/demo", seconds: float = 20.0) -> dict[str, Any]:
    """Run the live pipeline on the synthetic endoscope; leaves `overlay.mp4` and `poster.png` in `out`.

    Returns the feed's report, what the display received, and the IoU of each tool against the truth.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be made ({e.strerror}); expected a folder that can be written") from e
    uri = SOURCE.format(seconds)
    with open_source(uri) as source:
        first = next(iter(source))
        prompts = tuple(Prompt(i, mask=_truth(first) == i, label=label) for i, label in LABELS.items())
        profile = StreamProfile(uri, "demo", ENGINE, objects=prompts, publish=Publish("tcp://127.0.0.1:*"))
        displays: list[Display] = []

        def ready(feed: Feed, endpoint: str) -> None:
            displays.append(Display(endpoint, folder, source.width, source.height, source.fps))
            displays[0].start()

        try:
            report = run_live(profile, ready=ready)
        finally:
            for display in displays:
                display.finish()
    seen = displays[0]
    return {
        **report,
        "display": {
            "received": seen.kinds,
            "glass-to-display ms": seen.delay.summary(),
        },
        "iou": judge(uri, {message.seq: message.masks() for message in seen.masks[1::JUDGE_EACH]}),
        "wrote": [str(p) for p in (folder / "overlay.mp4", folder / "poster.png") if p.exists()],
    }


def judge(uri: str, wanted: dict[int, dict[int, BoolMask]]) -> dict[str, Any]:
    """Mean IoU of each object where it is visible, and how often a mask was empty where it is not.

    `wanted`: the masks of some frames, by seq and object, bool [H, W]. Each frame is drawn again to know its truth.
    """
    visible: dict[int, list[float]] = {i: [] for i in LABELS}
    absent: dict[int, list[bool]] = {i: [] for i in LABELS}
    with open_source(uri) as source:
        for frame in source:
            if frame.seq not in wanted:
                continue
            for i in LABELS:
                truth_hw, mask_hw = _truth(frame) == i, wanted[frame.seq][i]
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
