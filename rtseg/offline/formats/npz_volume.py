"""`npz`: id maps as NumPy files, `labels-000000.npz`, ..., named by their first frame.

    labels    uint8 [T, H, W]: at each pixel the id of the object, 0 for none
    frames    int64 [T]: the numbers of the frames;  seconds  float64 [T]: their times
    ids       uint8 [N], names [N]: the objects

A file has as many frames as make 256 MiB when unpacked, so that reading one takes no more memory than that. It is
written frame by frame.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ...base.types import ImageU8
from .id_maps import IdMaps
from .segmented_video import SegmentedFrame, SegmentedVideo

UNPACKED = 1 << 28  # bytes of the maps in a file


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the files."""
    maps = IdMaps(video)
    at_once = max(1, UNPACKED // (video.height * video.width))
    frames = iter(maps)
    done = 0
    for first in frames:
        count = min(at_once, video.count - done)
        _write(video, folder / f"labels-{done:06d}.npz", count, chain((first,), islice(frames, count - 1)))
        done += count
    return maps.lines()


def _write(video: SegmentedVideo, path: Path, count: int, frames: Iterator[tuple[SegmentedFrame, ImageU8]]) -> None:
    seqs, seconds = [], []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("labels.npy", "w", force_zip64=True) as file:
            shape = count, video.height, video.width
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for frame, id_map_hw in frames:
                file.write(np.ascontiguousarray(id_map_hw).data)
                seqs.append(frame.seq)
                seconds.append(frame.seconds)
        others: dict[str, Any] = {
            "frames": np.array(seqs, np.int64),
            "seconds": np.array(seconds, np.float64),
            "ids": np.array([each.id for each in video.objects], np.uint8),
            "names": np.array([each.name for each in video.objects], np.str_),
        }
        for name, values in others.items():
            with archive.open(f"{name}.npy", "w") as file:
                npy.write_array(file, values, allow_pickle=False)
