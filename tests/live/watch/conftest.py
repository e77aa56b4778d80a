"""A snapshot as a feed takes it."""

from __future__ import annotations

from typing import Any

import pytest

from rtseg.base.timing import Histogram


@pytest.fixture
def snapshot() -> dict[str, Any]:
    stages = {}
    for scale, stage in enumerate(("grab", "segment", "overlay", "glass-to-mask", "mask age", "glass-to-publish"), 1):
        stages[stage] = Histogram()
        for i in range(200):
            stages[stage].add(scale * (4 + i / 40))
    process = {"up": True, "restarts": 0, "pid": 100, "beat_age_ms": 12.0, "rss_bytes": 120_000_000, "open_files": 20}
    dead = {**process, "up": False, "pid": None, "restarts": 3}
    return {
        "stream": "room1",
        "engine": "nano, cpu",
        "state": "running",
        "source": {"state": "running", "counts": {"reconnects": 2, "frozen": 0}},
        "processes": {"supervisor": process, "grab": process, "segment": dead, "publish": process},
        "frames": {"in": 1000, "shown": 950, "dropped": {"slot": 30, "late": 20}, "segmented": 700},
        "mask_states": {"fresh": 900, "stale": 30, "expired": 10, "none": 10},
        "published": {"video": {"sent": 940, "dropped": {"slot": 10}}, "overlay": {"sent": 950, "dropped": {}}},
        "stages": stages,
        "ages": {"frame_ms": 33.0, "mask_ms": 61.0},
        "queues": {"frames": 2, "masks": 0},
        "objects": 2,
        "fps": {"in": 25.0, "shown": 23.5, "segmented": 17.5},
        "jitter": stages["grab"],
    }
