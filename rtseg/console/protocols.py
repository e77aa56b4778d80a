"""uvicorn's connections, less patient: one that does not speak, does not read, or floods is cut off.

A connection that says nothing or reads nothing would be kept for ever, and with it what waits to be sent.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

REQUEST_S: Final = 10.0  # from the first byte of a connection, or of a further request, to the end of its head
STUCK_S: Final = 10.0  # without room to write
_MOST_PIECES = 1024  # of one message
_MOST_UNREAD = 1 << 18  # bytes of answers to pings that are not read


class _Deadline:
    """Aborts a connection unless it is called off in time."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop, seconds: float, transport: asyncio.Transport) -> None:
        if self._timer is None:
            self._timer = loop.call_later(seconds, transport.abort)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HttpProtocol(H11Protocol):
    """HTTP connections."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._asking, self._stuck = _Deadline(), _Deadline()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking.begin(self.loop, REQUEST_S, transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and self.transport.get_protocol() is self:  # else it has become a WebSocket
            self._asking.begin(self.loop, REQUEST_S, self.transport)
        else:
            self._asking.end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck.begin(self.loop, STUCK_S, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asking.end()
        self._stuck.end()
        super().connection_lost(exc)


class SocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket connections."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._stuck = _Deadline()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck.begin(self.loop, STUCK_S, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stuck.end()
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > _MOST_UNREAD:
            self.transport.abort()
        else:
            super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MOST_PIECES:
            self.transport.abort()
        else:
            super().handle_cont(event)
