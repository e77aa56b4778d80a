"""The files of a result, written frame by frame, so that the complete frames can be kept at any time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2

from ..base.errors import OutputError
from ..base.files import discard, file_sha256, unwritable, write_bytes
from ..base.mask_images import write_palette_png
from ..base.state import State, write_state
from ..base.timing import Stages
from ..base.types import Frame, ImageU8, Masks
from ..build.doctor import versions
from ..grab import Source
from ..publish import draw_overlay
from ..publish.coco import CocoWriter
from ..publish.frame_names import FrameNames
from ..publish.overlay import DrawMasks, draw_masks
from .overlay_file import OverlayFile
from .segments import WORK, Manifest, Segment, synced

RESERVE = 1 << 20  # bytes that are freed before files are closed, so that a full disk does not damage them
RESERVED = ".reserve"
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class Filter(Protocol):
    """Changes the pictures that are written and drawn on, as `--deidentify` does; the network sees the others."""

    def ahead(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, unchanged, read as far ahead as it takes to judge them. Called before `picture`."""

    def document(self, document: dict[str, Any]) -> dict[str, Any]:
        """What may be written of a document about the run."""

    def account(self) -> dict[str, Any]:
        """What it did, for `run.json`."""

    def line(self) -> str:
        """What it did, for the user."""

    def picture(self, frame: Frame) -> Frame:
        """The frame with the picture to write. Called once for each frame, in order."""

    def state(self) -> State:
        """What later pictures depend on."""

    def restore(self, state: State) -> None:
        """Go on from another filter's state, with the same pictures."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a segment: what the run depends on after the frames before it. `state` None: it cannot go on."""

    state: State | None


class Results:
    """Writes frames into a folder. `count` is the number of complete ones: mask, annotations and picture.

    With a manifest, each `Mark` ends a segment; if the manifest has segments already, it goes on after them.
    """

    def __init__(
        self, folder: Path, source: Source, stages: Stages, pictures: str | None,
        draw_masks: DrawMasks = draw_masks, filters: Sequence[Filter] = (), manifest: Manifest | None = None,
    ) -> None:  # fmt: skip
        """`pictures`: the format in which the frames themselves are written; None: they are not. `draw_masks` draws the
        masks. `filters` change each picture before it is drawn on or written. Raises `OutputError` if nothing can be
        written.
        """
        self._folder, self._stages, self._format = folder, stages, pictures
        self._paint, self._filters, self.manifest = draw_masks, filters, manifest
        self._names = FrameNames(source.account.count, f".{pictures or 'jpg'}", own_suffix=pictures is None)
        self._lock, self._open, self.count = threading.Lock(), True, manifest.frames if manifest else 0
        before = manifest.results if manifest else {}
        self._start_s: float | None = before.get("start_s")
        self._files: list[Path] = []  # of the segment
        info: dict[str, Any] = {
            "description": f"rtseg segment {source.uri}",
            "version": versions()["rtseg"],
            "pictures": "frames" if pictures else source.uri,
        }
        for one in filters:
            info = one.document(info)
        try:
            for name in ("masks", *(["frames"] if pictures else []), *([WORK] if manifest else [])):
                (folder / name).mkdir(exist_ok=True)
            _reserve(folder / RESERVED)
        except OSError as e:
            raise unwritable(folder, e) from e
        self._coco = CocoWriter(folder / "masks.json", info, manifest.coco or None if manifest else None)
        try:
            if manifest:
                self._clear()
            self._video = OverlayFile(folder, source, manifest is not None, before.get("last_tick", -1))
        except OutputError:
            self._coco.abort()
            raise

    def _clear(self) -> None:
        """Remove what a killed run has written after its last segment, and learn the names that it gave."""
        known = set()
        for image in self._coco.images():
            picture = Path(image["file_name"]).name
            self._names.take(Path(image["mask_file"]).stem, picture)
            known |= {self._folder / image["mask_file"], self._folder / "frames" / picture}
        for path in [*(self._folder / "masks").iterdir(), *(self._folder / "frames").glob("*")]:
            if path not in known:
                discard(path)

    def add(self, done: tuple[Frame, Masks] | Mark) -> None:
        """Write a frame and its masks, or end a segment. Raises `OutputError` if that fails, and then removes the
        frame's mask.
        """
        with self._lock:
            if self._open and isinstance(done, Mark):
                self._end_segment(done)
            elif self._open:
                assert not isinstance(done, Mark)
                self._add(*done)

    def _add(self, frame: Frame, masks: Masks) -> None:
        with self._stages.time("overlay"):
            for one in self._filters:
                frame = one.picture(frame)
        named = self._names.next_for(frame)
        mask, picture = self._folder / "masks" / f"{named.stem}.png", self._folder / "frames" / named.picture
        if self._start_s is None:
            self._start_s = frame.seconds
        with self._stages.time("overlay"):
            drawn = draw_overlay(frame, masks, draw_masks=self._paint)
        with self._stages.time("write"):
            self._video.write(drawn.image_hwc, frame.seconds - self._start_s, self.count)
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
        self._files += [mask, picture] if self._format else [mask]
        self.count += 1

    def _end_segment(self, mark: Mark) -> None:
        """Put everything so far on the disk, and then say so in the manifest."""
        before, first = self.manifest, self._video.first
        if before is None or self.count == before.frames:
            return
        part = self._video.end_part()
        segment = Segment(
            first, self.count - first, self._video.first_tick, part.stat().st_size, file_sha256(part),
            synced(self._files),
        )  # fmt: skip
        self._files = []
        name = ""
        if mark.state is not None:
            name = f"{self.count:08d}.npz"
            filters = {f"filter{i}": one.state() for i, one in enumerate(self._filters)}
            stages = State({}, dict(self._stages.cells("overlay", "write")))
            write_state(self._folder / WORK / name, State.joined({"run": mark.state, "stages": stages, **filters}))
        results = {"start_s": self._start_s, "last_tick": self._video.last_tick}
        done = replace(
            before, segments=[*before.segments, segment], coco=self._coco.state(), results=results, state=name
        )
        if name:
            done.write(self._folder)
        self.manifest = done
        if name and before.state:
            discard(self._folder / WORK / before.state)

    def restore(self, state: State) -> State:
        """Go on from what was written after the last segment; returns the state of the run."""
        for i, one in enumerate(self._filters):
            one.restore(state.under(f"filter{i}"))
        self._stages.add_cells(state.under("stages").arrays)
        return state.under("run")

    def close(self) -> list[str]:
        """Finish every file with its frames. Returns a line for each that could not be finished."""
        faults = []
        with self._lock:
            self._open = False
            discard(self._folder / RESERVED)
            segments = self.manifest.segments if self.manifest else []
            finishes: list[Callable[[], None]] = [
                lambda: self._coco.close(keep=self.manifest is not None),
                lambda: self._video.close(segments),
            ]
            for finish in finishes:
                try:
                    finish()
                except OutputError as e:
                    faults.append(str(e))
        return faults

    def abort(self) -> None:
        """Close every file without finishing it, for a folder that is not kept, or that a later run goes on with."""
        with self._lock:
            self._open = False
            self._coco.abort()
            self._video.abort()
            discard(self._folder / RESERVED)


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
