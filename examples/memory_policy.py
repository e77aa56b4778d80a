"""A memory policy of your own: the memories of every fifth frame, which reach five times as far back as SAM 2's.

python examples/memory_policy.py clip.mp4 640,60
"""

import sys

import numpy as np

import rtseg
from rtseg.track import BankSize, Choice, Memory


@rtseg.register_policy("every-fifth")
def every_fifth(memories: list[Memory], size: BankSize) -> Choice:
    """Keep the prompted memories, the newest one, and the latest of every fifth step: `size.window` in all."""
    newest = len(memories) - 1
    sparse = [i for i, m in enumerate(memories) if m.conditioning or i == newest or m.step % 5 == 0]
    loose = [i for i in sparse if not memories[i].conditioning][-(size.window - 1) :]
    keep = [i for i in sparse if memories[i].conditioning or i in loose]
    # A slot tells the network when a memory is from: 0 for the latest, 1 for the one before, the last if prompted.
    slots = {i: rank for rank, i in enumerate(reversed(loose))}
    return Choice(tuple(keep), tuple((i, slots.get(i, size.window - 1)) for i in keep))


video, click = sys.argv[1], sys.argv[2]
x, y = (float(part) for part in click.split(","))

engine = rtseg.open_engine("engines/nano-cpu.toml")
trackers = [rtseg.Tracker(engine, policy=name) for name in ("fifo", "every-fifth")]
with rtseg.open_source(video) as source:
    for frame in source:
        if frame.seq == 0:
            for tracker in trackers:
                tracker.prompt(1, points=[(x, y, 1)], label="grasper")
        one, other = (tracker.step(frame).mask(1) for tracker in trackers)
        iou = np.sum(one & other) / max(np.sum(one | other), 1)
        print(f"frame {frame.seq}: every-fifth agrees with fifo: IoU {iou:.2f}")
