"""Reading ahead and writing behind, each in a thread with a short queue, so that decoding, network and files overlap.

Items stay in order, a queue has at most `DEPTH` of them, and an error in a thread is raised in the caller's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

_T = TypeVar("_T")
DEPTH = 4  # items that a queue holds
PATIENCE_S = 3.0  # how long a source may take to end


class Prefetch(Generic[_T]):
    """Iterates over the items of `source`, read ahead in a thread. A context manager, which ends thread and source.

    After an error in the caller, `stop` asks the source to end. If it does not end within `PATIENCE_S`, like a pipe
    without a writer, the daemon thread is left running.
    """

    def __init__(self, source: Iterable[_T], stop: Callable[[], None] = lambda: None) -> None:
        self._stop = stop
        self._queue: queue.Queue[tuple[bool, _T | BaseException | None]] = queue.Queue(DEPTH)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="prefetch", daemon=True)

    def _run(self, source: Iterable[_T]) -> None:
        try:
            try:
                for item in source:
                    if not self._put(True, item):
                        return
            finally:
                if isinstance(source, Generator):
                    source.close()  # closes its files now, not at the next garbage collection
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


class WriteBehind(Generic[_T]):
    """Calls `work` with each added item, in a thread. A context manager, which waits for the last item.

    After an error in `work` the waiting items are dropped. The next `add`, or the end, raises that error, even instead
    of an error of the caller, which is about a later item.
    """

    def __init__(self, work: Callable[[_T], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._queue: queue.Queue[tuple[_T] | None] = queue.Queue(DEPTH)
        self._thread = threading.Thread(target=self._run, name="write-behind", daemon=True)

    def add(self, item: _T) -> None:
        """Queue an item; waits while the queue is full."""
        self._check()
        self._queue.put((item,))

    def _run(self) -> None:
        while (queued := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(*queued)
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
            self._error = error  # an interrupt: the waiting items are dropped
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and not hurried and self._error is not error:
            raise self._error
