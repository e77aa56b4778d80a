"""Messages from the supervisor of a feed to its workers: one type each, with its name as tag.

The configuration of a worker is the first message that it receives. `reports.py` has the messages to the supervisor.

All workers import this module and must start quickly. So modules that only `segment` and the supervisor need are
imported where they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ...base.colors import Rgb
from ...base.defaults import Topic
from ...base.types import FrameId, Prompt

if TYPE_CHECKING:
    from ...engine.recipe import Recipe

Size = tuple[int, int]  # height and width of a picture
Ticket = int  # identifies a request and its answer; 0: the answer is not needed


class Message(msgspec.Struct, tag=True, frozen=True):
    """What one process sends to another."""


class Elsewhere(Message, frozen=True):
    """Stands for a message that is too long for the socket, and is in the memory sent with this one."""

    size: int


# ------------------------------------------------------------------ configurations


class GrabConfig(Message, frozen=True):
    """`hold`: read no frame of a recording before `Begin`; of a live source, drop its frames until then."""

    source: str
    pace: str
    deinterlace: str
    crop: str | tuple[int, int, int, int]
    hold: bool


class SegmentConfig(Message, frozen=True):
    """`recipe` has the values of an engine recipe; `size` is that of the source's pictures, if it is known."""

    recipe: dict[str, Any]
    overlay: str
    size: Size | None

    @classmethod
    def from_recipe(cls, recipe: Recipe, overlay: str, size: Size | None) -> Self:
        return cls(msgspec.to_builtins(recipe, enc_hook=_path_to_text), overlay, size)

    def to_recipe(self) -> Recipe:
        from ...engine.recipe import Recipe

        return msgspec.convert(self.recipe, Recipe, dec_hook=_text_to_path)


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
    """`resume`: the folder of a recording that the previous process left open."""

    folder: str
    stream: str
    engine: str
    fps: float
    config_hash: str
    recipe_hash: str
    resume: str | None


Config = GrabConfig | SegmentConfig | PublishConfig | RecordConfig

# ------------------------------------------------------------------ requests


class Stop(Message, frozen=True):
    """End in an orderly way."""


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
        from ...base.rle import encode_rle

        mask = None
        if prompt.mask is not None:
            height, width = prompt.mask.shape
            mask = encode_rle(prompt.mask), int(height), int(width)
        return cls(prompt.id, prompt.points, prompt.box, prompt.label, mask)

    def to_prompt(self) -> Prompt:
        from ...base.rle import decode_rle

        mask_hw = None if self.mask is None else decode_rle(*self.mask)
        return Prompt(self.id, self.points, self.box, mask_hw, self.label)


class GivePrompts(Message, frozen=True):
    """To segment: apply prompts to their frame, whose pixels are in the memory sent with the message."""

    ticket: Ticket
    prompts: tuple[PromptData, ...]
    frame: FrameId


class PreviewPrompts(Message, frozen=True):
    """To segment: the mask that these prompts of one object would give; frame and pixels as for `GivePrompts`.

    Without prompts: prepare for those on this frame.
    """

    ticket: Ticket
    prompts: tuple[PromptData, ...]
    frame: FrameId


class DescribeMemory(Message, frozen=True):
    """To segment: what the memory banks hold."""

    ticket: Ticket


class RemoveObject(Message, frozen=True):
    ticket: Ticket
    id: int


class RenameObject(Message, frozen=True):
    ticket: Ticket
    id: int
    label: str


class Pause(Message, frozen=True):
    """To segment: pause (`on`), or resume."""

    ticket: Ticket
    on: bool


class PublishStatus(Message, frozen=True):
    """To publish: the status for subscribers, and the parts of it that the overlay shows."""

    status: dict[str, Any]
    recovering: bool
    notice: str
    behind: bool


class DisplaySettings(Message, frozen=True):
    """To publish: the settings that a user may change while the feed runs."""

    opacity: float
    budget_ms: float


class SetLooks(Message, frozen=True):
    """To publish: the objects whose colour was chosen, and those that are hidden."""

    colors: dict[int, Rgb]
    hidden: tuple[int, ...]


class SetEngine(Message, frozen=True):
    """To publish: the engine's name for the headers."""

    engine: str


class RecordNote(Message, frozen=True):
    """To record: an event for the recording."""

    kind: str
    facts: dict[str, Any]


Request = (
    Stop | Begin | SetSize | SetImageSize | GivePrompts | PreviewPrompts | DescribeMemory | RemoveObject
    | RenameObject | Pause | PublishStatus | DisplaySettings | SetLooks | SetEngine | RecordNote
)  # fmt: skip


def _path_to_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} in a recipe cannot be sent")


def _text_to_path(kind: type, value: Any) -> Path:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"a {kind.__name__} in a recipe cannot be received")
