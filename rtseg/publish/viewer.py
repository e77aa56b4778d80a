"""Shows the overlay of a feed in a window, saves it as PNG files, or only counts it.

Old pictures are marked as such.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ..base.errors import OutputError
from ..base.files import atomic_path, unwritable
from ..base.types import ImageU8
from .subscriber import Subscriber
from .window import Window
from .wire import Message, aspect_of

_NO_SIGNAL_S = 1.0


class _Screen(Protocol):
    def show(self, image_hwc: ImageU8) -> None: ...
    def quit(self) -> bool: ...
    def close(self) -> None: ...


class _NoWindow:
    """No window."""

    def show(self, image_hwc: ImageU8) -> None:
        pass

    def quit(self) -> bool:
        return False

    def close(self) -> None:
        pass


def dimmed(image_hwc: ImageU8, text: str) -> ImageU8:
    """A picture that cannot be mistaken for a live one: grey and dark, with the reason in its middle."""
    grey_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)
    veiled_hwc = np.repeat((grey_hw // 3)[..., None], 3, axis=2)
    height, width = grey_hw.shape
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = min(0.7 * width / text_width, 0.1 * height / text_height)
    thick = max(1, round(2 * scale))
    origin = round((width - text_width * scale) / 2), round((height + text_height * scale) / 2)
    for color, extra in (((0, 0, 0), 4), ((255, 255, 255), 0)):
        cv2.putText(veiled_hwc, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick + extra, cv2.LINE_AA)
    return np.asarray(veiled_hwc, np.uint8)


def displayed(image_hwc: ImageU8, sample_aspect: Fraction) -> ImageU8:
    """The picture resampled to square pixels, as a window needs it."""
    if sample_aspect == 1:
        return image_hwc
    height, width = image_hwc.shape[:2]
    wide, tall = (round(width * sample_aspect), height) if sample_aspect > 1 else (width, round(height / sample_aspect))
    return np.asarray(cv2.resize(image_hwc, (wide, tall), interpolation=cv2.INTER_LINEAR), np.uint8)


class _Watcher:
    """The statistics so far, and the picture to show now."""

    def __init__(self, save: Path | None) -> None:
        self._save = save
        self._image_hwc: ImageU8 = np.zeros((360, 640, 3), np.uint8)
        self._seen_s = time.monotonic()
        self._ages_ms: deque[float] = deque(maxlen=10_000)
        self._mask_ages_ms: deque[float] = deque(maxlen=10_000)
        self.frames = self.bad = self.outages = 0
        self.silent = False
        self.state: str | None = None

    def receive(self, message: Message) -> ImageU8 | None:
        """The picture to show for a message; None if it is broken; `OutputError` if it cannot be saved."""
        try:
            self._image_hwc = message.image_hwc()
        except OutputError:
            self.bad += 1
            return None
        self._seen_s, self.silent, self.state = time.monotonic(), False, message.header["state"]
        self.frames += 1
        age_ms, mask_age_ms = message.age_ms, message.header["mask_age_ms"]
        if mask_age_ms is not None:
            self._mask_ages_ms.append(mask_age_ms)
        if self._save is not None:
            _save_png(self._save / f"{message.seq:08d}.png", self._image_hwc)
        self._image_hwc = displayed(self._image_hwc, aspect_of(message.header))
        if age_ms is None:
            return self._image_hwc
        self._ages_ms.append(age_ms)
        return (
            self._image_hwc if age_ms < 1e3 * _NO_SIGNAL_S else dimmed(self._image_hwc, f"LATE by {age_ms / 1e3:.1f} s")
        )

    def silence(self) -> ImageU8 | None:
        """The picture to show if no message came for too long; None otherwise."""
        silent_s = time.monotonic() - self._seen_s
        if silent_s < _NO_SIGNAL_S:
            return None
        self.outages += not self.silent
        self.silent = True
        return dimmed(self._image_hwc, f"NO SIGNAL for {silent_s:.0f} s")

    def summary(self) -> dict[str, Any]:
        """The statistics, by name. Percentiles are over the last 10,000 pictures."""
        found = {"frames": self.frames, "bad": self.bad, "outages": self.outages, "silent": self.silent}
        ages = {"age_ms": self._ages_ms, "mask_age_ms": self._mask_ages_ms}
        points = {
            f"{name}_p{p}": round(float(np.percentile(values, p)), 2) if values else None
            for name, values in ages.items()
            for p in (50, 95)
        }
        return {**found, "state": self.state, **points}


def _save_png(path: Path, image_hwc: ImageU8) -> None:
    done, png = cv2.imencode(".png", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError(f"{path}: cannot be coded as PNG")
    with atomic_path(path) as part:
        part.write_bytes(png.tobytes())


def _make(folder: Path) -> None:
    """Make the folder for the pictures. They are patient data, so only its owner may read it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise unwritable(folder, e) from e


def _nothing_came(endpoint: str, seconds: float, bad: int) -> str:
    if bad:
        return f"{endpoint}: {bad} messages in {seconds:.0f} s, and no picture in them; is it an rtseg feed?"
    came = f"nothing came from {endpoint} in {seconds:.0f} s"
    return f"{came}: is a feed published there, and is [publish] its port?"


def view(
    endpoint: str,
    *,
    headless: bool = False,
    save: Path | None = None,
    seconds: float | None = None,
    frames: int | None = None,
    keys: Path | None = None,
    server_key: str | Path | None = None,
) -> dict[str, Any]:
    """Show the overlay of a publisher for some `seconds` or `frames`, or until Esc or q is pressed in the window.

    `save`: a folder for one PNG file a picture, created if necessary. After a second without a picture the window says
    NO SIGNAL. Returns the counts of received, missed and bad messages, and their ages; `ok` is False, with a `why`, if
    no picture came. `OutputError` if there is no window, no folder, no disk space, or if the publisher refuses the
    connection from the start. `keys` and `server_key`: as for `Subscriber`.
    """
    if save is not None:
        _make(save)
    screen: _Screen = _NoWindow() if headless else Window(f"rtseg {endpoint}")
    watcher, start_s = _Watcher(save), time.monotonic()
    subscribe = partial(Subscriber, endpoint, ("overlay",), keys=keys, server_key=server_key)
    with closing(screen), suppress(KeyboardInterrupt), subscribe() as subscriber:
        _show(subscriber, screen, watcher, seconds, frames)
    return _report(subscriber, watcher, endpoint, time.monotonic() - start_s)


def _show(
    subscriber: Subscriber, screen: _Screen, watcher: _Watcher, seconds: float | None, frames: int | None
) -> None:
    start_s = time.monotonic()
    while not screen.quit():
        if subscriber.refused and not watcher.frames:
            raise OutputError(subscriber.refused)
        message = subscriber.get("overlay", timeout=0.02)
        image_hwc = None if message is None else watcher.receive(message)
        if image_hwc is None:
            image_hwc = watcher.silence()
        if image_hwc is not None:
            screen.show(image_hwc)
        elapsed_s = time.monotonic() - start_s
        if (seconds is not None and elapsed_s >= seconds) or (frames is not None and watcher.frames >= frames):
            return


def _report(subscriber: Subscriber, watcher: _Watcher, endpoint: str, seconds: float) -> dict[str, Any]:
    missed = {name: getattr(subscriber, name)["overlay"] for name in ("skipped", "lost", "rejected", "late")}
    summary = watcher.summary()
    summary["bad"] += subscriber.bad
    more = {"refused": subscriber.refused} if subscriber.refused else {}
    if not watcher.frames:
        more["why"] = _nothing_came(endpoint, seconds, summary["bad"])
    ok = watcher.frames > 0
    return {"ok": ok, "endpoint": endpoint, "seconds": round(seconds, 2), **summary, **missed, **more}
