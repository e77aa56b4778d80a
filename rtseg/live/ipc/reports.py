"""Messages from the workers of a feed to its supervisor: one type each, with its name as tag."""

from __future__ import annotations

from typing import Any

import msgspec

from .messages import Message, Size, Ticket

# ------------------------------------------------------------------ any worker


class Fault(Message, frozen=True):
    """Something went wrong, and the worker may end because of it."""

    text: str


class Refused(Message, frozen=True):
    """The configuration can never work; `kind` is the name of the error's class."""

    text: str
    kind: str


class Done(Message, frozen=True):
    """The worker ends, and has closed everything that it owns."""


# ------------------------------------------------------------------ grab


class SourceOpened(Message, frozen=True):
    uri: str
    live: bool
    size: Size | None


class SourceSize(Message, frozen=True):
    """A live source that is not shown yet has pictures of this size."""

    size: Size


class SourceReport(Message, frozen=True):
    state: str
    why: str
    crop: list[int] | None
    counts: dict[str, int]


class SourceAccount(Message, frozen=True):
    """The account of a recording so far, as values and as lines for people."""

    account: dict[str, Any]
    lines: tuple[str, ...]


# ------------------------------------------------------------------ segment


class Preparing(Message, frozen=True):
    """The engine begins with work that may take minutes; one part of it may take `part_s`."""

    what: str
    part_s: float


class EngineReady(Message, frozen=True):
    engine: str
    step_ms: float


class SizeReady(Message, frozen=True):
    """The engine is ready for pictures of the source's size; a step takes `step_ms`, if that is known."""

    step_ms: float | None


class NewSize(Message, frozen=True):
    """The engine sees pictures of a new size, and may prepare for them during its next steps."""


class StepTime(Message, frozen=True):
    step_ms: float


class ImageSizeRefused(Message, frozen=True):
    """The engine cannot be opened with the image size of `SetImageSize`, and keeps its own."""

    why: str


class SceneReport(Message, frozen=True):
    """On frame `seq` another scene begins (`cut`), or objects were lost or found again."""

    seq: int
    cut: bool
    lost: tuple[int, ...]
    found: tuple[int, ...]


class Unanswered(Message, frozen=True):
    """A frame got no masks."""

    text: str


class Answer(Message, frozen=True):
    """The outcome of the request with this ticket; `result` of one that asks for something."""

    ticket: Ticket
    error: str | None
    warnings: tuple[str, ...] = ()
    result: dict[str, Any] = msgspec.field(default_factory=dict)


# ------------------------------------------------------------------ publish, record


class Bound(Message, frozen=True):
    endpoint: str


class PublishCounts(Message, frozen=True):
    counts: dict[str, Any]


class RecordingOpened(Message, frozen=True):
    folder: str


Report = (
    Fault | Refused | Done | SourceOpened | SourceSize | SourceReport | SourceAccount | Preparing | EngineReady
    | SizeReady | NewSize | StepTime | ImageSizeRefused | SceneReport | Unanswered | Answer | Bound | PublishCounts
    | RecordingOpened
)  # fmt: skip
