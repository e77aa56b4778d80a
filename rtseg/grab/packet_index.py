"""Where each frame of a video file is: the timestamps of its pictures, and its key frames, from its packets alone."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ..base.errors import SourceError
from .decode.bitstream import is_fresh_start, length_size
from .demux.demuxer import Demuxer

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PacketIndex:
    """The frames of a file in display order, from the first key frame on.

    `pts`: the timestamp of each, in units of `time_base`. `keys`: the numbers of those at which decoding can start.
    `seek_to`: by key frame, the timestamp to seek to. `session`: a random name. `clean`: each key frame begins
    afresh; else H.264 pictures after one may refer to references from before it, which are missing after a seek.
    """

    pts: Int64
    keys: Int64
    seek_to: dict[int, int]
    time_base: Fraction
    session: str
    clean: bool

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.pts)

    def key_before(self, number: int) -> int:
        """The last key frame at or before a frame."""
        return int(self.keys[max(0, int(np.searchsorted(self.keys, number, side="right")) - 1)])

    def number_of(self, pts: int) -> int | None:
        """The frame with this timestamp; None if there is none."""
        place = int(np.searchsorted(self.pts, pts))
        return place if place < len(self.pts) and self.pts[place] == pts else None


def read_index(demuxer: Demuxer) -> PacketIndex:
    """Read all packets of a file, without decoding them. Raises `SourceError` if its frames cannot be told by time."""
    name = str(demuxer.part.path if demuxer.part else "")
    found: list[int] = []
    keys: dict[int, int] = {}
    codec, clean = demuxer.stream.codec_context, True
    size = length_size(codec.name, codec.extradata)
    by_pts = bool(demuxer.format & {"mov", "matroska"})  # other demuxers seek by decoding timestamps
    for packet in demuxer.container.demux(demuxer.stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            raise SourceError(f"{name}: a packet has no timestamp; put it into MKV: ffmpeg -i {name} -c copy new.mkv")
        if packet.is_keyframe:
            dts = packet.pts if packet.dts is None or by_pts else packet.dts
            keys.setdefault(packet.pts, dts)
            clean = clean and is_fresh_start(codec.name, bytes(packet), size)
        if keys:
            found.append(packet.pts)
    if not keys:
        raise SourceError(f"{name}: marks no key frame; encode it again, with one each second")
    pts = np.unique(np.array(found, np.int64))
    pts = pts[pts >= min(keys)]  # pictures before the first key frame cannot be decoded
    if len(pts) < sum(value >= pts[0] for value in found):
        raise SourceError(f"{name}: two frames have one timestamp; encode it again")
    numbers = {int(np.searchsorted(pts, value)): seek for value, seek in keys.items()}
    return PacketIndex(
        pts, np.array(sorted(numbers), np.int64), numbers,
        Fraction(demuxer.stream.time_base or Fraction(1, 1000)), secrets.token_hex(6), clean,
    )  # fmt: skip
