"""Frames in: a live input, a video file, a folder of images or a synthetic scene, each opened as a `Source`.

    opening.py       `open_source`: what a uri, a path or a list of files opens
    video_file.py    frames of recordings, with video_reader.py: one pass through one file
    live_stream.py   frames of one connection to a live input; address.py: the grammar of its uri
    image_source.py  frames of image files; image_order.py: which files of a folder are frames, and their order
    random_access.py any frame of a recording by its number, by an index of its packets (packet_index.py)
    capture.py       what a feed reads from: reconnects, measures its health (health.py), crops (crop.py)
    demux/           bytes -> packets with timestamps, and the damage that their container shows
    decode/          packets -> whole pictures -> RGB images

Drawn sources (`synthetic:`, `coded:`) are in `rtseg.synthetic`.
"""

from __future__ import annotations

from ..base.source import Source
from .opening import open_source
from .pace import paced

__all__ = ["Source", "open_source", "paced"]
