"""Prompts that people write in a file: clicks, boxes and mask images, each on one frame of a video.

    [{"frame": 0, "id": 1, "label": "grasper", "points": [[412, 260, 1]]},
     {"frame": 0, "id": 2, "box": [100, 80, 300, 220]},
     {"frame": 40, "id": 1, "mask": "grasper.png"},
     {"frame": 40, "id": 2, "mask": "all-tools.png", "value": 7}]

Coordinates are pixels of the frame. A point's third number is 1 (on the object) or 0 (not on it). A mask image
has the size of the frame: black, and white (or 1) on the object; `value` picks one object of an id map (a number), or
of a colour-coded picture ([r, g, b]). Its path is relative to the prompt file, or to the working directory if the
prompts come from a pipe or stdin ("-").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType

from .documents import as_path, expanded, is_file, read_json
from .errors import PromptError, RtsegError, short
from .prompt import Prompt, as_prompt
from .prompt_schema import FrameNumber, PromptFields
from .schema import Text, convert, convert_value, plain
from .types import BoolMask

EXAMPLE = '[{"frame": 0, "id": 1, "points": [[x, y, 1]]}, ...]'


class FilePrompt(PromptFields, frozen=True, kw_only=True):
    """A prompt in a file: its mask is the path of a picture, and `value` picks an object of it."""

    mask: Text | UnsetType = UNSET
    value: Any = UNSET

    def __post_init__(self) -> None:
        if self.value is not UNSET and self.mask is UNSET:
            raise ValueError("found a value without a mask; expected the mask image that it picks from")
        PromptFields.__post_init__(self)


class PromptEntry(FilePrompt, frozen=True, kw_only=True):
    """An entry of a prompt file."""

    frame: FrameNumber


def load_prompts(path: str | Path) -> dict[int, list[Prompt]]:
    """Read a prompt file: frame number to the prompts on it, in the order of the file. "-" is stdin.

    Raises `PromptError` in one line that names the file, the entry and what was expected.
    """
    path = as_path(path, PromptError)
    entries = read_json(path, "prompts", PromptError)
    if not isinstance(entries, list) or not entries:
        raise PromptError(f"{path}: found {short(entries)}; expected a list of prompts: {EXAMPLE}")
    folder = path.parent if is_file(path) else Path()
    prompts: dict[int, list[Prompt]] = {}
    for number, values in enumerate(entries, 1):
        where = f"{path}: entry {number}"
        entry = convert(values, PromptEntry, where, PromptError)
        on_frame = prompts.setdefault(entry.frame, [])
        if any(other.id == entry.id for other in on_frame):
            raise PromptError(
                f"{where}: object {entry.id} already has a prompt on frame {entry.frame}; expected one entry for both"
            )
        on_frame.append(read_prompt(entry, where, folder, PromptError))
    return prompts


def as_prompts(prompts: object) -> dict[int, list[Prompt]]:
    """A checked copy of a caller's prompts: frame number to the prompts on it, as `load_prompts` returns them."""
    if not isinstance(prompts, Mapping):
        raise PromptError(f"prompts = {short(prompts)}; expected a map of frame numbers to lists of Prompt")
    found: dict[int, list[Prompt]] = {}
    for frame, on_frame in prompts.items():
        number = convert_value(frame, FrameNumber, "prompts: frame", PromptError)
        if isinstance(on_frame, Prompt | str | Mapping) or not isinstance(on_frame, Iterable) or number in found:
            raise PromptError(f"prompts on frame {number}: found {short(on_frame)}; expected one list of Prompt")
        found[number] = [as_prompt(prompt) for prompt in on_frame]
    return found


def read_prompt(entry: FilePrompt, where: str, folder: Path, error: type[RtsegError]) -> Prompt:
    """The prompt of an entry; the path of its mask is relative to `folder`."""
    if entry.mask is UNSET:
        return Prompt.from_fields(entry, None)
    value = None if entry.value is UNSET else mask_value(entry.value, where, error)
    path = folder / expanded(entry.mask, f"{where}: mask", error)
    return Prompt.from_fields(entry, read_mask(path, where, error, value))


def mask_value(value: object, where: str, error: type[RtsegError] = PromptError) -> int | tuple[int, ...]:
    """What picks an object of a mask image: its number in an id map, 0 to 65535, or its colour (r, g, b)."""
    number = plain(value)
    if type(number) is int and 0 <= number <= 65535:
        return number
    color = tuple(part for part in number if type(part) is int and 0 <= part <= 255) if type(number) is list else ()
    if len(color) != 3 or len(number) != 3:
        expected = "the number of an object, 0 to 65535, or a colour [r, g, b]"
        raise error(f"{where}: value = {short(value)}; expected {expected}")
    return color


def read_mask(
    path: Path, where: str, error: type[RtsegError] = PromptError, value: int | tuple[int, ...] | None = None
) -> BoolMask:
    """A mask image as bool [H, W]; `value` as in a prompt file. `error` if it is ambiguous."""
    from .mask_images import mask_of_image  # clicks and boxes need no reader of pictures

    return mask_of_image(path, f"{where}: mask = {str(path)!r}", error, value)
