"""All messages between the supervisor of a feed and its workers: one type each, told apart by their tag.

The configuration of a worker is the first message that it receives.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from ...base.defaults import Topic
from ...base.rle import decode_rle, encode_rle
from ...base.types import FrameId, Prompt
from ...engine.recipe import Recipe
from .packing import decode_special

Size = tuple[int, int]  # height and width of a picture
Ticket = int  # of a request: its answer carries the same one; 0: nobody waits for the answer


class Message(msgspec.Struct, tag=True, frozen=True):
    """What one process sends to another."""


# ------------------------------------------------------------------ supervisor -> worker: configurations


class GrabConfig(Message, frozen=True):
    """`hold`: read no frame of a recording before `Begin`; of a live source, drop its frames until then."""

    source: str
    pace: str
    deinterlace: str
    crop: str | tuple[int, int, int, int]
    hold: bool


class SegmentConfig(Message, frozen=True):
    """`size` is that of the source's pictures, if it is known."""

    recipe: Recipe
    overlay: str
    size: Size | None


class PublishConfig(Message, frozen=True):
    """`keys`: the folder of the CURVE keys; `record`: whether drawn frames are recorded."""

    name: str
    bind: str
    topics: tuple[Topic, ...]
    keys: str | None
    target_fps: float
    overlay: str
    carry: str
    opacity: float
    mask_budget_ms: float
    record: bool
    recovering: bool
    engine: str


class RecordConfig(Message, frozen=True):
    """`resume`: the folder of a recording that the worker before left open."""

    folder: str
    stream: str
    engine: str
    fps: float
    config_hash: str
    recipe_hash: str
    resume: str | None


Config = GrabConfig | SegmentConfig | PublishConfig | RecordConfig

# ------------------------------------------------------------------ supervisor -> worker: requests


class Stop(Message, frozen=True):
    """End in order."""


class Begin(Message, frozen=True):
    """To grab: read frames now."""


class SetSize(Message, frozen=True):
    """To segment: the size of the pictures to come."""

    size: Size


class SetImageSize(Message, frozen=True):
    """To segment: open the engine again with pictures of this side, in pixels."""

    image_size: int


class PromptData(msgspec.Struct, frozen=True):
    """A prompt; its mask as RLE, height and width."""

    id: int
    points: tuple[tuple[float, float, int], ...]
    box: tuple[float, float, float, float] | None
    label: str | None
    mask: tuple[bytes, int, int] | None

    @classmethod
    def from_prompt(cls, prompt: Prompt) -> Self:
        mask = None
        if prompt.mask is not None:
            height, width = prompt.mask.shape
            mask = encode_rle(prompt.mask), int(height), int(width)
        return cls(prompt.id, prompt.points, prompt.box, prompt.label, mask)

    def to_prompt(self) -> Prompt:
        mask_hw = None if self.mask is None else decode_rle(*self.mask)
        return Prompt(self.id, self.points, self.box, mask_hw, self.label)


class GivePrompts(Message, frozen=True):
    """To segment: let prompts act on their frame, whose pixels are in the memory that comes with the message."""

    ticket: Ticket
    prompts: tuple[PromptData, ...]
    frame: FrameId


class RemoveObject(Message, frozen=True):
    ticket: Ticket
    id: int


class RenameObject(Message, frozen=True):
    ticket: Ticket
    id: int
    label: str


class Pause(Message, frozen=True):
    """To segment: rest (`on`), or work again."""

    ticket: Ticket
    on: bool


class PublishStatus(Message, frozen=True):
    """To publish: the status for subscribers, and what of it the overlay shows."""

    status: dict[str, Any]
    recovering: bool
    notice: str
    behind: bool


class DisplaySettings(Message, frozen=True):
    """To publish: what a person may change while the feed runs."""

    opacity: float
    budget_ms: float


class SetEngine(Message, frozen=True):
    """To publish: the engine that headers name."""

    engine: str


class RecordNote(Message, frozen=True):
    """To record: an event for the recording."""

    kind: str
    facts: dict[str, Any]


Request = (
    Stop | Begin | SetSize | SetImageSize | GivePrompts | RemoveObject | RenameObject | Pause
    | PublishStatus | DisplaySettings | SetEngine | RecordNote
)  # fmt: skip

# ------------------------------------------------------------------ worker -> supervisor: any worker


class Fault(Message, frozen=True):
    """Something went wrong, and the worker may end because of it."""

    text: str


class Refused(Message, frozen=True):
    """What was asked for can never work; `kind` is the name of the error's class."""

    text: str
    kind: str


class Done(Message, frozen=True):
    """The worker ends, and all that it owns is in order."""


# ------------------------------------------------------------------ worker -> supervisor: grab


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
    """What a recording turned out to hold so far, as values and as lines for people."""

    account: dict[str, Any]
    lines: tuple[str, ...]


# ------------------------------------------------------------------ worker -> supervisor: segment


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
    """The engine cannot be opened as `SetImageSize` asked, and is as it was."""

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
    """The outcome of the request with this ticket."""

    ticket: Ticket
    error: str | None
    warnings: tuple[str, ...] = ()


# ------------------------------------------------------------------ worker -> supervisor: publish, record


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


class Elsewhere(Message, frozen=True):
    """The message itself is too long for the socket: it lies in the memory that comes with this one."""

    size: int


AnyMessage = Config | Request | Report | Elsewhere
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyMessage, dec_hook=decode_special)


def unpack(packed: bytes) -> Any:
    """The message that `packing.pack` made these bytes of."""
    return _DECODER.decode(packed)
