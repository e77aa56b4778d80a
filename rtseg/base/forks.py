"""Disables objects with threads or sockets in forked child processes, which inherit them without their threads.

A call to such an object would wait for ever. So each object registers a function that disables it in a child; its
methods then raise a clear error there. In the process that made it nothing is checked. A spawned process inherits no
objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from .errors import RtsegError

ADVICE = "open another in this process, or start processes with multiprocessing.get_context('spawn')"
_registered: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_FIRST = os.getpid()  # the process that imported this module


def disable_after_fork(owner: Any, disable: Callable[[Any], None]) -> None:
    """Call `disable(owner)` in every child process that is forked while `owner` exists."""
    _registered[owner] = disable


def disable_methods(owner: Any, names: tuple[str, ...], error: RtsegError) -> None:
    """Make these methods of an object raise an error."""
    for name in names:
        if hasattr(owner, name):
            setattr(owner, name, partial(_raise, error))


def was_forked() -> bool:
    """Whether this process was forked from one that had imported rtseg."""
    return os.getpid() != _FIRST


def _raise(error: RtsegError, *_: object, **__: object) -> None:
    raise error


def _after() -> None:
    for owner, disable in list(_registered.items()):
        disable(owner)
    _registered.clear()


os.register_at_fork(after_in_child=_after)
