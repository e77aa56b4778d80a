"""What every worker has: its role, its configuration, the link to the supervisor, and the shared memory."""

from __future__ import annotations

import select
from typing import Any

from ...base.types import now_ns
from ..ipc.link import Link, Received
from ..ipc.messages import Message, Stop
from ..ipc.shared_memory import SharedMemory
from ..ipc.wakeup import WakeUp


class WorkerContext:
    """The context of one worker. `config` is the message with its configuration."""

    def __init__(self, role: str, link: Link, shared: SharedMemory) -> None:
        self.role, self.link, self.shared = role, link, shared
        self.board, self.frames, self.masks, self.drawn = shared.board, shared.frames, shared.masks, shared.drawn
        self.config: Any = None
        self._unread: list[Received] = []
        self._stopping = False

    def beat(self) -> None:
        """Record a heartbeat: the worker's loop runs."""
        self.board[f"beat {self.role}"] = now_ns()

    def send(self, message: Message) -> bool:
        """Send to the supervisor. Returns whether that worked: it may be gone, or slow to read."""
        return self.link.send(message)

    def wait(self, seconds: float, *wake_ups: WakeUp) -> None:
        """Sleep until a wake-up, a message, or the end of `seconds`; not at all after `Stop`."""
        if self._stopping:
            return
        poll = select.poll()
        for fd in (self.link.fileno(), *(wake_up.fd for wake_up in wake_ups)):
            poll.register(fd, select.POLLIN)
        poll.poll(seconds * 1e3)

    def receive(self) -> list[Received]:
        """The messages that have come; `SystemExit` after the last one before `Stop` or the supervisor's end."""
        received, self._unread = [*self._unread, *self.link.receive()], []
        if not received and (self._stopping or self.link.closed):
            raise SystemExit(0)
        self._stopping |= any(isinstance(one.message, Stop) for one in received)
        return [one for one in received if not isinstance(one.message, Stop)]

    def wait_for_config(self) -> None:
        """Wait for the configuration, which is the first message."""
        while self.config is None:
            select.select([self.link], [], [])
            received = self.receive()
            if received:
                self.config, self._unread = received[0].message, received[1:]
