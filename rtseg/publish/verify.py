"""Verifies a recording: every line of its log, every sealed byte of its videos, and that the two agree."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError
from .event_log import GENESIS, Event, decode_line
from .fragmented_mp4 import Seal, count_frames
from .recording import FORMAT, LOG

_VIDEO = re.compile(r"video-\d{3,}\.mp4")
_NOT_CLOSED = (
    "not closed: it is being written, or was interrupted, as by a kill or a power cut; "
    "lines removed from its end would look the same"
)


@dataclass(slots=True)
class _Video:
    """The content of one video file according to the log."""

    frames: int = 0
    sealed: int = 0  # frames
    end: int = 0  # bytes
    closed: bool = False
    seals: list[tuple[int, Seal]] = field(default_factory=list)  # with their lines


@dataclass(slots=True)
class _LogSummary:
    """The content of the log, added up line by line."""

    frames: int = 0
    missed: int = 0
    ended: bool = False
    error: str = ""
    videos: dict[str, _Video] = field(default_factory=dict)

    def add(self, line: int, event: Event) -> None:
        """Add a line.

        `ValueError` for an event that no recording writes there; `KeyError`, `TypeError` for a malformed one.
        """
        kind = event["event"]
        if self.ended:
            raise ValueError("it comes after the end")
        if (line == 1) != (kind == "start") or (line == 1 and event["format"] != FORMAT):
            raise ValueError(f"{kind!r:.20} of format {event.get('format')!r:.20}; expected one start, of {FORMAT}")
        if kind == "file":
            if _VIDEO.fullmatch(event["file"]) is None or event["file"] in self.videos:
                raise ValueError(f"file {event['file']!r:.40}; expected a new name such as video-001.mp4")
            self.videos[event["file"]] = _Video()
        elif kind == "frame":
            self.videos[event["file"]].frames += 1
            self.frames += 1
        elif kind == "seal":
            self._seal(line, self.videos[event["file"]], event)
        elif kind == "missed":
            self.missed += event["last"] - event["first"] + 1
        elif kind == "end":
            self.ended, self.error = True, event["error"]

    def _seal(self, line: int, video: _Video, event: Event) -> None:
        seal = Seal(**{key: event[key] for key in ("start", "end", "frames", "sha256", "closed")})
        if video.closed or not video.end == seal.start < seal.end:
            raise ValueError(f"bytes {seal.start}..{seal.end} are sealed; expected the next from {video.end} on")
        video.seals.append((line, seal))
        video.end, video.sealed, video.closed = seal.end, video.sealed + seal.frames, seal.closed


class _FaultError(Exception):
    """The first fault: its line in the log, if it is there, and what is wrong."""

    def __init__(self, line: int | None, why: str) -> None:
        super().__init__(why)
        self.line = line


def _read(path: Path, found: dict[str, Any]) -> _LogSummary:
    """Check the hash chain; the number of valid lines and the last hash go to `found`."""
    log, head = _LogSummary(), GENESIS
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                found["torn"] = True
                if log.ended:
                    raise _FaultError(number, "it comes after the end")
                break
            try:
                event, head = decode_line(line, head)
                log.add(number, event)
            except (ValueError, KeyError, TypeError) as e:
                why = str(e) if isinstance(e, ValueError) else f"not an event of format {FORMAT} ({e})"
                raise _FaultError(number, why) from e
            found |= {"lines": number, "head": head}
    return log


def _check_video(path: Path, video: _Video, growing: bool) -> int:
    """Check one file against the log; returns its number of frames. Only a `growing` file may have unsealed bytes."""
    name = path.name
    if not path.exists() and not video.end:
        return 0  # the log mentions a file before it is created
    try:
        with path.open("rb") as file:
            for line, seal in video.seals:
                data = file.read(seal.end - seal.start)
                if hashlib.sha256(data).hexdigest() != seal.sha256:
                    what = f"bytes {seal.start}..{seal.end}, that is {seal.frames} frames"
                    raise _FaultError(line, f"{name}: {what}, are not what was recorded")
            rest = file.read()
    except OSError as e:
        raise _FaultError(None, f"{name}: cannot be read ({e.strerror})") from e
    if rest and (video.closed or not growing):
        raise _FaultError(None, f"{name}: {len(rest)} bytes at its end were not recorded")
    frames = video.sealed + count_frames(rest)
    if frames > video.frames:
        raise _FaultError(
            None, f"{name}: it has {frames} frames, and the log {video.frames}; lines are missing at the end"
        )
    return frames


def _check_videos(folder: Path, log: _LogSummary) -> int:
    """Check all files; returns how many frames of the log are in none of them."""
    for path in sorted(folder.iterdir()):
        if _VIDEO.fullmatch(path.name) and path.name not in log.videos:
            raise _FaultError(
                None, f"{path.name}: the log does not know it; was it added, or are lines missing at the end?"
            )
    growing = None if log.ended and not log.error else next(reversed(log.videos), None)
    recorded = sum(_check_video(folder / name, video, name == growing) for name, video in log.videos.items())
    return log.frames - recorded


def verify(folder: Path) -> dict[str, Any]:
    """Check the recording of one run; `ConfigError` if there is none in `folder`.

    ok: unchanged and closed. unchanged: no change was found. closed: the recording was ended properly; if it was
    interrupted, lines removed from its end are noticed only as far as the video still has their frames. torn: the last
    line is incomplete, as a killed process leaves it. frames: in the log; lost: in no video, because recording was
    interrupted; missed: not recorded, according to the log. bad_line and why: the first fault; `why` also says why a
    recording ended with an error. head: the last hash, to compare with one written down.
    """
    if not (folder / LOG).is_file():
        runs = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{LOG}"))[-3:])
        raise ConfigError(f"{folder}: no {LOG} in it; expected the folder of one run{runs and f', such as: {runs}'}")
    found: dict[str, Any] = {"ok": False, "unchanged": False, "closed": False, "torn": False, "lines": 0}
    found |= {"frames": 0, "files": 0, "lost": 0, "missed": 0, "bad_line": None, "why": "", "head": GENESIS}
    try:
        log = _read(folder / LOG, found)
        found |= {"closed": log.ended, "frames": log.frames, "files": len(log.videos), "missed": log.missed}
        found["lost"] = _check_videos(folder, log)
        found |= {"ok": log.ended, "unchanged": True, "why": log.error if log.ended else _NOT_CLOSED}
    except _FaultError as e:
        found |= {"bad_line": e.line, "why": str(e)}
    except OSError as e:
        found["why"] = f"{LOG}: cannot be read ({e.strerror})"
    return found
