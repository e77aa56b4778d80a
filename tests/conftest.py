"""Settings of every test: threads, what tests share, and an end to every process that a test starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.leftovers import Leftovers, tag
from tests.shared import Shared

# The networks here are small: a second thread gains nothing, and where another process wants the same cores, threads
# that wait for one another make a step 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who is started in the background may inherit that Ctrl-C and a hang-up are ignored, and would pass it on.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)


LEFTOVERS = Leftovers(tag())


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """A test that leaves a process behind fails, and the process ends."""
    before = LEFTOVERS.running()
    yield
    left = LEFTOVERS.end(before)
    if left:
        pytest.fail("left running: " + "; ".join(left))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Things that are made once for all tests, in whichever process they run."""
    own = tmp_path_factory.getbasetemp()
    return Shared((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared")


def pytest_sessionfinish() -> None:
    """Also what a worker of pytest that crashed has left."""
    LEFTOVERS.end(set(), wait_s=0.0)
