"""The prompts that a restarted network is given: of each object the first frame and the latest ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import PromptError
from rtseg.base.types import Color, Frame, Prompt
from rtseg.engine.policy import MAX_CONDITIONING
from rtseg.live.prompt_history import PromptHistory


def frame(seq: int) -> Frame:
    return Frame(np.full((6, 8, 3), seq, np.uint8), seq, "s", color=Color("bt709", "limited"), interlaced=True)


def click(object_id: int, label: str | None = None) -> Prompt:
    return Prompt(object_id, points=((1.0, 1.0, 1),), label=label)


def memfds(name: str) -> int:
    """How many of this name this process holds; what else is open may be closed at any time, by a collected object."""
    links = (str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(link.startswith(f"/memfd:{name} ") for link in links)


def test_of_each_object_the_first_and_the_latest_pictures_are_kept() -> None:
    history, before = PromptHistory(2), memfds("rtseg-prompted")
    for seq in range(10):
        history.check(click(1), frame(seq), new=seq == 0)
        history.add(history.picture(frame(seq)), click(1, f"name {seq}"))
    replayed = list(history.replay())
    assert [picture.seq for picture, _ in replayed] == [0, 7, 8, 9] and len(replayed) == MAX_CONDITIONING
    assert {p.label for _, prompts in replayed for p in prompts} == {"name 9"}
    assert memfds("rtseg-prompted") == before + MAX_CONDITIONING  # what is evicted is closed
    history.add(history.picture(frame(9)), click(2))
    assert memfds("rtseg-prompted") == before + MAX_CONDITIONING  # one picture for both
    assert [p.id for p in list(history.replay())[-1][1]] == [1, 2]
    pixels = os.pread(replayed[0][0].fd, 1000, 0)
    assert pixels == frame(0).image_hwc.tobytes()
    del replayed
    history.remove(1)
    assert history.ids == (2,) and memfds("rtseg-prompted") == before + 1


def test_prompts_that_make_no_sense_are_refused_in_one_line() -> None:
    history = PromptHistory(1)
    history.add(history.picture(frame(0)), click(1))
    for prompt, new, why in [
        (click(1), True, "tracked already; correct it"),
        (click(2), False, "no object 2"),
        (click(2), True, "1 objects are tracked already"),
        (Prompt(1, points=((99.0, 1.0, 1),)), False, "outside the 8x6 frame"),
    ]:
        with pytest.raises(PromptError, match=why):
            history.check(prompt, frame(0), new=new)
