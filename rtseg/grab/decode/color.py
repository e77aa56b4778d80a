"""From a decoded picture to full-range RGB: how its colours are coded, and the conversion."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ...base.errors import SourceError
from ...base.types import Color, ImageU8
from .display_color import PRIMARIES, TRANSFERS, ImageU16, display_transform, is_displayable

# FFmpeg's numbers (ITU-T H.273) and names of matrices, and the swscale matrix that converts each.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
SWSCALE = {
    "bt709": Colorspace.ITU709,
    "fcc": Colorspace.FCC,
    "bt470bg": Colorspace.ITU601,
    "smpte170m": Colorspace.ITU601,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020nc": Colorspace.BT2020,
}
RGB, LIMITED, FULL = 0, 1, 2
UNSPECIFIED = (0, 2, 3)  # with the two reserved numbers
# Common names of matrices and transfer functions that are refused.
_KNOWN = {"matrix": {8: "YCgCo", 10: "BT.2020 with constant luminance", 12: "chromaticity-derived", 14: "ICtCp",
                     15: "IPT of Dolby Vision", 16: "YCgCo-Re", 17: "YCgCo-Ro"},
          "transfer": {12: "BT.1361 extended gamut"}, "primaries": {}}  # fmt: skip
HD_HEIGHT = 720  # rows from which a video that states no matrix is taken as BT.709; below, as BT.601
# Without the last two, swscale is wrong by up to 3 of 255, and repeats chroma instead of interpolating it.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
EXPAND = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def format_of(picture: av.VideoFrame) -> av.VideoFormat:
    """The pixel format of a picture, also of one on a GPU."""
    return getattr(picture, "sw_format", None) or picture.format


def is_rgb(picture: av.VideoFrame) -> bool:
    """Whether the picture is coded as RGB, or as a format that swscale itself converts to RGB."""
    stored = format_of(picture)
    return stored.is_rgb or stored.name.startswith(("pal", "xyz"))


def is_grey(picture: av.VideoFrame) -> bool:
    """Whether the picture is greyscale, with or without an alpha channel."""
    return len(format_of(picture).components) <= 2 and not is_rgb(picture)


def color_of(picture: av.VideoFrame) -> Color:
    """How the colours of a decoded picture are coded; `SourceError` if they cannot be converted.

    Defaults, if nothing is stated: BT.709 or BT.601 by the height; limited range, but full range for grey.
    """
    # yuvj420p and similar formats are full-range by definition, whatever else the stream says.
    full = picture.format.name.startswith("yuvj") or picture.color_range == FULL
    if picture.format.name.startswith("xyz"):  # swscale converts it to sRGB
        return Color()
    primaries = _named("primaries", picture.color_primaries, PRIMARIES)
    transfer = _named("transfer", picture.color_trc, TRANSFERS)
    if is_rgb(picture) or is_grey(picture):
        full = picture.color_range != LIMITED
    if is_rgb(picture):
        return Color("rgb", "full" if full else "limited", primaries, transfer)
    number = picture.colorspace
    if number in UNSPECIFIED or is_grey(picture):
        number = 1 if picture.height >= HD_HEIGHT else 6
    return Color(_named("matrix", number, MATRICES), "full" if full else "limited", primaries, transfer)


def _named(what: str, number: int, known: dict[int, str]) -> str:
    if number in known:
        return known[number]
    if number in UNSPECIFIED:
        return "unknown"
    name = _KNOWN[what].get(number)
    raise SourceError(
        f"colour {what} {number} (ITU-T H.273{', ' + name if name else ''}) is not supported; "
        "convert the video to BT.709"
    )


def to_rgb(picture: av.VideoFrame, color: Color, reformatter: VideoReformatter) -> ImageU8:
    """A picture coded as `color` says, as full-range RGB for an sRGB display, uint8 [H, W, 3]."""
    sixteen_bits = not is_displayable(color)
    # swscale writes planes twice as fast as interleaved pixels, and OpenCV interleaves them in a tenth of that time.
    planar = sixteen_bits or not (is_rgb(picture) or color.matrix == "rgb")
    limited, not_yuv = color.range == "limited", is_grey(picture) or is_rgb(picture)
    matrix = SWSCALE.get(color.matrix, Colorspace.ITU709)
    rgb = reformatter.reformat(
        picture, format="gbrp16le" if sixteen_bits else "gbrp" if planar else "rgb24", interpolation=SCALING, threads=1,
        src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=LIMITED if limited else FULL, dst_color_range=FULL,
    )  # fmt: skip
    if sixteen_bits:
        return display_transform(color.primaries, color.transfer, *_black_and_white(picture, limited, not_yuv))(
            _interleaved_16(rgb)
        )
    image_hwc = _interleaved(rgb) if planar else np.asarray(rgb.to_ndarray(), np.uint8)
    # swscale treats all grey and all RGB as full-range, whatever the arguments say.
    return EXPAND[image_hwc] if limited and not_yuv else image_hwc


def _black_and_white(picture: av.VideoFrame, limited: bool, not_yuv: bool) -> tuple[int, int]:
    """The codes of black and white in swscale's 16 bits: it shifts values, and scales limited YUV to slightly less."""
    if limited:
        return (16 << 8, 235 << 8) if not_yuv else (0, 65283)
    bits = min(16, picture.format.components[0].bits)
    return 0, (2**bits - 1) << (16 - bits)


def _interleaved(planes: av.VideoFrame) -> ImageU8:
    """Interleave the planes green, blue, red to uint8 RGB [H, W, 3]."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint8)


def _interleaved_16(planes: av.VideoFrame) -> ImageU16:
    """Interleave the planes green, blue, red to uint16 RGB [H, W, 3]."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), "<u2").reshape(plane.height, plane.line_size // 2)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint16)
