"""The timeline of a recording: of each object, the stretches that are prompted, tracked, locked or absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .recording_state import State, Tracked
from .recording_store import Store

Int8 = npt.NDArray[np.int8]
KINDS = (None, "tracked", "absent", "locked", "prompt")  # by number; a later one covers an earlier one
NOTHING, TRACKED, ABSENT, LOCKED, PROMPT = range(5)


def kinds_of(each: Tracked, store: Store, count: int) -> Int8:
    """What each frame of an object is: the number of its kind."""
    kinds = np.zeros(count, np.int8)
    frames, areas = store.areas(each.key)
    kinds[frames] = np.where(areas > 0, TRACKED, ABSENT)
    for first, last in each.locks:
        kinds[first : last + 1] = LOCKED
    kinds[list(each.prompts)] = PROMPT
    return kinds


def spans(kinds: Int8) -> list[tuple[int, int, str]]:
    """The stretches of one kind: first frame, last frame, kind."""
    edges = np.flatnonzero(np.diff(kinds, prepend=NOTHING, append=NOTHING))
    starts = edges[edges < len(kinds)]
    ends = np.append(starts, len(kinds))[1:] - 1
    return [
        (int(first), int(last), str(KINDS[kinds[first]]))
        for first, last in zip(starts, ends, strict=True)
        if kinds[first] != NOTHING
    ]


def timeline(state: State, store: Store, count: int) -> dict[str, Any]:
    """The part of a recording's status that changes with its masks: `tracked` stretches, and `objects`."""
    anything, objects = np.zeros(count, bool), []
    for each in state.objects:
        kinds = kinds_of(each, store, count)
        anything |= kinds != NOTHING
        about = {"id": each.id, "label": each.label, "color": each.color, "hidden": each.hidden}
        yet = {"ahead": list(each.ahead), "behind": list(each.behind)}
        objects.append({**about, "spans": spans(kinds), **yet})
    return {"tracked": [span[:2] for span in spans(anything.astype(np.int8))], "objects": objects}
