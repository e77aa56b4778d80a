"""Orders: each is done once, or answered with why it was not done.

The orders of one feed are done one after the other, in a thread, so that a feed that does not answer delays nothing
else. A repeated order, such as one that a page sends again after its connection broke, gets the answer of the first.
The feed, or the recording's session, remembers orders too: this holds when the console was started anew meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from ..base.errors import RtsegError, short
from . import messages
from .access import Identity
from .messages import Answer, Order

log = logging.getLogger("rtseg.console")
_REMEMBERED = 1024  # answers, of all clients
_WAITING = 16  # orders of one feed
READS = ("memory", "preview", "hold", "snapshot", "get", "status")  # change nothing: not remembered, and no event
OPEN_TO_VIEWERS = ("memory", "snapshot", "get", "status")
_MAX_WHO = 64
Key = tuple[str, str, int]


class Source(Protocol):
    """What orders are for: a `Feed`."""

    name: str

    def ask(self, verb: str, args: dict[str, Any], who: str, key: str | None = None) -> dict[str, Any]:
        """Do an order, and wait; `RtsegError` if it is not done."""

    def tell(self, kind: str, text: str, who: str | None = None) -> None:
        """Something happened."""


class _Worker:
    """A thread that calls one function after the other."""

    def __init__(self, name: str) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.count = 0
        # A daemon: at the end nobody waits for a feed that does not answer.
        threading.Thread(target=self._run, name=f"orders {name}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._waiting.get()()

    async def call(self, function: Callable[[], Any]) -> Any:
        """The function's result, or its exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            try:
                found, error = function(), None
            except BaseException as e:
                found, error = None, e
            loop.call_soon_threadsafe(_settle, future, found, error)

        self.count += 1
        try:
            self._waiting.put(work)
            return await future
        finally:
            self.count -= 1


def _settle(future: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)


class Orders:
    """Does the orders of all viewers. Belongs to the event loop.

    Attributes:
        counts: orders by outcome: `done`, `failed` and `repeated`.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._workers: dict[str, _Worker] = {}
        self._known: OrderedDict[Key, tuple[Order, asyncio.Task[Answer]]] = OrderedDict()
        self._tasks: set[asyncio.Task[Answer]] = set()

    async def do(self, feed: Source, order: Order, identity: Identity, address: str) -> Answer:
        """Do an order, or return the answer that it had before. Never raises."""
        if not order.client or order.verb in READS:
            return await self._once(feed, order, identity, address)
        key = (identity.key, order.client, order.n)
        if key in self._known:
            first, task = self._known[key]
            if first != order:
                return _error(order, f"{order.verb}: order {order.n} of this page was another; expected a new number")
            self.counts["repeated"] += 1
        else:
            task = asyncio.create_task(self._once(feed, order, identity, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._known[key] = order, task
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return await asyncio.shield(task)  # the order goes on if the page goes away

    async def _once(self, feed: Source, order: Order, identity: Identity, address: str) -> Answer:
        worker = self._workers.get(feed.name) or self._workers.setdefault(feed.name, _Worker(feed.name))
        if worker.count >= _WAITING:
            self.counts["failed"] += 1
            return _error(order, f"{order.verb}: {worker.count} orders wait for {feed.name} already; try again")
        who = (identity.name or f"{identity.right} at {address}")[:_MAX_WHO]
        try:
            key = _key(identity, order)
            result = await worker.call(lambda: feed.ask(order.verb, order.args, who, key))
        except RtsegError as e:
            self._note(feed, order, who, f"not done: {e}", "failed")
            return _error(order, " ".join(str(e).split()))
        except Exception as e:  # a bug must not end the console
            log.exception("%s: %s", feed.name, order.verb)
            self._note(feed, order, who, f"not done: {type(e).__name__}", "failed")
            return _error(order, f"{order.verb}: {type(e).__name__} (a bug; the console's log says where)")
        self._note(feed, order, who, "done", "done")
        return Answer(n=order.n, ok=True, result=result)

    def _note(self, feed: Source, order: Order, who: str, outcome: str, count: str) -> None:
        self.counts[count] += 1
        if order.verb in READS and count == "done":
            return
        text = f"{_described(order)}: {outcome}"
        log.info("%s: %s (%s)", feed.name, text, who)
        feed.tell("order" if count == "done" else "refused order", text, who)


def _key(identity: Identity, order: Order) -> str | None:
    """What tells an order from all others, of any console; None for one that changes nothing, or has no client."""
    if not order.client or order.verb in READS:
        return None
    return hashlib.blake2b(f"{identity.key}\0{order.client}\0{order.n}".encode(), digest_size=16).hexdigest()


def _described(order: Order) -> str:
    """An order in a few words."""
    prompt = order.args.get("prompt")
    about = prompt if isinstance(prompt, dict) else order.args
    words = [short(about[key]).strip("'") for key in ("id", "label") if about.get(key) is not None]
    return " ".join([ascii(order.verb)[1:-1], *words])


def _error(order: Order, text: str) -> Answer:
    return messages.Answer(n=order.n, ok=False, error=text)
