"""Prompts that people write in a file: clicks, boxes and mask images, each on one frame of a video.

    [{"frame": 0, "id": 1, "label": "grasper", "points": [[412, 260, 1]]},
     {"frame": 0, "id": 2, "box": [100, 80, 300, 220]},
     {"frame": 40, "id": 1, "mask": "grasper.png"}]

Coordinates are pixels of the frame. A point's third number is 1 (on the object) or 0 (not on it). A mask image
has the size of the frame; every pixel that is not black is the object. Its path is relative to the prompt file.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from .errors import PromptError, RtsegError
from .tables import Table
from .types import MAX_ID, BoolMask, Prompt, as_points

PROMPT_KEYS = ("id", "label", "points", "box", "mask")
POINTS = "points like [[x, y, 1 or 0], ...]"
BOX = "a box like [x0, y0, x1, y1] with x0 < x1 and y0 < y1"


def load_prompts(path: str | Path) -> dict[int, list[Prompt]]:
    """Read a prompt file: frame number to the prompts on it, in the order of the file.

    Raises `PromptError` in one line that names the file, the entry and what was expected.
    """
    path = Path(path)
    entries = _read_json(path)
    if not isinstance(entries, list) or not entries:
        raise PromptError(f'{path}: expected a list of prompts: [{{"frame": 0, "id": 1, "points": [[x, y, 1]]}}, ...]')
    prompts: dict[int, list[Prompt]] = {}
    for number, entry in enumerate(entries, 1):
        table = Table(entry, f"{path}: entry {number}", ("frame", *PROMPT_KEYS), PromptError)
        frame = table.integer("frame", None, 0)
        prompt = read_prompt(table, path.parent)
        on_frame = prompts.setdefault(frame, [])
        if any(other.id == prompt.id for other in on_frame):
            raise PromptError(
                f"{table.where}: object {prompt.id} already has a prompt on frame {frame}; expected one entry for both"
            )
        on_frame.append(prompt)
    return prompts


def read_prompt(table: Table, folder: Path) -> Prompt:
    """One prompt out of a table with the keys `PROMPT_KEYS`; mask paths are relative to `folder`."""
    kinds = [key for key in ("points", "box", "mask") if key in table]
    if not kinds or ("mask" in kinds and len(kinds) > 1):
        found = " and ".join(kinds) or "neither points, box nor mask"
        raise table.error(f"{table.where}: found {found}; expected points, a box, points with a box, or a mask alone")
    box = table.numbers("box", 4, BOX) if "box" in table else None
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise table.bad("box", BOX)
    points = table.rows("points", 3, POINTS) if "points" in table else ()
    if any(kind not in (0, 1) for _, _, kind in points):
        raise table.bad("points", POINTS)
    return Prompt(
        id=table.integer("id", None, 1, MAX_ID),
        points=as_points(points),
        box=(box[0], box[1], box[2], box[3]) if box else None,
        mask=read_mask(folder / table.text("mask"), table.where, table.error) if "mask" in table else None,
        label=table.text("label") if "label" in table else None,
    )


def read_mask(path: Path, where: str, error: type[RtsegError] = PromptError) -> BoolMask:
    """A mask image as bool [H, W]: true where the picture is not black."""
    image_hwc = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if path.is_file() else None
    if image_hwc is None:
        raise error(f"{where}: mask = {str(path)!r} cannot be read as an image; expected a PNG of the frame's size")
    mask_hw = np.asarray(image_hwc.any(axis=2), np.bool_)
    if not mask_hw.any():
        raise error(f"{where}: mask = {str(path)!r} is empty; expected pixels that are not black on the object")
    return mask_hw


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise PromptError(f"{path}: cannot be read ({e.strerror}); expected a JSON file of prompts") from e
    except ValueError as e:
        raise PromptError(f"{path}: not JSON ({e}); expected a list of prompts") from e
