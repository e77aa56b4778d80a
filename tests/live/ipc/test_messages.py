"""Messages arrive as they were sent, whole, of their own types, and with their descriptors."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from rtseg.base.types import Color, FrameId, Prompt
from rtseg.engine.recipe import Recipe
from rtseg.live.ipc import messages as m
from rtseg.live.ipc import reports as r
from rtseg.live.ipc.link import Link
from rtseg.live.ipc.packing import pack, unpack
from tests.live.ipc.test_frame_rings import frame


def click(object_id: int, label: str | None = None) -> Prompt:
    return Prompt(object_id, points=((1.0, 1.0, 1),), label=label)


def memfds(name: str) -> int:
    """How many of this name this process holds; what else is open may be closed at any time, by a collected object."""
    links = (str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(link.startswith(f"/memfd:{name} ") for link in links)


def test_every_message_type_can_be_received() -> None:
    kinds = {kind for union in (m.Config, m.Request, r.Report) for kind in get_args(union)}
    names = {**vars(m), **vars(r)}
    defined = {kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, m.Message)}
    assert kinds == defined - {m.Message, m.Elsewhere}


def test_values_in_messages_keep_their_types() -> None:
    recipe = Recipe(path=Path("/somewhere/nano.toml"), device="cuda:1")
    odd = FrameId(5, 6, 8, "s", 3, Fraction(1001, 30000), 7, color=Color("bt709"), sample_aspect=Fraction(4, 3))
    for message in (
        m.SegmentConfig.from_recipe(recipe, "latest", (90, 120)),
        m.GrabConfig("clip.mp4", "native", "auto", (0, 0, 80, 60), True),
        m.GivePrompts(3, (m.PromptData.from_prompt(click(1, "x")),), odd),
        m.PublishStatus({"state": "running", "nested": {"list": [1, 2.5, None]}}, False, "", True),
        r.SceneReport(4, True, (1, 2), ()),
        r.SizeReady(None),
        m.Stop(),
    ):
        again = unpack(pack(message))
        assert type(again) is type(message) and again == message
    assert unpack(pack(m.SegmentConfig.from_recipe(recipe, "latest", None))).to_recipe() == recipe


def test_prompts_cross_unchanged() -> None:
    mask_hw = np.zeros((6, 8), bool)
    mask_hw[2:4, 3:5] = True
    for prompt in (click(1, "x"), Prompt(2, box=(0.0, 0.0, 3.0, 3.0)), Prompt(3, mask=mask_hw)):
        packed = pack(m.GivePrompts(1, (m.PromptData.from_prompt(prompt),), frame(0).id))
        same = unpack(packed).prompts[0].to_prompt()
        assert (same.id, same.points, same.box, same.label) == (prompt.id, prompt.points, prompt.box, prompt.label)
        assert prompt.mask is None or (same.mask == prompt.mask).all()


def test_what_is_no_message_is_an_error() -> None:
    for wrong in ({"type": "Nothing"}, {"type": "Bound", "endpoint": 5}, {"type": "Answer"}, [1]):
        with pytest.raises(msgspec.ValidationError):
            unpack(msgspec.msgpack.encode(wrong))


def test_a_link_carries_messages_of_any_length_and_shows_the_end_of_the_other_side() -> None:
    ours, theirs = (Link(end) for end in Link.pair())
    before, held = memfds("rtseg-message"), memfds("rtseg-test")
    fd = os.memfd_create("rtseg-test")
    long = r.Fault("y" * 1_000_000)
    assert ours.send(r.Bound("tcp://here")) and ours.send(long, (fd,))
    (short, _), (received, fds) = theirs.receive()
    assert short == r.Bound("tcp://here") and received == long and len(fds) == 1
    assert memfds("rtseg-test") == held + 2
    os.close(fds[0])
    os.close(fd)
    assert memfds("rtseg-test") == held and memfds("rtseg-message") == before
    while ours.send(r.Fault("z" * 10_000)):  # nobody reads: it returns False, and does not wait
        pass
    assert not ours.closed
    assert theirs.send(r.Refused("its last message", "EngineError"))
    theirs.close()  # without having read all that was sent to it
    assert not ours.send(m.Stop())
    assert ours.receive() == [(r.Refused("its last message", "EngineError"), [])] and ours.closed
