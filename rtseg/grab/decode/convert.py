"""From a decoded picture to a frame's image: deinterlaced, in the colours of an sRGB display, upright."""

from __future__ import annotations

import av
from av.video.reformatter import VideoReformatter

from ...base.account import Account
from ...base.errors import SourceError
from ...base.source import Mode, PermanentSourceError
from ...base.types import Color, ImageU8
from .color import UNSPECIFIED, color_of, is_grey, is_rgb, to_rgb
from .deinterlace import Deinterlacer
from .display_color import HDR, is_displayable
from .orientation import Orientation

MOST_NOTES = 4  # different notes of one kind in the account, for streams whose coding changes


class Converter:
    """Converts the pictures of one pass through a stream; it notes in `account` what it repairs and assumes."""

    def __init__(self, where: str, mode: Mode, account: Account, orientation: Orientation) -> None:
        self._where, self._account, self.orientation = where, account, orientation
        self._reformatter, self._whole = VideoReformatter(), Deinterlacer(mode)
        self._angle: int | None = None
        self._color: Color | None = None

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of the image of a picture."""
        if picture.rotation != self._angle:
            if self._angle is not None:  # a stream of photographs may change its orientation
                self.orientation = Orientation.from_picture(picture)
            self._angle = picture.rotation
            _add(self._account.repaired, "rotation", self.orientation.text)
        return self.orientation.size(picture)

    def __call__(self, picture: av.VideoFrame) -> tuple[ImageU8, Color]:
        """The image, full-range RGB uint8 [H, W, 3], and how it was coded; `SourceError` if it cannot be converted."""
        whole, color = self._whole_picture(picture)
        return self._image(whole, color), color

    def skip(self, picture: av.VideoFrame) -> None:
        """Take note of a picture without its image; later images depend on it where pictures are deinterlaced."""
        self._whole_picture(picture)

    def _whole_picture(self, picture: av.VideoFrame) -> tuple[av.VideoFrame, Color]:
        color = checked_color(self._where, picture)
        self.size(picture)
        if color != self._color:
            self._color = color
            _add(self._account.repaired, "colours", converted(color))
            _add(self._account.assumed, "colours", assumed(picture, color))
        whole = self._whole(picture)
        if whole is not picture:
            self._account.repaired["interlacing"] = "each picture deinterlaced from its newer field"
        elif picture.interlaced_frame:
            self._account.assumed["interlacing"] = "none, though marked as interlaced; --deinterlace auto removes it"
        return whole, color

    def _image(self, picture: av.VideoFrame, color: Color) -> ImageU8:
        return self.orientation.upright(to_rgb(picture, color, self._reformatter))


def checked_color(where: str, picture: av.VideoFrame) -> Color:
    """How a picture's colours are coded; `SourceError`, which names the source, if they cannot be converted."""
    try:
        return color_of(picture)
    except SourceError as e:
        raise PermanentSourceError(f"{where}: {e}") from e


def _add(notes: dict[str, str], name: str, text: str) -> None:
    """Add a note if it is new; a limit keeps the account small for streams that change all the time."""
    known = notes[name].split("; then ") if name in notes else []
    if text and text not in known and len(known) < MOST_NOTES:
        notes[name] = "; then ".join([*known, text])


def converted(color: Color) -> str:
    """How colours were converted, beyond matrix and range; "" if they were not."""
    if is_displayable(color):
        return ""
    primaries = color.primaries if color.primaries != "unknown" else "bt2020" if color.transfer in HDR else "bt709"
    what = f"{primaries} with {color.transfer if color.transfer != 'unknown' else 'bt709'}"
    return f"{what}, toned down to an ordinary display's" if color.transfer in HDR else f"{what}, shown as bt709"


def assumed(picture: av.VideoFrame, color: Color) -> str:
    """What was assumed of colours because the picture does not state it; "" for nothing."""
    found = []
    if not is_rgb(picture) and not is_grey(picture) and picture.colorspace in UNSPECIFIED:
        name = "BT.709" if color.matrix == "bt709" else "BT.601"
        found.append(f"matrix {name}, by its height, for the video states none")
    if color.transfer in HDR and color.primaries == "unknown":
        found.append("primaries bt2020, for HDR states none")
    return "; ".join(found)
