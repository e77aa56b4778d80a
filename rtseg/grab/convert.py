"""Decoded pictures made into a frame's image: whole, in an ordinary display's colours, the right way up."""

from __future__ import annotations

import av
from av.video.reformatter import VideoReformatter

from ..base.account import Account
from ..base.errors import SourceError
from ..base.source import HopelessError, Mode
from ..base.types import Color, ImageU8
from .color import UNSPECIFIED, color_of, is_grey, is_rgb, to_rgb
from .deinterlace import Deinterlacer
from .light import HDR, shown_as_it_is
from .turn import Turn

MOST_NOTES = 4  # ways of coding that are told apart in the account, should they change on the way


class Converter:
    """For one pass through the pictures of a stream; what it repairs and assumes goes into `account`."""

    def __init__(self, where: str, mode: Mode, account: Account, turn: Turn) -> None:
        self._where, self._account, self.turn = where, account, turn
        self._reformatter, self._whole = VideoReformatter(), Deinterlacer(mode)
        self._angle: int | None = None
        self._color: Color | None = None

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of the image that a picture becomes."""
        if picture.rotation != self._angle:
            if self._angle is not None:  # pictures that were taken one by one may each have their own
                self.turn = Turn.of(picture)
            self._angle = picture.rotation
            _add(self._account.repaired, "rotation", self.turn.text)
        return self.turn.size(picture)

    def __call__(self, picture: av.VideoFrame) -> tuple[ImageU8, Color]:
        """Full-range RGB, uint8 [H, W, 3], and how it was coded; `SourceError` where nothing can undo that."""
        color = checked_color(self._where, picture)
        self.size(picture)
        if color != self._color:
            self._color = color
            _add(self._account.repaired, "colours", converted(color))
            _add(self._account.assumed, "colours", assumed(picture, color))
        whole = self._whole(picture)
        if whole is not picture:
            self._account.repaired["interlacing"] = "each picture made whole of its newer field"
        elif picture.interlaced_frame:
            self._account.assumed["interlacing"] = "none, though marked as interlaced; --deinterlace auto removes it"
        return self._image(whole, color), color

    def _image(self, picture: av.VideoFrame, color: Color) -> ImageU8:
        return self.turn.upright(to_rgb(picture, color, self._reformatter))


def checked_color(where: str, picture: av.VideoFrame) -> Color:
    """How a picture is coded; the `SourceError` about what cannot be undone names the source."""
    try:
        return color_of(picture)
    except SourceError as e:
        raise HopelessError(f"{where}: {e}") from e


def _add(notes: dict[str, str], name: str, text: str) -> None:
    """Note what is new; what is read twice, or changes all the time, fills no account."""
    known = notes[name].split("; then ") if name in notes else []
    if text and text not in known and len(known) < MOST_NOTES:
        notes[name] = "; then ".join([*known, text])


def converted(color: Color) -> str:
    """What was done to the colours beyond their matrix and range, "" for nothing."""
    if shown_as_it_is(color):
        return ""
    primaries = color.primaries if color.primaries != "unknown" else "bt2020" if color.transfer in HDR else "bt709"
    what = f"{primaries} with {color.transfer if color.transfer != 'unknown' else 'bt709'}"
    return f"{what}, toned down to an ordinary display's" if color.transfer in HDR else f"{what}, shown as bt709"


def assumed(picture: av.VideoFrame, color: Color) -> str:
    """What the picture does not say of its colours and was taken for granted, "" for nothing."""
    found = []
    if not is_rgb(picture) and not is_grey(picture) and picture.colorspace in UNSPECIFIED:
        name = "BT.709" if color.matrix == "bt709" else "BT.601"
        found.append(f"matrix {name}, by its height, for the video names none")
    if color.transfer in HDR and color.primaries == "unknown":
        found.append("primaries bt2020, for HDR names none")
    return "; ".join(found)
