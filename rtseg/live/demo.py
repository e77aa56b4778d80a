"""`rtseg demo`: the live pipeline on what comes with the package: a recording, the shipped weights, and a viewer.

The recording (`RECORDING`, which `python -m rtseg.live.demo` makes) shows a synthetic endoscope, and is played as a
camera would: drawing the scene would take the CPU from the network. The viewer is a subscriber like any other: it
records what was sent over the wire. The truth is known, so each mask is judged afterwards, on its own frame.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..base.colors import color_of
from ..base.errors import OutputError
from ..base.files import atomic_path
from ..base.timing import Histogram
from ..base.types import BoolMask, Frame, ImageU8, Prompt, now_ns
from ..engine.recipe import Recipe
from ..grab import open_source
from ..publish import Message, Mp4Writer, Subscriber
from ..synthetic import HELD_OUT_SEED, EndoscopeSource
from . import Feed, run_live
from .console_process import free_port, is_installed
from .object_looks import Preset
from .profile import Publish, StreamProfile

SEED = HELD_OUT_SEED + 10  # a scene that no training draws
ENGINE = Recipe("micro", "package:micro", 224)  # fast enough before anything is built for this machine
LEAST_SIZE = 160  # pixels: the network's image size where the machine is too slow for more
SECONDS = 20.0
SOURCE = f"synthetic:laparoscopy?width=800&height=450&fps=25&seed={SEED}&seconds={SECONDS:g}"
ENDLESS = SOURCE.replace(f"seconds={SECONDS:g}", "seconds=1000000")
RECORDING = Path(__file__).with_name("demo.mp4")  # of SOURCE, in order
LABELS = {1: "scissors", 2: "grasper"}
PRESETS = (*LABELS.values(), "hook", "clip applier", "gallbladder", "liver")  # classes to choose from on the page
JUDGE_EACH = 3  # every third frame with masks is judged, from the second on: the first was prompted
POSTER_AFTER = 3.0  # seconds: by then the masks are the tracker's own
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class DemoViewer(threading.Thread):
    """Receives the overlay of a feed as a second display would, and stores it.

    The video is written afterwards: its encoder would take a quarter of a small machine from the network.
    """

    def __init__(self, endpoint: str, seconds: float) -> None:
        """`seconds`: how long a part of the stream is stored, from its beginning."""
        super().__init__(name="viewer")
        self._seconds = seconds
        self.subscriber = Subscriber(endpoint, ("overlay", "masks", "status"))
        self.kinds = dict.fromkeys(("overlay", "masks", "status"), 0)
        self.masks: list[Message] = []
        self.delay = Histogram()
        self._jpegs: list[ImageU8] = []  # of the overlay, a tenth of its size
        self._poster_hwc: ImageU8 | None = None
        self._poster_rank = (False, -1)

    def run(self) -> None:
        for message in self.subscriber:
            if message.kind != "status" and _seconds(message.header) >= self._seconds:
                self.subscriber.close()
                break
            self.kinds[message.kind] += 1
            if message.kind == "masks":
                self.masks.append(message)
            if message.kind == "overlay":
                self.delay.add((now_ns() - message.header["captured_ns"]) / 1e6)
                image_hwc = message.image_hwc()
                self._jpegs.append(np.asarray(cv2.imencode(".jpg", image_hwc[..., ::-1], _JPEG)[1], np.uint8))
                self._update_poster(message.header, image_hwc)

    def _update_poster(self, header: dict[str, Any], image_hwc: ImageU8) -> None:
        """Use the picture as the poster if it shows both objects better: apart, or with the smaller one larger."""
        seconds = _seconds(header)
        areas, boxes = [o["area"] for o in header["objects"]], [o["box"] for o in header["objects"]]
        if header["state"] != "fresh" or len(areas) < len(LABELS) or seconds < POSTER_AFTER:
            return
        rank = _apart(boxes[0], boxes[1], header["width"] // 6), min(areas)
        if rank > self._poster_rank:
            self._poster_rank, self._poster_hwc = rank, image_hwc

    def finish(self) -> None:
        """Stop receiving."""
        self.subscriber.close()
        self.join()

    def write(self, folder: Path, width: int, height: int, fps: float) -> list[str]:
        """Write `overlay.mp4` and `poster.png` into a folder; returns the paths of those that were written."""
        poster, video = folder / "poster.png", folder / "overlay.mp4"
        poster.unlink(missing_ok=True)  # of an earlier run
        with Mp4Writer(video, width, height, fps) as recorder:
            for jpeg in self._jpegs:
                recorder.write(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), np.uint8))
        if self._poster_hwc is not None:
            with atomic_path(poster) as part:
                part.write_bytes(cv2.imencode(".png", self._poster_hwc[..., ::-1])[1].tobytes())
        return [str(path) for path in (video, poster) if path.exists()]


def demo(out: str | Path = "out/demo", seconds: float = SECONDS, stay: bool = False) -> dict[str, Any]:
    """Run the live pipeline on the recording; leaves `overlay.mp4` and `poster.png` in `out`.

    Where the extra `console` is installed, the feed can be watched and pointed at in a browser. `stay`: it goes on
    until Ctrl-C, on a scene that is drawn as it is shown; what is judged and written is the beginning.

    Returns the feed's report, what the viewer received, and the IoU of each tool against the truth.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be made ({e.strerror}); expected a folder that can be written") from e
    source = EndoscopeSource(SOURCE)
    viewers: list[DemoViewer] = []

    def ready(feed: Feed, endpoint: str) -> None:
        viewers.append(DemoViewer(endpoint, seconds))
        viewers[0].start()

    ends = None if stay or seconds >= SECONDS else seconds
    profile = replace(_profile(source), source=ENDLESS) if stay else _profile(source)
    try:
        report = run_live(profile, ends, ready=ready, console=_console_port())
    finally:
        for viewer in viewers:
            viewer.finish()
    if not viewers:  # the feed was ended before anything could be seen
        return report
    viewer = viewers[0]
    return {
        **report,
        "display": {"received": viewer.kinds, "glass-to-display ms": viewer.delay.summary()},
        "iou": judge(SOURCE, {message.seq: message.masks() for message in viewer.masks[1::JUDGE_EACH]}),
        "wrote": viewer.write(folder, source.width, source.height, source.fps),
    }


def _console_port() -> int | None:
    """The port for the page, if a page can be shown."""
    return free_port() if is_installed() else None


def _profile(source: EndoscopeSource) -> StreamProfile:
    """The feed of the demo: the recording, with the true masks of its first frame as prompts."""
    first_hw = _truth(source.frame(0))
    return StreamProfile(
        str(RECORDING),
        "demo",
        ENGINE,
        objects=tuple(Prompt(i, mask=first_hw == i, label=label) for i, label in LABELS.items()),
        presets=tuple(Preset(label, color_of(n)) for n, label in enumerate(PRESETS, 1)),
        publish=Publish("tcp://127.0.0.1:*"),
        carry="behind",
        least_image_size=min(LEAST_SIZE, ENGINE.image_size),
    )


def judge(uri: str, wanted: dict[int, dict[int, BoolMask]]) -> dict[str, Any]:
    """Mean IoU of each object where it is visible, and how often a mask was empty where it is not.

    `wanted`: the masks of some frames, by seq and object, bool [H, W]. Each frame is drawn again to know its truth.
    """
    visible: dict[int, list[float]] = {i: [] for i in LABELS}
    absent: dict[int, list[bool]] = {i: [] for i in LABELS}
    scene = EndoscopeSource(uri)
    for seq, masks in wanted.items():
        ids_hw = _truth(scene.frame(seq))
        for i in masks:  # none while objects are being restored
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


def _seconds(header: dict[str, Any]) -> float:
    """The source's own time of a frame."""
    return float(header["pts"] * header["time_base"][0] / header["time_base"][1])


def _apart(a: list[int], b: list[int], gap: int) -> bool:
    """Whether two boxes x0, y0, x1, y1 have a gap between them, side by side."""
    return a[2] + gap <= b[0] or b[2] + gap <= a[0]


def _truth(frame: Frame) -> ImageU8:
    assert frame.truth_hw is not None  # every frame of the synthetic source has a truth
    return frame.truth_hw


def record(path: Path) -> None:
    """Draw SOURCE and write it to a file; run this again after a change to the synthetic endoscope."""
    with open_source(SOURCE) as source, Mp4Writer(path, source.width, source.height, source.fps) as recorder:
        for frame in source:
            recorder.write(frame.image_hwc)


if __name__ == "__main__":
    record(RECORDING)
