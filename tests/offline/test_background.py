"""Threads beside the caller's: the order is kept, and so is which error comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rtseg.offline.background import DEPTH, Prefetch, WriteBehind


def test_the_order_is_kept_and_little_is_held() -> None:
    made: list[int] = []
    done: list[int] = []

    def source() -> Iterator[int]:
        for n in range(40):
            made.append(n)
            yield n

    def work(n: int) -> None:
        assert made[-1] - n <= 2 * DEPTH + 4
        done.append(n)

    with WriteBehind(work) as writing, Prefetch(source()) as frames:
        for n in frames:
            writing.add(n)
    assert done == made == list(range(40))


def test_they_go_on_beside_one_another() -> None:
    """Each step can only end while the other two are at work."""
    meet, done = threading.Barrier(3, timeout=20), []

    def source() -> Iterator[int]:
        yield from range(2)
        for n in range(2, 6):
            meet.wait()
            yield n

    def work(n: int) -> None:
        if 0 < n < 5:
            meet.wait()
        done.append(n)

    with WriteBehind(work) as writing, Prefetch(source()) as frames:
        for n in frames:
            writing.add(n)
            if 0 < n < 5:
                meet.wait()
    assert done == list(range(6)) and not meet.broken


def test_the_error_of_the_earlier_thing_is_raised() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise KeyError("source")

    def work(n: int) -> None:
        if n == 2:
            raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"), WriteBehind(work) as writing, Prefetch(source()) as frames:
        for n in frames:
            writing.add(n)
    done: list[int] = []
    with pytest.raises(KeyError, match="source"), WriteBehind(done.append) as writing, Prefetch(source()) as frames:
        for n in frames:
            writing.add(n)
    assert done == [0, 1, 2]


def test_who_is_interrupted_does_not_wait_for_the_rest() -> None:
    held = threading.Event()
    done: list[int] = []

    def work(n: int) -> None:
        held.wait(20)
        done.append(n)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), WriteBehind(work) as writing:
        for n in range(3):
            writing.add(n)
        threading.Timer(0.2, held.set).start()
        raise KeyboardInterrupt
    assert done in ([], [0])
    assert threading.active_count() <= before + 1  # the timer
