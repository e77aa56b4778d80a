"""What a fork does to things that have threads: the child has the things, and none of their threads.

Whoever used them there would wait for ever. So a thing says here how it is put out of use in a child; nothing is
checked while it is used. A process that is spawned has none of this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from .errors import RtsegError

ADVICE = "open another in this process, or start processes with multiprocessing.get_context('spawn')"
_things: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_FIRST = os.getpid()  # the process that imported this


def in_child(thing: Any, put_out: Callable[[Any], None]) -> None:
    """Have `put_out(thing)` called in every child that is forked while there is such a thing."""
    _things[thing] = put_out


def refuse(thing: Any, names: tuple[str, ...], error: RtsegError) -> None:
    """Make these methods of a thing raise an error, whatever they are given."""
    for name in names:
        if hasattr(thing, name):
            setattr(thing, name, partial(_raise, error))


def was_forked() -> bool:
    """Whether this process is a child that was forked off one that had rtseg."""
    return os.getpid() != _FIRST


def _raise(error: RtsegError, *_: object, **__: object) -> None:
    raise error


def _after() -> None:
    for thing, put_out in list(_things.items()):
        put_out(thing)
    _things.clear()


os.register_at_fork(after_in_child=_after)
