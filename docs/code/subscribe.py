"""A subscriber without rtseg: pip install pyzmq msgpack pycocotools. Prints the newest masks, one JSON line each.

Usage: python subscribe.py [ADDRESS] [MESSAGES]
"""

import json
import sys

import msgpack
import zmq
from pycocotools import mask as coco

address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 0  # 0: until Ctrl-C

socket = zmq.Context.instance().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 2)  # bounds memory; a high-water mark keeps the oldest messages
socket.setsockopt(zmq.SUBSCRIBE, b"")  # every topic; b"demo/masks" for one
socket.connect(address)

shown = 0
while not wanted or shown < wanted:
    newest = {}
    parts = socket.recv_multipart()
    while parts:  # drain what has come meanwhile, and keep the newest message of each topic
        newest[parts[0]] = parts
        try:
            parts = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            parts = None
    for topic, packed, *payload in newest.values():
        header = msgpack.unpackb(packed)
        line = {"topic": topic.decode(), "seq": header["seq"], "state": header["state"]}
        if topic.endswith(b"/masks"):
            size = [header["height"], header["width"]]
            masks = [coco.decode({"size": size, "counts": rle}) for rle in payload]  # uint8 [H, W], 0 or 1
            line["objects"] = [
                {"id": about["id"], "label": about["label"], "area": int(mask.sum())}
                for about, mask in zip(header["objects"], masks, strict=True)
            ]
            line["mask_age_ms"] = header["mask_age_ms"]
        elif topic.endswith(b"/status"):
            line["masks"] = msgpack.unpackb(payload[0]).get("state")
        print(json.dumps(line), flush=True)
        shown += 1
