"""Pixels of DICOM images as 8-bit RGB, all images of a source alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...base.account import Account
from ...base.errors import SourceError
from ...base.types import ImageU8
from .dicom_file import DicomFile
from .window import DEFAULT_CT, PERCENTILE, check_window, named_limits, percentiles, to_grey

SAMPLED = 9  # images that percentiles are computed from
STEP = 4  # of their pixels, every fourth, down and across
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom makes RGB of all of these
PALETTE = "PALETTE COLOR"

Images = Sequence[tuple[DicomFile, int]]
Grey = Callable[[npt.NDArray[np.float32]], ImageU8]


class DicomPictures:
    """The pictures of DICOM images. `window`: a name, or WIDTH/LEVEL; "": that of the middle image, else by modality.

    One window serves all images: with one for each, the same tissue would change its brightness from slice to slice.
    """

    def __init__(self, images: Images, window: str, account: Account) -> None:
        check_window(window)
        self._images, self._window, self._account = images, window, account
        self._grey: Grey | None = None
        for file, _ in images:
            kind = file.photometric
            if kind not in (*GREY, *COLOR, PALETTE):
                known = ", ".join((*GREY, *COLOR, PALETTE))
                raise SourceError(f"{file.path}: photometric interpretation {kind!r}; expected {known}; convert it")
        file = images[0][0]
        if window and file.photometric not in GREY:
            raise SourceError(f"{file.path}: window {window!r}, but its pictures have colours; leave window out")

    def read(self, number: int) -> ImageU8:
        """Picture `number`, uint8 RGB [H, W, 3]."""
        file, frame = self._images[number]
        stored = file.pixels(frame)
        if file.photometric == PALETTE:
            return file.palette_rgb(stored)
        if stored.ndim == 3:
            return np.asarray(stored >> max(0, file.bits - 8), np.uint8)
        if self._grey is None:
            self._grey = self._choose()
        grey_hw = self._grey(file.modality_values(frame, stored))
        if file.photometric == "MONOCHROME1":
            grey_hw = 255 - grey_hw
        return np.repeat(grey_hw[..., None], 3, axis=2)

    def _choose(self) -> Grey:
        """The function from values to grey that serves all images."""
        file, frame = self._images[len(self._images) // 2]
        if self._window == "":
            if "VOILUTSequence" in file.header:
                return lambda values_hw: np.asarray(np.rint(255 * file.lut_values(values_hw)), np.uint8)
            stated = _stated(file, frame)
            if stated is not None:
                self._note_others(_width_level(file, frame))
                return stated
            if file.bits <= 8 and file.group(frame, "PixelValueTransformationSequence", "RescaleSlope") is None:
                return lambda values_hw: to_grey(values_hw, (0.0, 2.0**file.bits - 1))
        name = self._window or (DEFAULT_CT if file.text("Modality") == "CT" else PERCENTILE)
        shown = named_limits(name) or percentiles(self._sampled())
        if self._window == "":
            low, high = (f"{value:.4g}" for value in shown)
            self._account.assumed["window"] = f"{low} to {high} ({name}), for the file states none; --window sets it"
        return lambda values_hw: to_grey(values_hw, shown)

    def _sampled(self) -> npt.NDArray[np.float32]:
        """Values of a few images, without padding."""
        chosen = sorted({round(n) for n in np.linspace(0, len(self._images) - 1, SAMPLED)})
        found = []
        for file, frame in (self._images[number] for number in chosen):
            stored_hw = file.pixels(frame)[::STEP, ::STEP]
            values_hw = file.modality_values(frame, stored_hw)
            padding = file.header.get("PixelPaddingValue")
            keep_hw = (stored_hw != padding) if padding is not None else values_hw != 0
            found.append(values_hw[keep_hw])
        return np.concatenate(found)

    def _note_others(self, window: str) -> None:
        others = {_width_level(file, frame) for file, frame in self._images} - {window, ""}
        if others:
            text = f"{window}, that of the middle image, for all; {len(others)} others are stated; --window sets it"
            self._account.assumed["window"] = text


def _window_of(file: DicomFile, frame: int) -> tuple[float, float, str] | None:
    """Width, level and function of the first window that a file states."""
    holder = file.group(frame, "FrameVOILUTSequence", "WindowCenter")
    if holder is None or holder.get("WindowCenter") is None or holder.get("WindowWidth") is None:
        return None
    level, width = (float(np.atleast_1d(holder.get(f"Window{name}"))[0]) for name in ("Center", "Width"))
    return (width, level, str(holder.get("VOILUTFunction") or "LINEAR")) if width > 0 else None


def _width_level(file: DicomFile, frame: int) -> str:
    found = _window_of(file, frame)
    return f"{found[0]:g}/{found[1]:g}" if found else ""


def _stated(file: DicomFile, frame: int) -> Grey | None:
    """The window that a file states, as PS3.3 C.11.2.1.2 defines it; None if it states none."""
    found = _window_of(file, frame)
    if found is None:
        return None
    width, level, function = found
    if function == "SIGMOID":
        return lambda values_hw: np.asarray(np.rint(255 / (1 + np.exp(-4 * (values_hw - level) / width))), np.uint8)
    half = width / 2
    if function == "LINEAR":  # its ends are the middles of the first and the last of WIDTH whole values
        level, half = level - 0.5, max((width - 1) / 2, 1e-6)
    return lambda values_hw: to_grey(values_hw, (level - half, level + half))
