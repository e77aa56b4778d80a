"""A decoded picture as full-range RGB: how it is coded, and what undoes that."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ..base.errors import SourceError
from ..base.types import Color, ImageU8
from .light import PRIMARIES, TRANSFERS, ImageU16, light_of, shown_as_it_is

# FFmpeg's numbers (ITU-T H.273) and names, and the swscale matrix that undoes each.
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
UNSPECIFIED = (0, 2, 3)  # with the two reserved numbers, which say no more
# What a person may have heard of among those that are refused.
_KNOWN = {"matrix": {8: "YCgCo", 10: "BT.2020 with constant luminance", 12: "chromaticity-derived", 14: "ICtCp",
                     15: "IPT of Dolby Vision", 16: "YCgCo-Re", 17: "YCgCo-Ro"},
          "transfer": {12: "BT.1361 extended gamut"}, "primaries": {}}  # fmt: skip
HD_HEIGHT = 720  # from here on an unmarked video is taken as BT.709, below as BT.601
# Without these two, swscale is off by up to 3 of 255 and repeats chroma instead of interpolating it.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
EXPAND = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def format_of(picture: av.VideoFrame) -> av.VideoFormat:
    """How the picture's pixels are stored, also of one that lies on a GPU."""
    return getattr(picture, "sw_format", None) or picture.format


def is_rgb(picture: av.VideoFrame) -> bool:
    """Whether the picture is coded as RGB, or as what swscale makes RGB of by itself."""
    stored = format_of(picture)
    return stored.is_rgb or stored.name.startswith(("pal", "xyz"))


def is_grey(picture: av.VideoFrame) -> bool:
    """Whether it has no colours, with or without an alpha channel."""
    return len(format_of(picture).components) <= 2 and not is_rgb(picture)


def color_of(picture: av.VideoFrame) -> Color:
    """How a decoded picture is coded, where unmarked by default: BT.709 or 601 by height; limited, but grey full.

    `SourceError` where nothing here can undo it.
    """
    # yuvj420p and its kin are full-range by definition, whatever else the stream says.
    full = picture.format.name.startswith("yuvj") or picture.color_range == FULL
    if picture.format.name.startswith("xyz"):  # swscale brings it to sRGB
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
    """Full-range RGB as an ordinary display shows it, uint8 [H, W, 3], of a picture coded as `color` says."""
    deep = not shown_as_it_is(color)
    # swscale writes planes twice as fast as it writes pixels, and OpenCV makes pixels of them in a tenth of the time.
    planar = deep or not (is_rgb(picture) or color.matrix == "rgb")
    limited, not_yuv = color.range == "limited", is_grey(picture) or is_rgb(picture)
    matrix = SWSCALE.get(color.matrix, Colorspace.ITU709)
    rgb = reformatter.reformat(
        picture, format="gbrp16le" if deep else "gbrp" if planar else "rgb24", interpolation=SCALING, threads=1,
        src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=LIMITED if limited else FULL, dst_color_range=FULL,
    )  # fmt: skip
    if deep:
        return light_of(color.primaries, color.transfer, *_span(picture, limited, not_yuv))(_merged_deep(rgb))
    image_hwc = _merged(rgb) if planar else np.asarray(rgb.to_ndarray(), np.uint8)
    # swscale takes every grey and every RGB as full-range, whatever it is told.
    return EXPAND[image_hwc] if limited and not_yuv else image_hwc


def _span(picture: av.VideoFrame, limited: bool, not_yuv: bool) -> tuple[int, int]:
    """Black and white among swscale's 16 bits: it shifts what it has, and of limited YUV makes a little less."""
    if limited:
        return (16 << 8, 235 << 8) if not_yuv else (0, 65283)
    bits = min(16, picture.format.components[0].bits)
    return 0, (2**bits - 1) << (16 - bits)


def _merged(planes: av.VideoFrame) -> ImageU8:
    """A picture in planes (green, blue, red) as pixels, uint8 RGB [H, W, 3]."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint8)


def _merged_deep(planes: av.VideoFrame) -> ImageU16:
    """The same of 16 bits."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), "<u2").reshape(plane.height, plane.line_size // 2)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint16)
