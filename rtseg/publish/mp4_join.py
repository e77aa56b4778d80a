"""Joins parts of one video, each an MP4 of its own, without encoding again: every picture stays as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from ..base.files import commit, discard, part_of, unwritable
from .mp4_writer import FAILURES, TICK, OutputFile

Part = tuple[Path, int]  # the file, and when its first picture is shown: in ticks from the start of the whole


def join_mp4(parts: Sequence[Part], out: Path, rate: Fraction) -> None:
    """Write the parts, in order, as one MP4. `rate`: of the whole; the last picture is shown for one frame of it.

    Raises `OutputError`, and leaves no file, if that fails.
    """
    if len(parts) == 1 and parts[0][1] == 0:
        with suppress(OSError):  # a file system without links
            discard(out)
            os.link(parts[0][0], out)
            return
    place = part_of(out)
    try:
        _write(parts, place, rate)
        commit(place, out)
    except FAILURES as e:
        raise unwritable(out, e) from e
    finally:
        discard(place)


def _write(parts: Sequence[Part], place: Path, rate: Fraction) -> None:
    file = OutputFile(place)
    try:
        container = av.open(file, "w", format="mp4")
        with av.open(str(parts[0][0])) as first:
            stream = container.add_stream_from_template(first.streams.video[0])
        assert isinstance(stream, VideoStream)
        stream.time_base = TICK
        before: av.Packet[VideoStream] | None = None
        for packet in _packets(parts):
            if before is not None:
                before.duration = max(1, (packet.pts or 0) - (before.pts or 0))
                before.stream = stream
                container.mux(before)
            before = packet
        if before is not None:
            before.duration, before.stream = max(1, round(1 / rate / TICK)), stream
            container.mux(before)
        container.close()
    finally:
        file.close()


def _packets(parts: Sequence[Part]) -> Iterator[av.Packet[VideoStream]]:
    for path, start in parts:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is None or packet.dts is None or packet.time_base is None:
                    continue  # the empty packet at the end
                ticks = round(packet.pts * packet.time_base / TICK)
                packet.time_base = TICK
                packet.pts = packet.dts = start + ticks  # these videos have no B-frames
                yield packet
