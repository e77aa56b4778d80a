"""The files of a result, written frame by frame, so that the complete frames can be kept at any time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import cv2

from ..base.errors import OutputError
from ..base.files import discard, unwritable, write_bytes
from ..base.mask_images import write_palette_png
from ..base.state import State
from ..base.timing import Stages
from ..base.types import Frame, ImageU8, Masks
from ..build.doctor import versions
from ..grab import Source
from ..publish import Mp4Writer, draw_overlay
from ..publish.coco import CocoWriter
from ..publish.frame_names import FrameNames
from ..publish.overlay import DrawMasks, draw_masks

RESERVE = 1 << 20  # bytes that are freed before files are closed, so that a full disk does not damage them
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class Filter(Protocol):
    """Changes the pictures that are written and drawn on, as `--deidentify` does; the network sees the others."""

    def picture(self, frame: Frame) -> Frame:
        """The frame with the picture to write. Called once for each frame, in order."""

    def state(self) -> State:
        """What later pictures depend on."""

    def restore(self, state: State) -> None:
        """Go on from another filter's state, with the same pictures."""


class Results:
    """Writes frames into an empty folder. `count` is the number of complete ones: mask, annotations and picture."""

    def __init__(
        self, folder: Path, source: Source, stages: Stages, pictures: str | None,
        draw_masks: DrawMasks = draw_masks, filters: Sequence[Filter] = (),
    ) -> None:  # fmt: skip
        """`pictures`: the format in which the frames themselves are written; None: they are not. `draw_masks` draws the
        masks. `filters` change each picture before it is drawn on or written. Raises `OutputError` if nothing can be
        written.
        """
        self._folder, self._stages, self._format, self.count = folder, stages, pictures, 0
        self._paint, self._filters = draw_masks, filters
        self._names = FrameNames(source.account.count, f".{pictures or 'jpg'}", own_suffix=pictures is None)
        self._start_s: float | None = None
        self._lock, self._open = threading.Lock(), True
        try:
            (folder / "masks").mkdir()
            if pictures:
                (folder / "frames").mkdir()
            _reserve(folder / ".reserve")
        except OSError as e:
            raise unwritable(folder, e) from e
        info = {
            "description": f"rtseg segment {source.uri}",
            "version": versions()["rtseg"],
            "pictures": "frames" if pictures else source.uri,
        }
        self._coco = CocoWriter(folder / "masks.json", info)
        try:
            self._video = Mp4Writer(
                folder / "overlay.mp4", source.width, source.height, source.fps,
                sample_aspect=source.sample_aspect, at_once=True,
            )  # fmt: skip
        except OutputError:
            self._coco.abort()
            raise

    def add(self, done: tuple[Frame, Masks]) -> None:
        """Write a frame and its masks. Raises `OutputError` if that fails, and then removes the frame's mask."""
        with self._lock:
            if self._open:
                self._add(*done)

    def _add(self, frame: Frame, masks: Masks) -> None:
        named = self._names.next_for(frame)
        mask, picture = self._folder / "masks" / f"{named.stem}.png", self._folder / "frames" / named.picture
        if self._start_s is None:
            self._start_s = frame.seconds
        with self._stages.time("overlay"):
            for one in self._filters:
                frame = one.picture(frame)
            drawn = draw_overlay(frame, masks, draw_masks=self._paint)
        with self._stages.time("write"):
            self._video.write(drawn.image_hwc, frame.seconds - self._start_s)
            try:
                write_palette_png(mask, masks.id_map())
                if self._format:
                    write_picture(picture, frame.image_hwc)
                self._coco.add(masks, frame.seconds, named.picture, f"masks/{mask.name}")
            except OutputError:
                discard(mask)
                if self._format:
                    discard(picture)
                raise
        self.count += 1

    def close(self) -> list[str]:
        """Finish every file with its frames. Returns a line for each that could not be finished."""
        faults = []
        with self._lock:
            self._open = False
            discard(self._folder / ".reserve")
            for file in (self._coco, self._video):
                try:
                    file.close()
                except OutputError as e:
                    faults.append(str(e))
        return faults

    def abort(self) -> None:
        """Close every file without finishing it, for a folder that is not kept."""
        with self._lock:
            self._open = False
            self._coco.abort()
            self._video.abort()


def write_picture(path: Path, image_hwc: ImageU8) -> None:
    """Write a frame, uint8 RGB [H, W, 3], in the format of the path's suffix. Raises `OutputError` if that fails."""
    options = JPEG if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    try:
        _, coded = cv2.imencode(path.suffix, image_hwc[..., ::-1], options)
    except cv2.error as e:
        raise unwritable(path, e) from e
    write_bytes(path, coded.tobytes())


def _reserve(path: Path) -> None:
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            with suppress(OSError):
                file.write(bytes(RESERVE))
