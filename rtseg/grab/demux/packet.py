"""A packet of video, and what its container shows before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import av

Packet: TypeAlias = "av.Packet[av.VideoStream]"


class PacketNumber(int):
    """A packet's number, for `packet.opaque`: each is an object of its own, because PyAV keeps such objects by `id`.

    Small ints are shared by the whole process: if one decoder freed its 6, every other decoder would lose its 6.
    """


@dataclass(slots=True)
class PacketInfo:
    """A packet and what is known of it.

    `damage`: why its data is damaged ("": it is not known to be). `gap`: why data is missing before it, and
    `missing_pictures`: how many pictures that is, by the timestamps. `restarts`: its timestamps begin anew, as at the
    joint of two recordings. `maybe_truncated`: data may be missing at its end. `checksum_failed`: the checksum of a
    larger piece of the file fails, of which it is a part.
    """

    packet: Packet
    damage: str = ""
    gap: str = ""
    restarts: bool = False
    maybe_truncated: bool = False
    missing_pictures: int = 0
    checksum_failed: bool = False
