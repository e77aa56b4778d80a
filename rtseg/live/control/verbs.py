"""The control requests as values: one type for each verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ...base.prompt_schema import MAX_LABEL, FrameNumber, ObjectId
from ...base.schema import Text
from ...base.types import Prompt

Session = Annotated[Text, Meta(max_length=MAX_LABEL)]
Level = Annotated[int, Meta(ge=0, le=255)]


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Track a new object. `seq` is the frame of the prompt, None the newest; `session`, if given, has to be its own."""

    prompt: Prompt
    seq: FrameNumber | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Correct:
    """Correct an object that is tracked; `seq` and `session` as for `Add`."""

    prompt: Prompt
    seq: FrameNumber | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """The mask that a prompt would give, for a new object or a tracked one; nothing changes."""

    prompt: Prompt
    seq: FrameNumber | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a frame, so that a prompt can be given on it after the ring of frames has dropped it."""

    seq: FrameNumber | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the memory bank of each object holds, and why memories left it."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop tracking one object."""

    id: ObjectId


@dataclass(frozen=True, slots=True)
class Rename:
    """Give an object another label."""

    id: ObjectId
    label: Text


@dataclass(frozen=True, slots=True)
class Look:
    """How an object is drawn: its colour, red, green and blue, and whether it is hidden. None leaves it unchanged."""

    id: ObjectId
    color: tuple[Level, Level, Level] | None = None
    hidden: bool | None = None


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the last change of prompts back."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Make the change again that was taken back last."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Stop tracking all objects."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the network; the video continues."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Resume the network."""


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """The original picture of frame `seq` (None: the newest) and its masks."""

    seq: FrameNumber | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """The values that `Set` changes."""


@dataclass(frozen=True, slots=True)
class Set:
    """Change how masks are drawn. None leaves a value unchanged."""

    opacity: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    budget_ms: Annotated[float, Meta(ge=1.0, le=10_000.0)] | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the feed."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the feed in an orderly way."""


Prompted = Add | Correct | Preview
Request = (
    Prompted | Hold | Memory | Remove | Rename | Look | Undo | Redo | Reset | Pause | Resume | TakeSnapshot | Get | Set
    | Status | Shutdown
)  # fmt: skip
PROMPTED = (Add, Correct, Preview)  # an error in these is a `PromptError`
CHANGES_NOTHING = (Preview, Hold, Memory, TakeSnapshot, Get, Status)
VERBS: dict[str, type[Request]] = {
    "add": Add,
    "correct": Correct,
    "preview": Preview,
    "hold": Hold,
    "memory": Memory,
    "remove": Remove,
    "rename": Rename,
    "look": Look,
    "undo": Undo,
    "redo": Redo,
    "reset": Reset,
    "pause": Pause,
    "resume": Resume,
    "snapshot": TakeSnapshot,
    "get": Get,
    "set": Set,
    "status": Status,
    "shutdown": Shutdown,
}
_NAMES = {kind: verb for verb, kind in VERBS.items()}


def verb_of(request: Request) -> str:
    """The name of a request on the wire."""
    return _NAMES[type(request)]
