"""A decoded picture as full-range RGB: how it is coded, and what undoes that."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ..errors import SourceError
from ..types import Color, ImageU8

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
RGB, UNSPECIFIED, LIMITED, FULL = 0, 2, 1, 2
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear",
             11: "iec61966-2-4", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
             18: "arib-std-b67"}  # fmt: skip
HD_HEIGHT = 720  # from here on an unmarked video is taken as BT.709, below as BT.601
# Without these two, swscale is off by up to 3 of 255 and repeats chroma instead of interpolating it.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
EXPAND = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def color_of(picture: av.VideoFrame) -> Color:
    """How a decoded picture is coded, where unmarked by default: BT.709 or 601 by height; limited, but grey full."""
    name, components = picture.format.name, picture.format.components
    # yuvj420p and its kin are full-range by definition, whatever else the stream says.
    full = name.startswith("yuvj") or picture.color_range == FULL
    primaries = PRIMARIES.get(picture.color_primaries, "unknown")
    transfer = TRANSFERS.get(picture.color_trc, "unknown")
    if picture.format.is_rgb or name.startswith("pal"):
        return Color("rgb", "full", primaries, transfer)
    if len(components) == 1:
        full = picture.color_range != LIMITED
    number = picture.colorspace
    if number in (RGB, UNSPECIFIED):
        number = 1 if picture.height >= HD_HEIGHT else 6
    if number not in MATRICES:
        raise SourceError(f"colour matrix {number} (ITU-T H.273) is not supported; convert the video to BT.709")
    return Color(MATRICES[number], "full" if full else "limited", primaries, transfer)


def to_rgb(picture: av.VideoFrame, color: Color, reformatter: VideoReformatter) -> ImageU8:
    """Full-range RGB, uint8 [H, W, 3], of a picture coded as `color` says."""
    limited = color.range == "limited"
    matrix = SWSCALE.get(color.matrix, Colorspace.ITU709)
    # swscale writes planes twice as fast as it writes pixels, and OpenCV makes pixels of them in a tenth of the time.
    planar = not picture.format.is_rgb and color.matrix != "rgb"
    rgb = reformatter.reformat(
        picture, format="gbrp" if planar else "rgb24", interpolation=SCALING, threads=1,
        src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=LIMITED if limited else FULL, dst_color_range=FULL,
    )  # fmt: skip
    image_hwc = _merged(rgb) if planar else np.asarray(rgb.to_ndarray(), np.uint8)
    # swscale takes every grey as full-range, whatever it is told.
    return EXPAND[image_hwc] if limited and len(picture.format.components) == 1 else image_hwc


def _merged(planes: av.VideoFrame) -> ImageU8:
    """A picture in planes (green, blue, red) as pixels, uint8 RGB [H, W, 3]."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint8)
