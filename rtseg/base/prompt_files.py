"""Prompts that people write in a file: clicks, boxes and mask images, each on one frame of a video.

    [{"frame": 0, "id": 1, "label": "grasper", "points": [[412, 260, 1]]},
     {"frame": 0, "id": 2, "box": [100, 80, 300, 220]},
     {"frame": 40, "id": 1, "mask": "grasper.png"},
     {"frame": 40, "id": 2, "mask": "all-tools.png", "value": 7}]

Coordinates are pixels of the frame. A point's third number is 1 (on the object) or 0 (not on it). A mask image
has the size of the frame: black, and white (or 1) on the object; `value` picks one object of an id map (a number), or
of a colour-coded picture ([r, g, b]). Its path is relative to the prompt file; of prompts from a pipe or stdin ("-"),
to the working directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .documents import as_path, is_file, read_json
from .errors import PromptError, RtsegError
from .prompt_schema import MAX_INT, PROMPT_KEYS
from .tables import Table, listed, short, whole
from .types import BoolMask, Prompt, as_prompt

FILE_KEYS = (*PROMPT_KEYS, "value")  # of a prompt in a file
EXAMPLE = '[{"frame": 0, "id": 1, "points": [[x, y, 1]]}, ...]'


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
    for number, entry in enumerate(entries, 1):
        table = Table(entry, f"{path}: entry {number}", ("frame", *FILE_KEYS), PromptError)
        frame = table.integer("frame", None, 0, MAX_INT)
        prompt = read_prompt(table, folder)
        on_frame = prompts.setdefault(frame, [])
        if any(other.id == prompt.id for other in on_frame):
            raise PromptError(
                f"{table.where}: object {prompt.id} already has a prompt on frame {frame}; expected one entry for both"
            )
        on_frame.append(prompt)
    return prompts


def as_prompts(prompts: object) -> dict[int, list[Prompt]]:
    """The prompts of a caller, frame number to the prompts on it, as `load_prompts` gives them: checked, and a copy."""
    if not isinstance(prompts, Mapping):
        raise PromptError(f"prompts = {short(prompts)}; expected a map of frame numbers to lists of Prompt")
    found: dict[int, list[Prompt]] = {}
    for frame, on_frame in prompts.items():
        number = Table({"frame": frame}, "prompts", ("frame",), PromptError).integer("frame", None, 0, MAX_INT)
        if isinstance(on_frame, Prompt | str | Mapping) or not isinstance(on_frame, Iterable) or number in found:
            raise PromptError(f"prompts on frame {number}: found {short(on_frame)}; expected one list of Prompt")
        found[number] = [as_prompt(prompt) for prompt in on_frame]
    return found


def read_prompt(table: Table, folder: Path) -> Prompt:
    """One prompt out of a table with the keys `FILE_KEYS`; mask paths are relative to `folder`."""
    if "value" in table and "mask" not in table:
        raise table.error(f"{table.where}: found a value without a mask; expected the mask image that it picks from")

    def mask(table: Table) -> BoolMask:
        value = picked(table.values["value"], table.where, table.error) if "value" in table else None
        return read_mask(table.path("mask", folder), table.where, table.error, value)

    return Prompt.read(table, mask)


def picked(value: object, where: str, error: type[RtsegError] = PromptError) -> int | tuple[int, ...]:
    """The `value` of a mask image: the number of an object in an id map, or its colour."""
    number = whole(value)
    if number is not None and 0 <= number <= 65535:
        return number
    color = tuple(whole(part) for part in listed(value) or ())
    found = tuple(part for part in color if part is not None and 0 <= part <= 255)
    if len(color) != 3 or len(found) != 3:
        expected = "the number of an object, 0 to 65535, or a colour [r, g, b]"
        raise error(f"{where}: value = {short(value)}; expected {expected}")
    return found


def read_mask(
    path: Path, where: str, error: type[RtsegError] = PromptError, value: int | tuple[int, ...] | None = None
) -> BoolMask:
    """A mask image as bool [H, W]; `value` as in a prompt file. `error` in one line where it could mean two things."""
    from .mask_images import mask_of_image  # a prompt of clicks needs no reader of pictures

    return mask_of_image(path, f"{where}: mask = {str(path)!r}", error, value)
