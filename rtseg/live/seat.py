"""What each process of a feed has when it begins: its link to the supervisor, the board, the rings.

The supervisor starts `python -m rtseg.live SEAT`, where SEAT is a JSON map of the inherited descriptors; the first
message on the link is the configuration. A process ends with its supervisor, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from ..base import errors
from ..base.errors import RtsegError
from ..base.types import now_ns
from ..engine.recipe import Recipe
from .board import Board
from .link import Link, Said
from .ring import Plan, Ring

FRAMES = Plan(entries=64, arena=192 << 20)  # 2.5 s of 720p at 25 fps; the past that a click may point at
MASKS = Plan(entries=64, arena=32 << 20, meta=1 << 16)  # more where the masks are large: `masks_plan`
SHOWN = Plan(entries=64, arena=96 << 20, meta=1 << 16)  # pictures on their way to the recorder
REFUSED = 3  # exit code: what was asked for can never work, so that starting again is no use
HUNG = 4  # exit code: something that was called does not return
_PR_SET_PDEATHSIG = 1
_LAST_WORDS_S = 30.0  # for a supervisor that does not listen just now
_SWITCH_S = 0.0005  # a thread with a picture to send would wait 5 ms for one that computes


def masks_plan(recipe: Recipe) -> Plan:
    """Room for a few of the largest masks that this recipe can give."""
    largest = recipe.max_objects * (recipe.image_size // 4) ** 2 * 4
    return replace(MASKS, arena=max(MASKS.arena, 4 * largest))


@dataclass(frozen=True, slots=True)
class Fds:
    """The descriptors that all processes of a feed inherit; a bell wakes the process it is named after."""

    board: int
    frames: int
    masks: int
    shown: int
    frames_for_segment: int
    frames_for_publish: int
    masks_for_publish: int
    shown_for_record: int

    def all(self) -> tuple[int, ...]:
        return tuple(asdict(self).values())


@dataclass(slots=True)
class Seat:
    """One process's place in a feed."""

    role: str
    fds: Fds
    link: Link
    board: Board
    config: dict[str, Any] = field(default_factory=dict)
    _early: list[Said] = field(default_factory=list)
    _stopping: bool = False
    frames: Ring = field(init=False)
    masks: Ring = field(init=False)
    shown: Ring = field(init=False)

    def __post_init__(self) -> None:
        fds = self.fds
        self.frames = Ring(fds.frames, FRAMES, (fds.frames_for_segment, fds.frames_for_publish))
        self.masks = Ring(fds.masks, MASKS.as_in(fds.masks), (fds.masks_for_publish,))
        self.shown = Ring(fds.shown, SHOWN, (fds.shown_for_record,))

    def beat(self) -> None:
        """Say that the process goes round its loop."""
        self.board[f"beat {self.role}"] = now_ns()

    def wait(self, seconds: float, *bells: int) -> None:
        """Sleep until a bell rings, a message comes, or `seconds` are over; not at all once told to stop."""
        if self._stopping:
            return
        poll = select.poll()
        for fd in (self.link.fileno(), *bells):
            poll.register(fd, select.POLLIN)
        poll.poll(seconds * 1e3)

    def heard(self) -> list[Said]:
        """What the supervisor said; ends the process if that was all it will say, or it is gone."""
        said, self._early = [*self._early, *self.link.receive()], []
        if not said and (self._stopping or self.link.closed):
            raise SystemExit(0)
        self._stopping |= any(facts["say"] == "stop" for facts, _ in said)
        return [one for one in said if one[0]["say"] != "stop"]

    def learn(self) -> None:
        """Wait for the configuration, which is the first message."""
        while not self.config:
            select.select([self.link], [], [])
            said = self.heard()
            if said:
                self.config, self._early = said[0][0], said[1:]


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the signal sent to this process when its parent ends, however that is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(0)  # it died before we could ask to be told


def sit_down(argument: str) -> Seat:
    """Take the seat that the command line describes, and wait for its configuration."""
    given = json.loads(argument)
    end_with(given["supervisor"])
    # Ctrl-C is the supervisor's to hear; it ends its processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    link = Link(socket.socket(fileno=given["link"]))
    fds = Fds(**given["fds"])
    seat = Seat(given["role"], fds, link, Board(fds.board))
    seat.beat()
    seat.learn()
    return seat


def run(seat: Seat) -> None:
    """Do the work of a seat; how it ends is told to the supervisor, and nobody sees a traceback by surprise.

    Each process imports what its own work needs: only `segment` pays for torch.
    """
    try:
        import_module(f".{seat.role}", __package__).work(seat)
    except RtsegError as e:
        _last_words(seat, "refused", text=str(e), kind=kind_of(e))
        sys.exit(REFUSED)
    except SystemExit as e:
        if e.code:
            raise
    except Exception as e:
        _last_words(seat, "fault", text=f"{type(e).__name__}: {e}")
        if os.environ.get("RTSEG_DEBUG"):
            raise
        sys.exit(1)
    _last_words(seat, "done")


def kind_of(error: RtsegError) -> str:
    """The name of an error that `errors` has: a room may have one of its own below it."""
    return next(str(kind.__name__) for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)


def _last_words(seat: Seat, say: str, **facts: Any) -> None:
    """Say why the process ends, if need be when there is room for it again: nobody else knows."""
    until_ns = now_ns() + int(_LAST_WORDS_S * 1e9)
    while not (seat.link.send(say, **facts) or seat.link.gone) and now_ns() < until_ns:
        time.sleep(0.02)
