"""Records what the display showed: a folder for each run, with numbered videos and a log of their content.

    FOLDER/STREAM-YYYYmmdd-HHMMSS/events.jsonl     a line for each frame and any other event: see event_log.py
    FOLDER/STREAM-YYYYmmdd-HHMMSS/video-001.mp4    about 30 MB a minute at 720p, 25 fps: see fragmented_mp4.py

A recording is patient data: only its owner may read the folder. The log holds the hash of every range of the videos,
so that a changed video is found, too. `rtseg verify` checks everything.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from .. import __version__
from ..base.errors import OutputError
from ..base.files import unwritable
from ..base.types import ImageU8, now_ns
from .event_log import GENESIS, Event, EventLog, UnloggableError, lines_backwards
from .fragmented_mp4 import FragmentedMp4, Seal, seal_rest
from .wire import CLOCK, aspect_of, check_stream

LOG = "events.jsonl"
FORMAT = 1
WARN_MINUTES = 30  # with disk space for less than this, a recording begins with a warning
_BITS = 0.2  # bits a pixel, a little more than the synthetic endoscope needs
_CHECK_S = 1.0  # between two checks that the files are still there
_LONGEST_NS = 3600 * 10**9  # after a longer pause a new file begins: MP4 has 31 bits for the time between two pictures
# Keys of an overlay header that are logged.
_LOGGED_KEYS = ("seq", "session", "mask_seq", "mask_age_ms", "state", "captured_ns")


def video_name(number: int) -> str:
    """The name of a run's video file; numbers start at 1."""
    return f"video-{number:03}.mp4"


def new_run_name(folder: Path, stream: str) -> str:
    """An unused name for a run in `folder`: the stream and the local time."""
    check_stream(stream)
    stem = f"{stream}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    names = (stem, *(f"{stem}-{count}" for count in range(2, 1000)))
    return next(name for name in names if not (folder / name).exists())


def _make(folder: Path) -> None:
    """Make a folder that only its owner may read, and its parents; the `OutputError` names a file in the way."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as e:
        with suppress(OSError):  # no permission to look into a folder
            for part in (folder, *folder.parents):
                if part.exists() and not part.is_dir():
                    what = f"{folder}: cannot be written ({part} is a file)"
                    raise OutputError(f"{what}; expected a folder there; name another one") from e
        raise unwritable(folder, e) from e


class Recording:
    """Records one run. If the disk fails, what is written stays valid, and the recording is closed: see `closed`."""

    def __init__(
        self,
        folder: Path,
        *,
        stream: str,
        engine: str,
        config_hash: str,
        fps: float,
        recipe_hash: str = "",
        resume: str | Path | None = None,
    ) -> None:
        """Begin a run in a new folder inside `folder`, or continue an interrupted run, whose own folder is `resume`.

        `engine`: its description; `recipe_hash`: of its recipe; `config_hash`: of the stream profile. `fps`: as the
        source states it, only a hint to players, because each picture has the time of its capture. `OutputError` if the
        folder cannot be written, or if the run to continue has ended, is damaged or is being recorded.
        """
        self.folder = Path(resume) if resume else folder / new_run_name(folder, stream)
        self.frames, self.warning = 0, ""
        self.lost = 0  # frames that the log lists, but an interrupted recorder did not write to its last file
        self._video: FragmentedMp4 | None = None
        self._state: str | None = None
        self._fps, self._size = fps if 0 < fps < 1000 else 25.0, (0, 0, Fraction(1))
        self._number, self._index, self._last_ns, self._checked_s = 0, 0, 0, time.monotonic()
        self._log = self._open_log()
        about = {"stream": stream, "engine": engine, "recipe": recipe_hash, "config": config_hash, "fps": fps}
        zero = datetime.fromtimestamp((time.time_ns() - now_ns()) / 1e9, UTC).isoformat()
        about |= {"format": FORMAT, "rtseg": __version__, "clock": CLOCK, "clock_zero_utc": zero}
        try:
            begun = self._log.head != GENESIS
            if begun:
                self._resume()
            self._log.add("restart" if begun else "start", **about)
        except OutputError:
            self._log.close()
            raise

    def _open_log(self) -> EventLog:
        log = self.folder / LOG
        if log.exists():
            return EventLog.resume(log)
        _make(self.folder)
        return EventLog(log)

    def _resume(self) -> None:
        """Find where the run stopped, and seal the bytes of its last file after the last seal."""
        end = logged = sealed = 0
        try:
            for line in lines_backwards((self.folder / LOG).read_bytes()):
                event = json.loads(line)
                if event["event"] == "end":
                    how = f"has ended ({event['error']})" if event["error"] else "has ended"
                    raise OutputError(
                        f"{self.folder}: this recording {how}; expected an interrupted one; begin another"
                    )
                logged += event["event"] == "frame"
                if event["event"] == "seal":
                    end, sealed = max(end, int(event["end"])), sealed + int(event["frames"])
                if event["event"] == "file":
                    self._number = int(event["number"])
                    break
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise OutputError(
                f"{self.folder / LOG}: damaged ({e}); expected a log as it was written; begin another"
            ) from e
        name = video_name(self._number)  # not the name in the log, which might be any path
        if self._number and (rest := seal_rest(self.folder / name, end)):
            self._log.add("seal", file=name, **asdict(rest))
            sealed += rest.frames
        self.lost = max(0, logged - sealed)

    def show(self, header: Mapping[str, Any], image_hwc: ImageU8) -> None:
        """Record a picture, uint8 RGB [H, W, 3], and log the main keys of the header of its overlay message.

        `OutputError` if it cannot be written, or if the files are gone: the recording is then closed. `OutputError`
        also if picture or header is invalid: the recording then stays open.
        """
        self._check_open()
        if image_hwc.dtype != np.uint8 or image_hwc.ndim != 3 or image_hwc.shape[2] != 3 or 0 in image_hwc.shape:
            raise OutputError(f"{self.folder}: a picture {image_hwc.dtype} {image_hwc.shape}; expected uint8 [H, W, 3]")
        try:
            logged = {key: header[key] for key in _LOGGED_KEYS} | {"shown_ns": header["published_ns"]}
            logged["captured_ns"] = int(logged["captured_ns"])
        except (KeyError, TypeError, ValueError) as e:
            raise OutputError(f"{self.folder}: a header with no good {e}; expected that of an overlay message") from e
        try:
            if time.monotonic() - self._checked_s >= _CHECK_S:
                self._check_files()
            self._write(logged, image_hwc, aspect_of(header))
        except UnloggableError:
            raise
        except OutputError as e:
            self._fail(str(e))
            raise

    def _write(self, logged: Event, image_hwc: ImageU8, sample_aspect: Fraction) -> None:
        size = (image_hwc.shape[1], image_hwc.shape[0])
        pause_ns, self._last_ns = logged["captured_ns"] - self._last_ns, logged["captured_ns"]
        if self._video is None or (*size, sample_aspect) != self._size or pause_ns > _LONGEST_NS:
            self._next_file(*size, sample_aspect)
        assert self._video is not None
        if logged["state"] != self._state:
            self._log.add("state", was=self._state, now=logged["state"], seq=logged["seq"])
            self._state = logged["state"]
        self._log.add("frame", file=self._video.path.name, index=self._index, **logged)
        self._index, self.frames = self._index + 1, self.frames + 1
        self._video.write(image_hwc, logged["captured_ns"])

    def _check_files(self) -> None:
        """Check that the files are still there: writing to a deleted file raises no error."""
        self._log.check()
        if self._video is not None:
            self._video.check()
        self._checked_s = time.monotonic()

    def _next_file(self, width: int, height: int, sample_aspect: Fraction) -> None:
        if self._video is not None:
            self._video.close()
        elif not self._number:
            self._warn_of_disk_space(width, height)
        self._number, self._index, self._size = self._number + 1, 0, (width, height, sample_aspect)
        name = video_name(self._number)
        self._log.add("file", file=name, number=self._number, width=width, height=height)

        def sealed(seal: Seal) -> None:
            self._log.add("seal", file=name, **asdict(seal))

        self._video = FragmentedMp4(self.folder / name, width, height, self._fps, sealed, sample_aspect)

    def _warn_of_disk_space(self, width: int, height: int) -> None:
        minute = width * height * self._fps * _BITS / 8 * 60
        with suppress(OSError):
            minutes = shutil.disk_usage(self.folder).free / minute
            if minutes < WARN_MINUTES:
                self.warning = (
                    f"{self.folder}: room for about {minutes:.0f} minutes; expected {WARN_MINUTES}; free some"
                )
                self._log.add("warning", text=self.warning)

    def missed(self, first_seq: int, last_seq: int, cause: str) -> None:
        """Log that the frames from `first_seq` to `last_seq`, both included, are not in the recording, and why."""
        if not 0 <= first_seq <= last_seq:
            raise OutputError(f"{self.folder}: frames {first_seq}..{last_seq} missed; expected them in order, from 0")
        self._add("missed", first=first_seq, last=last_seq, cause=cause)

    def note(self, kind: str, **facts: Any) -> None:
        """Log any other event: a reconnection, a prompt, a restart of the segment worker."""
        self._add("note", kind=kind, facts=facts)

    def _add(self, event: str, **facts: Any) -> None:
        self._check_open()
        try:
            self._log.add(event, **facts)
        except UnloggableError:
            raise
        except OutputError as e:
            self._fail(str(e))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close it; after an exception, leave it interrupted instead, so that another recorder can continue it."""
        if kind is None:
            self.close()
            return
        if self._video is not None:
            with suppress(OutputError):
                self._video.close()
        self._log.close()

    @property
    def closed(self) -> bool:
        return self._log.closed

    def _check_open(self) -> None:
        if self._log.closed:
            raise OutputError(f"{self.folder}: the recording is closed; expected an open one; begin another")

    def _fail(self, error: str) -> None:
        """End the recording: what is written stays, and the log says why, if one more line fits on the disk."""
        if self._video is not None:
            self._video.abort()
        with suppress(OutputError):
            self._log.add("end", error=error)
        self._log.close()

    def close(self) -> None:
        """End the recording, and wait for the disk; `OutputError` if the rest cannot be written.

        May be called again.
        """
        if self._log.closed:
            return
        try:
            self._check_files()
            if self._video is not None:
                self._video.close()
            self._log.add("end", error="")
            self._log.sync()
        except OutputError as e:
            self._fail(str(e))
            raise
        finally:
            self._log.close()
