"""Track an instrument through a video: one click on the first frame, an id map (PNG) of every frame.

python examples/track_file.py clip.mp4 640,60 out/ids
"""

import sys
from pathlib import Path

import cv2

import rtseg

video, click, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
x, y = (float(part) for part in click.split(","))
out.mkdir(parents=True, exist_ok=True)

engine = rtseg.open_engine("engines/nano-cpu.toml")
tracker = rtseg.Tracker(engine)
with rtseg.open_source(video) as source:
    for frame in source:
        if frame.seq == 0:
            tracker.prompt(1, points=[(x, y, 1)], label="grasper")  # 1: on the object; 0: not on it
        masks = tracker.step(frame)
        cv2.imwrite(str(out / f"{frame.seq:05d}.png"), masks.id_map())  # the object's id at each pixel, else 0
        print(f"frame {frame.seq}: {masks.mask(1).sum()} pixels, visible with probability {masks.score(1):.2f}")
