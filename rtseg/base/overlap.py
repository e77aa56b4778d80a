"""Work that goes on beside the caller's, in order: what it needs is made ahead, what it is done with trails behind.

Each is one thread and a short queue, so that little is held at any time. What goes wrong in a thread is raised in the
caller's, in its place in the order.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

_T = TypeVar("_T")
DEPTH = 4
PATIENCE_S = 3.0  # for a source that does not answer


class Ahead(Generic[_T]):
    """What `source` gives, made by a thread of its own; a context manager, which ends that thread, and the source.

    `stop` tells the source to give nothing more. One that does not answer, as a pipe that nobody writes to, is waited
    for a little, where something went wrong, and then left to the end of the process.
    """

    def __init__(self, source: Iterable[_T], stop: Callable[[], None] = lambda: None) -> None:
        self._stop = stop
        self._queue: queue.Queue[tuple[bool, _T | BaseException | None]] = queue.Queue(DEPTH)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="ahead", daemon=True)

    def _run(self, source: Iterable[_T]) -> None:
        try:
            try:
                for thing in source:
                    if not self._put(True, thing):
                        return
            finally:
                if isinstance(source, Generator):
                    source.close()  # what it has open is closed here, not when somebody looks for garbage
            self._put(False, None)
        except BaseException as e:
            self._put(False, e)

    def _put(self, more: bool, what: _T | BaseException | None) -> bool:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._queue.put((more, what), timeout=0.1)
                return True
        return False

    def __iter__(self) -> Iterator[_T]:
        while True:
            more, what = self._queue.get()
            if isinstance(what, BaseException):
                raise what
            if not more:
                return
            yield what  # type: ignore[misc]  # a value of the source

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._over.set()
        if kind is not None:
            self._stop()
        self._thread.join(None if kind is None else PATIENCE_S)


class Trailing(Generic[_T]):
    """Calls `work` with each thing that is given, in a thread of its own; a context manager, which waits for the last.

    Where `work` fails, the things after it are let go, and its error is raised by the next `give`, or at the end: also
    in place of an error of the caller's, which came of a later thing.
    """

    def __init__(self, work: Callable[[_T], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._queue: queue.Queue[tuple[_T] | None] = queue.Queue(DEPTH)
        self._thread = threading.Thread(target=self._run, name="trailing", daemon=True)

    def give(self, thing: _T) -> None:
        self._check()
        self._queue.put((thing,))

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(*given)
                except BaseException as e:
                    self._error = e

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hurried = error is not None and not isinstance(error, Exception)
        if hurried and self._error is None:
            self._error = error  # somebody wants us gone: what waits is let go
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and not hurried and self._error is not error:
            raise self._error
