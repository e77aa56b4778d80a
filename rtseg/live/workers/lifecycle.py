"""The beginning and the end of a worker.

The supervisor starts `python -m rtseg.live ARGUMENT`, where ARGUMENT is JSON: the role, the supervisor's process and
the inherited descriptors. The first message on the link is the configuration. A worker ends with its supervisor,
however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from importlib import import_module

from ...base import errors
from ...base.errors import RtsegError
from ...base.types import now_ns
from ..ipc.link import Link
from ..ipc.messages import Message
from ..ipc.reports import Done, Fault, Refused
from ..ipc.shared_memory import Descriptors, SharedMemory
from .context import WorkerContext

REFUSED = 3  # exit code: the configuration can never work, so a restart is pointless
_PR_SET_PDEATHSIG = 1
_LAST_MESSAGE_S = 30.0  # for a supervisor that does not read just now
_SWITCH_S = 0.0005  # by default a thread that has a picture to send waits 5 ms for one that computes


def command_line_argument(role: str, link: int, fds: Descriptors) -> str:
    """ARGUMENT for a worker that this process starts; `link` is the descriptor of its end of the link."""
    return json.dumps({"role": role, "supervisor": os.getpid(), "link": link, "fds": asdict(fds)})


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have a signal sent to this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(0)  # the parent had ended before


def connect(argument: str) -> WorkerContext:
    """The context that the command line describes, after its configuration was received."""
    given = json.loads(argument)
    end_with_parent(given["supervisor"])
    # Ctrl-C is for the supervisor, which ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    link = Link(socket.socket(fileno=given["link"]))
    context = WorkerContext(given["role"], link, SharedMemory(Descriptors(**given["fds"])))
    context.beat()
    context.wait_for_config()
    return context


def run(context: WorkerContext) -> None:
    """Do the work of a role, and tell the supervisor how it ended.

    The module of the role is imported here, so that only `segment` pays for torch.
    """
    try:
        import_module(f".{context.role}", __package__).work(context)
    except RtsegError as e:
        _send_last(context, Refused(str(e), public_class_of(e)))
        sys.exit(REFUSED)
    except SystemExit as e:
        if e.code:
            raise
    except Exception as e:
        _send_last(context, Fault(f"{type(e).__name__}: {e}"))
        if os.environ.get("RTSEG_DEBUG"):
            raise
        sys.exit(1)
    _send_last(context, Done())


def public_class_of(error: RtsegError) -> str:
    """The name of the nearest class in base/errors.py: the error may be of a subclass defined elsewhere."""
    return next(str(kind.__name__) for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)


def _send_last(context: WorkerContext, message: Message) -> None:
    """Send the last message, which says why the worker ends; try again while the link is full."""
    until_ns = now_ns() + int(_LAST_MESSAGE_S * 1e9)
    while not (context.send(message) or context.link.gone) and now_ns() < until_ns:
        time.sleep(0.02)
