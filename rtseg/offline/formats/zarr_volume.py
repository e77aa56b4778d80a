"""`zarr`: id maps in chunks, as a Zarr group (format 2, which every reader knows).

    labels    uint8 [T, H, W]: at each pixel the id of the object, 0 for none
    frames    int64 [T]: the numbers of the frames;  seconds  float64 [T]: their times

The attributes have the objects' ids, names and labels. A chunk has as many whole frames as make 16 MiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .id_maps import IdMaps
from .segmented_video import SegmentedVideo

CHUNK = 1 << 24  # bytes of a chunk, unpacked
TIMES = 1 << 16  # frames of a chunk of numbers and times


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write `labels.zarr`."""
    import zarr

    maps, size = IdMaps(video), (video.height, video.width)
    depth = min(video.count, max(1, CHUNK // (video.height * video.width)))
    group = zarr.open_group(str(folder / "labels.zarr"), mode="w", zarr_format=2)
    labels = group.create_array(
        "labels", shape=(video.count, *size), chunks=(depth, *size), dtype="uint8", fill_value=0
    )
    labels.attrs["_ARRAY_DIMENSIONS"] = ["frame", "y", "x"]  # for xarray
    at_once = min(video.count, TIMES)
    times = {
        name: group.create_array(name, shape=(video.count,), chunks=(at_once,), dtype=dtype, fill_value=0)
        for name, dtype in (("frames", "int64"), ("seconds", "float64"))
    }
    block = np.zeros((depth, *size), np.uint8)
    numbers: dict[str, list[float]] = {"frames": [], "seconds": []}
    for frame, id_map_hw in maps:
        block[frame.index % depth] = id_map_hw
        numbers["frames"].append(frame.seq)
        numbers["seconds"].append(frame.seconds)
        end = frame.index + 1
        if end % depth == 0 or end == video.count:
            first = frame.index // depth * depth
            labels[first:end] = block[: end - first]
        if end % at_once == 0 or end == video.count:
            _flush(times, numbers, end)
    group.attrs.update(_about(video, maps))
    return maps.lines()


def _flush(times: dict[str, Any], numbers: dict[str, list[float]], end: int) -> None:
    for name, values in numbers.items():
        times[name][end - len(values) : end] = np.array(values, times[name].dtype)
        times[name].attrs["_ARRAY_DIMENSIONS"] = ["frame"]
        values.clear()


def _about(video: SegmentedVideo, maps: IdMaps) -> dict[str, Any]:
    return {
        "source": video.source,
        "objects": [{"id": each.id, "name": each.name, "label": each.label} for each in video.objects],
        "frames_with_overlap": maps.hidden,
    }
