"""A request that comes again with its key is carried out once, whoever brings it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rtseg.base.errors import OutputError
from rtseg.live.control import Client, ControlServer, Pause, Remove, Rename, Status, Undo
from rtseg.live.control.repeats import Repeats


class Answering:
    """A server that notes what it carries out, and answers after `delay_s`. `remove` is refused."""

    def __init__(self) -> None:
        self.server, self.done, self.delay_s = ControlServer("tcp://127.0.0.1:*"), list[Any](), 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due: list[tuple[float, Any, Any]] = []
        while not self._over.is_set():
            self.server.socket.poll(5)
            for ticket, request in self.server.receive():
                self.done.append(request)
                due.append((time.monotonic() + self.delay_s, ticket, request))
            for one in [one for one in due if one[0] <= time.monotonic()]:
                due.remove(one)
                if isinstance(one[2], Remove):
                    self.server.refuse(one[1], "no object 1 is tracked")
                else:
                    self.server.reply(one[1], {"count": len(self.done)})

    def client(self, timeout: float = 20.0) -> Client:
        return Client(self.server.endpoint, timeout=timeout)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def feed() -> Iterator[Answering]:
    found = Answering()
    yield found
    found.close()


def test_it_is_carried_out_once_and_answered_as_the_first_time(feed: Answering) -> None:
    with feed.client() as one, feed.client() as other:
        assert one.ask(Undo(), key="a") == {"count": 1}
        assert other.ask(Undo(), key="a") == {"count": 1, "repeated": True}
        assert other.ask(Undo(), key="b") == {"count": 2}  # negative control: another key, and none
        assert other.ask(Undo()) == {"count": 3}
        for _ in range(2):
            with pytest.raises(OutputError, match="no object 1"):
                one.ask(Remove(1), key="c")
        with pytest.raises(OutputError, match="another request had it"):
            one.ask(Pause(), key="a")
        assert one.ask(Rename(1, "a"), key="d") and one.ask(Rename(1, "a"), key="d")["repeated"]
    assert len(feed.done) == 5


def test_one_that_is_under_way_is_waited_for(feed: Answering) -> None:
    feed.delay_s = 0.5
    with feed.client(0.1) as gone, feed.client() as other:
        with pytest.raises(OutputError, match="no answer"):
            gone.ask(Undo(), key="a")  # its process is killed, say
        assert other.ask(Undo(), key="a") == {"count": 1, "repeated": True}
    assert len(feed.done) == 1


def test_what_changes_nothing_is_answered_anew(feed: Answering) -> None:
    with feed.client() as client:
        assert [client.ask(Status(), key="a")["count"] for _ in range(2)] == [1, 2]


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats()
    repeats.begin("under way", b"")
    for n in range(1000):
        repeats.begin(str(n), b"")
        repeats.answered(str(n), {})
    assert len(repeats._known) <= 257
    assert repeats.find("999") and repeats.find("under way") and not repeats.find("1")
    known = repeats.find("under way")
    assert known and sum(repeats.wait(known, n) for n in range(100)) == 8
    assert repeats.answered("under way", {}) == list(range(8)) and repeats.answered("under way", {}) == []
