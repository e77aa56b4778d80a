"""Click by code: start tracking what is at (x, y) on the frame that the user saw, and save what the network made of it.

rtseg live streams/demo.toml                                                       # in one terminal
python examples/click.py tcp://127.0.0.1:5555 tcp://127.0.0.1:5556 3 412,260       # in another
"""

import sys
from pathlib import Path

from rtseg import Client, RtsegError, Subscriber

video, control, object_id, click = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
x, y = (float(part) for part in click.split(","))

try:
    with Subscriber(video, ["video", "masks"]) as feed, Client(control) as client:
        seen = feed.get("video", timeout=10)
        if seen is None:
            sys.exit(f"nothing from {video} within 10 s; is a feed running there?")
        # `seq` is the frame that was clicked on: the feed applies the click there, and catches up to now.
        client.add(object_id, points=[(x, y, 1)], label="clicked", seq=seen.seq)
        while (message := feed.get("masks", timeout=10)) is not None:
            found = [thing for thing in message.header["objects"] if thing["id"] == object_id]
            if found:
                break
        else:
            sys.exit(f"no mask of object {object_id} within 10 s")
        snapshot = client.snapshot()
        Path("snapshot.png").write_bytes(snapshot.png)
        areas = {i: int(mask.sum()) for i, mask in snapshot.masks().items()}
        print(f"clicked on frame {seen.seq}; masks of frame {snapshot.mask_seq}, pixels by object: {areas}")
except RtsegError as error:  # one line: what was wrong, and what to do
    sys.exit(str(error))
