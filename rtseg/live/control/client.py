"""The client of a feed's control socket: one method for each request, which returns the feed's answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import msgpack
import zmq
from msgspec import Meta

from ...base.errors import ConfigError, OutputError, PromptError, short
from ...base.forks import ADVICE, disable_after_fork, disable_methods
from ...base.rle import decode_rle
from ...base.schema import convert_value
from ...base.types import BoolMask, Prompt, now_ns
from ...publish.keys import HandshakeMonitor, present
from .messages import (
    PROMPTED,
    Add,
    Correct,
    Get,
    Pause,
    Remove,
    Rename,
    Request,
    Reset,
    Resume,
    Set,
    Shutdown,
    Status,
    TakeSnapshot,
    pack_request,
    verb_of,
)

Seconds = Annotated[float, Meta(gt=0, le=1e6, description="seconds, above 0")]
_MAX_ANSWER_BYTES = 1 << 28  # a PNG of a large noisy picture
_CHANGES_NOTHING = ("get", "snapshot", "status")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frame of a feed with its masks.

    Attributes:
        seq: the number of the frame.
        png: the original picture, as PNG.
        mask_seq: the frame that the masks were made from; None if there are none.
        objects: `{id, label, rle, height, width}` of each object.
    """

    seq: int
    png: bytes = field(repr=False)
    mask_seq: int | None
    objects: tuple[dict[str, Any], ...] = field(repr=False)

    def masks(self) -> dict[int, BoolMask]:
        """The masks by object id, bool [H, W]; `OutputError` if one is broken."""
        return {thing["id"]: decode_rle(thing["rle"], thing["height"], thing["width"]) for thing in self.objects}


class Client:
    """Controls a running feed. Thread-safe, one request after the other; a context manager.

    Every method waits for the feed's answer. It raises `PromptError` if a prompt was refused, and `OutputError` if
    there was no answer in time or anything else was refused.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        timeout: float = 5.0,
        keys: Path | None = None,
        server_key: str | Path | None = None,
    ) -> None:
        """Connect; the feed need not be there yet.

        Arguments:
            endpoint: the profile's `control.bind`.
            timeout: seconds to wait for each answer.
            keys: the client's own `.key_secret`, or the folder that holds it, for a feed that asks for keys.
            server_key: the feed's public key, or its file; None takes `server.key` from the folder of `keys`.

        Raises:
            OutputError: the address is malformed.
            ConfigError: the key cannot be used.
        """
        seconds = convert_value(timeout, Seconds, "timeout", OutputError)
        if not isinstance(endpoint, str):
            raise OutputError(f"endpoint = {short(endpoint)}; expected tcp://HOST:PORT")
        self._endpoint, self._timeout, self._number = endpoint, seconds, 0
        self._keys, self._server_key = keys, server_key
        self._one_at_a_time = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._open()
        except (ConfigError, zmq.ZMQError) as e:
            self._context.destroy(linger=0)
            if isinstance(e, ConfigError):
                raise
            raise OutputError(f"endpoint {endpoint!r}: {str(e).lower()}; expected tcp://HOST:PORT; correct it") from e
        disable_after_fork(self, _disable)

    def add(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: tuple[float, float, float, float] | None = None,
        mask: BoolMask | None = None,
        label: str | None = None,
        seq: int | None = None,
    ) -> dict[str, Any]:
        """Track a new object.

        Arguments:
            id: the object's id, 1 to 255.
            points: (x, y, 1 for object or 0 for background), in pixels of the frame.
            box: (x0, y0, x1, y1), in pixels.
            mask: bool [H, W], of the frame's size.
            label: the object's name.
            seq: the frame that was pointed at, one of the latest 64; None is the newest. The feed applies the prompt
                to that frame, and catches up to now.

        Returns:
            The feed's answer: `id` and `seq`.
        """
        return self._ask(Add(Prompt(id, points, box, mask, label), seq))

    def correct(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: tuple[float, float, float, float] | None = None,
        mask: BoolMask | None = None,
        label: str | None = None,
        seq: int | None = None,
    ) -> dict[str, Any]:
        """Give another prompt for an object that is tracked; arguments and result as for `add`."""
        return self._ask(Correct(Prompt(id, points, box, mask, label), seq))

    def remove(self, id: int) -> dict[str, Any]:
        """Stop tracking an object."""
        return self._ask(Remove(id))

    def rename(self, id: int, label: str) -> dict[str, Any]:
        """Give an object another label; its memory stays."""
        return self._ask(Rename(id, label))

    def reset(self) -> dict[str, Any]:
        """Stop tracking all objects."""
        return self._ask(Reset())

    def pause(self) -> dict[str, Any]:
        """Pause the network; the video continues."""
        return self._ask(Pause())

    def resume(self) -> dict[str, Any]:
        """End a pause."""
        return self._ask(Resume())

    def snapshot(self, seq: int | None = None) -> Snapshot:
        """The original picture of frame `seq`, one of the latest 64 (None: the newest), and its masks."""
        found = self._ask(TakeSnapshot(seq))
        try:
            return Snapshot(found["seq"], found["png"], found["mask_seq"], tuple(found["objects"]))
        except (KeyError, TypeError) as e:
            raise OutputError(f"{self._endpoint}: a snapshot without {e}; is this rtseg live?") from e

    def get(self) -> dict[str, Any]:
        """The current values of what `set` changes: `opacity` and `budget_ms`."""
        return self._ask(Get())

    def set(self, opacity: float | None = None, budget_ms: float | None = None) -> dict[str, Any]:
        """Change how masks are drawn: `opacity` 0 to 1, mask budget 1 to 10,000 ms; None leaves a value unchanged."""
        return self._ask(Set(opacity, budget_ms))

    def status(self) -> dict[str, Any]:
        """The feed's status, as it is published."""
        return self._ask(Status())

    def shutdown(self) -> dict[str, Any]:
        """End the feed in an orderly way."""
        return self._ask(Shutdown())

    def close(self) -> None:
        """Disconnect. May be called again."""
        with self._one_at_a_time:
            if not self._context.closed:
                self._shut()
                self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._handshakes = HandshakeMonitor(self._socket, self._endpoint)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_ANSWER_BYTES)
        self._socket.setsockopt(zmq.IPV6, "[" in self._endpoint)
        if self._keys is not None:
            present(self._socket, self._keys, self._server_key)
        self._socket.connect(self._endpoint)

    def _shut(self) -> None:
        self._handshakes.close()
        self._socket.close()

    def _ask(self, request: Request) -> dict[str, Any]:
        with self._one_at_a_time:
            if self._context.closed:
                raise OutputError(f"{verb_of(request)}: the client is closed; open another")
            self._number += 1
            packed = pack_request(self._number, request)
            try:
                self._socket.send(packed, zmq.NOBLOCK)
                answer = self._wait(verb_of(request))
            except (OutputError, zmq.ZMQError) as e:
                self._shut()  # an undelivered request must not be executed later, when a feed is there
                self._open()
                if isinstance(e, OutputError):
                    raise
                raise OutputError(f"{self._endpoint}: {str(e).lower()}; expected a running rtseg live") from e
        if answer.get("ok") is True and isinstance(answer.get("result"), dict):
            return dict(answer["result"])
        raise (PromptError if isinstance(request, PROMPTED) else OutputError)(str(answer.get("error", "refused")))

    def _wait(self, verb: str) -> dict[str, Any]:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._handshakes.socket, zmq.POLLIN)
        until_ns = now_ns() + int(self._timeout * 1e9)
        while (left_ms := (until_ns - now_ns()) // 1_000_000) > 0:
            ready = dict(poller.poll(left_ms))
            self._handshakes.read()
            if self._handshakes.refused:
                raise OutputError(self._handshakes.refused)
            if self._socket in ready and (answer := self._answer()) is not None:
                return answer
        late = "if a feed is there, it may still do it: rtseg ctl status tells; else "
        raise OutputError(
            f"{verb}: no answer from {self._endpoint} within {self._timeout:g} s; expected a running rtseg live with "
            f"[control]; {'' if verb in _CHANGES_NOTHING else late}check the address"
        )

    def _answer(self) -> dict[str, Any] | None:
        """The answer to the present request; None if a late answer to an earlier one came."""
        try:
            answer = msgpack.unpackb(self._socket.recv_multipart()[-1])
        except Exception as e:
            raise OutputError(f"{self._endpoint}: an answer that is not msgpack; is this rtseg live?") from e
        if not isinstance(answer, dict):
            raise OutputError(f"{self._endpoint}: an answer that is not a map; is this rtseg live?")
        return answer if answer.get("n") in (self._number, None) else None


def _disable(client: Client) -> None:
    text = f"this client was made before the process was forked, and its sockets are the parent's; {ADVICE}"
    disable_methods(client, ("_ask",), OutputError(text))
    client.close = lambda: None  # type: ignore[method-assign]
