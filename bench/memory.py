"""Whether a tracker that runs on and on stays as small: the shipped network, 3,000 frames, objects that come and go.

OMP_NUM_THREADS=1 python -m bench.memory
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np

import rtseg

FRAMES, WARM_UP, SIZE = 3000, 500, 64


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print resident memory after frame `WARM_UP` and at the end."""
    tracker = rtseg.Tracker(rtseg.open_engine(image_size=SIZE, precision="fp32"))
    pictures = np.random.default_rng(0).integers(0, 255, (8, 96, 128, 3), dtype=np.uint8)
    warm = 0
    for i in range(FRAMES):
        if i % 200 == 0:
            tracker.prompt(1, points=[(40, 40, 1)])
        if i % 300 == 100:
            tracker.prompt(2, box=(10, 10, 90, 80))
        if i % 300 == 250:
            tracker.remove(2)
        tracker.step(pictures[i % len(pictures)])
        if i == WARM_UP:
            warm = resident()
    end = resident()
    print(f"frame {WARM_UP}: {warm / 2**20:.1f} MiB, frame {FRAMES}: {end / 2**20:.1f} MiB, {end / warm - 1:+.2%}")


if __name__ == "__main__":
    main()
