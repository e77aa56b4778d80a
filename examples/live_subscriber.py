"""Show a live feed in your own display: the newest overlay, its state, and the age of its masks.

rtseg live streams/demo.toml                                         # in one terminal
python examples/live_subscriber.py tcp://127.0.0.1:5555 out/live     # in another; Ctrl-C ends it
"""

import sys
from pathlib import Path

import cv2

from rtseg import Subscriber

address, out = sys.argv[1], Path(sys.argv[2])
pictures = int(sys.argv[3]) if len(sys.argv) > 3 else 0  # 0: until the feed ends
out.mkdir(parents=True, exist_ok=True)

shown = 0
with Subscriber(address, ["overlay", "status"]) as feed:
    while not pictures or shown < pictures:
        message = feed.get(timeout=5)  # the newest that was not given out yet
        if message is None:
            sys.exit(f"nothing from {address} for 5 s: {feed.refused or 'is a feed running there?'}")
        if message.kind == "status":
            if message.header["state"] == "ended":
                break
            continue
        header = message.header
        image_hwc = message.image_hwc()  # uint8 RGB, a copy to draw on
        cv2.imwrite(str(out / f"{message.seq:08d}.jpg"), image_hwc[..., ::-1])
        age = "no masks" if header["mask_age_ms"] is None else f"masks {header['mask_age_ms']:.0f} ms old"
        print(f"frame {message.seq}: {header['state']}, {age}, {len(header['objects'])} objects")
        shown += 1
print(f"{shown} pictures shown, {feed.skipped['overlay']} skipped because a newer one was there")
