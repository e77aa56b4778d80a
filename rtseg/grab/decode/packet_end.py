"""Whether a packet without a stated length is complete: then the bytes after it do not change the picture."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np

from ..demux.packet import Packet, PacketNumber

TAILS = (b"\x00" * 16, b"\xff" * 16, b"\x55" * 16)


def is_packet_complete(stream: av.VideoStream, group: Sequence[Packet]) -> bool:
    """Whether the last packet of `group`, which starts with a key frame, holds a whole picture.

    The packet is decoded with different bytes appended: if the decoder reads into them, the pictures differ.
    """
    pictures = [_last_picture(stream, group, tail) for tail in TAILS]
    return pictures[0] is not None and all(
        other is not None and np.array_equal(pictures[0], other) for other in pictures[1:]
    )


def _last_picture(
    stream: av.VideoStream, group: Sequence[Packet], tail: bytes
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    decoder = av.CodecContext.create(stream.codec_context.name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    decoder.options = {"err_detect": "explode"}
    decoder.copy_opaque = True
    try:
        pictures: list[av.VideoFrame] = []
        for number, packet in enumerate(group):
            data = bytes(packet) + (tail if number == len(group) - 1 else b"")
            copy = av.Packet(data)
            copy.opaque = PacketNumber(number)
            pictures = [p for p in (*pictures, *decoder.decode(copy)) if p.opaque == len(group) - 1]
        pictures += [p for p in decoder.decode(None) if p.opaque == len(group) - 1]
    except av.FFmpegError:
        return None
    return np.frombuffer(b"".join(bytes(plane) for plane in pictures[-1].planes), np.uint8) if pictures else None
