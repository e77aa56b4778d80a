"""Control of a running feed: requests over a socket, answered by the supervisor. No request can carry code.

Modules that need ZeroMQ are imported at their first use, because the command line lists its verbs without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, Proposal, Snapshot
    from .server import ControlServer, Ticket
    from .snapshot import snapshot_result
    from .verbs import (
        Add,
        Correct,
        Get,
        Hold,
        Look,
        Memory,
        Pause,
        Preview,
        Redo,
        Remove,
        Rename,
        Request,
        Reset,
        Resume,
        Set,
        Shutdown,
        Status,
        TakeSnapshot,
        Undo,
    )

_HOMES = {"Client": "client", "Snapshot": "client", "Proposal": "client", "ControlServer": "server", "Ticket": "server"}
_HOMES |= {"snapshot_result": "snapshot"}

__all__ = [
    "Add",
    "Client",
    "ControlServer",
    "Correct",
    "Get",
    "Hold",
    "Look",
    "Memory",
    "Pause",
    "Preview",
    "Proposal",
    "Redo",
    "Remove",
    "Rename",
    "Request",
    "Reset",
    "Resume",
    "Set",
    "Shutdown",
    "Snapshot",
    "Status",
    "TakeSnapshot",
    "Ticket",
    "Undo",
    "snapshot_result",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'verbs')}", __name__), name)
