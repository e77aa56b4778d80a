"""Settings of every test."""

import os
from pathlib import Path

import pytest

# The networks here are small: a second thread gains nothing, and where another process wants the same cores, threads
# that wait for one another make a step 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests of processes that keep time: folders and files, relative to this one.
ALONE = (
    "bench/test_feed_benches.py",
    "control",
    "grab/test_intake.py",
    "grab/test_network.py",
    "grab/test_pace.py",
    "grab/test_stream.py",
    "live",
    "metrics",
    "publish/test_live.py",
    "publish/test_viewer.py",
    "test_example.py",
    "test_loopback.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` runs with nothing beside it."""
    homes = [Path(__file__).parent / name for name in ALONE]
    for item in items:
        if any(home in (item.path, *item.path.parents) for home in homes):
            item.add_marker(pytest.mark.alone)
