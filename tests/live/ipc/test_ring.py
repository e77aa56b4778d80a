"""A ring hands over whole values or none, outlives its writer, and is never larger than it was made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rtseg.live.ipc import ring as ring_module
from rtseg.live.ipc.ring import Ring, RingSize
from rtseg.live.ipc.wakeup import WakeUp

SIZE = RingSize(entries=8, arena=1000, header=32)


@pytest.fixture()
def ring() -> Ring:
    return Ring(Ring.create("test", SIZE), SIZE)


def picture(value: int, size: int = 100) -> np.ndarray:
    return np.full(size, value % 256, np.uint8)


def test_what_is_written_is_read_by_anybody_who_has_the_memory(ring: Ring) -> None:
    other = Ring(os.dup(ring.fd), SIZE)
    assert ring.write(b"first", picture(1).reshape(10, 10)) == 0 and ring.write(b"", picture(2)) == 1
    header, flat = other.read(0) or pytest.fail("nothing")
    assert header == b"first" == other.header(0) and (flat == 1).all() and flat.shape == (100,)
    assert other.head == 2 and other.read(2) is None and other.read(-1) is None


def test_a_value_is_gone_before_its_bytes_are_overwritten(ring: Ring) -> None:
    sizes = np.random.default_rng(0).integers(1, 400, 500)
    for index, size in enumerate(sizes):
        ring.write(str(index).encode(), picture(index, size))
        for known in range(max(0, index - 10), index + 1):
            entry = ring.read(known)
            if entry is not None:
                assert entry[0] == str(known).encode()
                np.testing.assert_array_equal(entry[1], picture(known, sizes[known]))
        assert ring.holds(index)
    assert sum(ring.holds(i) for i in range(500)) <= 8


def test_what_is_too_large_is_refused_and_changes_nothing(ring: Ring) -> None:
    ring.write(b"x", picture(1))
    with pytest.raises(ValueError, match="at most 32 \\+ 1000"):
        ring.write(b"", picture(1, 1001))
    with pytest.raises(ValueError, match="at most"):
        ring.write(b"y" * 33, picture(1))
    assert ring.head == 1 and ring.holds(0)


def test_the_next_writer_goes_on_where_one_was_killed(ring: Ring) -> None:
    """Killed again and again while it writes: no number is used twice, no value is half one and half another."""
    program = (
        "import sys, numpy as np\n"
        "from rtseg.live.ipc.ring import Ring, RingSize\n"
        "size = RingSize(8, 64_000_000, 32); ring = Ring(int(sys.argv[1]), size); print('on', flush=True)\n"
        "while True: ring.write(str(ring.head).encode(), np.full(8_000_000, ring.head % 251, np.uint8))\n"
    )
    size = RingSize(8, 64_000_000, 32)
    fd = Ring.create("test", size)
    ring, head = Ring(fd, size), 0
    for _ in range(5):
        command = [sys.executable, "-c", program, str(fd)]
        writer = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
        assert writer.stdout is not None and writer.stdout.readline()
        while ring.head < head + 20:
            newest = ring.read(ring.head - 1)
            assert newest is None or (newest[1] == int(newest[0]) % 251).all()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        head = ring.head
        for index in range(head - 8, head):
            entry = ring.read(index)
            assert entry is None or (int(entry[0]) == index and (entry[1] == index % 251).all())


def test_a_reader_that_is_overtaken_is_told(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.write(b"old", picture(7))
    real = Ring.holds
    answers = iter([True, False])
    monkeypatch.setattr(Ring, "holds", lambda self, index: next(answers) and real(self, index))
    assert ring.read(0) is None


def test_a_wake_up_wakes_its_reader_once(ring: Ring) -> None:
    wake_up = WakeUp()
    loud = Ring(ring.fd, SIZE, [wake_up])
    threading.Thread(target=lambda: [loud.write(b"", picture(i)) for i in range(3)]).start()
    import select

    assert select.select([wake_up], [], [], 2)[0]
    while loud.head < 3:
        pass
    wake_up.clear()
    assert not select.select([wake_up], [], [], 0.05)[0]


def test_a_reader_of_a_ring_fences_before_and_after_it_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ARM, what is read after a check may have been loaded before it."""
    size = RingSize(4, 64)
    ring = Ring(Ring.create("test", size), size)
    ring.write(b"header", np.arange(8, dtype=np.uint8))
    order: list[str] = []
    real = Ring.holds
    monkeypatch.setattr(ring_module, "_fence", lambda: order.append("fence"))
    monkeypatch.setattr(Ring, "holds", lambda self, index: (order.append("holds"), real(self, index))[1])
    assert ring.read(0) is not None and order == ["holds", "fence", "fence", "holds"]
    order.clear()
    assert ring.header(0) == b"header" and order == ["holds", "fence", "fence", "holds"]
    os.close(ring.fd)
