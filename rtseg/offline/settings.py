"""The source of a run and the settings for reading it, as they are written to run.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from ..base.errors import ConfigError

if TYPE_CHECKING:
    from ..base.state import State
    from ..base.types import Frame, Masks, Prompt
    from ..engine import Engine

Uri = str | Path
Way = Literal["forward", "backward", "both"]
WAYS: tuple[Way, ...] = get_args(Way)
PICTURES = ("jpg", "png")  # the formats of written frames
DECODERS = ("cpu", "nvdec")


@dataclass(frozen=True, slots=True)
class Tracking:
    """How objects are carried through a recording.

    Attributes:
        direction: from the prompted frames on, back, or both ways and merged.
        across_cuts: objects are tracked across cuts to other scenes.
        slices: the pictures are slices of a volume, not a video: there are no cuts, and no motion.
    """

    direction: Way = "forward"
    across_cuts: bool = False
    slices: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read: the keywords of `open_source`, which documents them, and the decoder."""

    fps: float | None = None
    deinterlace: Literal["off", "auto", "on"] | None = None
    damaged: Literal["skip", "stop"] = "skip"
    bits: int | None = None
    window: str | None = None
    plane: str | None = None
    decoder: Literal["cpu", "nvdec"] = "cpu"


def uris_of(source: Uri | Sequence[Uri]) -> list[str]:
    """The parts of a recording, in order, with what lists in text files name. `ConfigError` if there are none."""
    from ..grab.url_list import expanded

    uris = expanded([str(source)] if isinstance(source, (str, Path)) else [str(uri) for uri in source])
    if not uris:
        raise ConfigError("no source; expected a video file, a folder of images, or synthetic:...")
    return uris


def files_of(uris: Sequence[str]) -> list[dict[str, Any]]:
    """The parts that are files or folders: the path, and for a file its size in bytes and time of last change (ns)."""
    found = []
    for uri in uris:
        path = Path(uri)
        try:
            if path.is_file():
                stat = path.stat()
                told = {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
                found.append({"uri": uri, "path": str(path.resolve()), **told})
            elif uri and path.is_dir():
                found.append({"uri": uri, "path": str(path.resolve())})
        except (OSError, ValueError):  # a uri that is no path
            continue
    return found


class Steps(Protocol):
    """Who gives the masks of each frame, in order: a `Tracker`, or something that answers as one."""

    engine: Engine

    def give(self, prompt: Prompt) -> None: ...

    def step(self, frame: Frame) -> Masks: ...


@runtime_checkable
class Resumes(Steps, Protocol):
    """Steps that another one can go on from, in another process, with the same masks."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...
