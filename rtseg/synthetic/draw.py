"""Renders one picture at a time in OpenCV, fast on one core. batch.py renders the same in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ..base.types import Float32, ImageU8
from .raster import (
    BLOOD_EDGE,
    BLOOD_MOST,
    GAIN_1,
    GRAIN,
    LIGHT_1,
    blur_kernel,
    blur_size,
    cell_of,
    drop_profile,
    field_at_cells,
    grain,
    pixel_place,
    shadow_kernels,
    surround_alpha,
    unit_of,
)
from .view import Channel, Drop, Glint, Picture, Sprite, View

_T = TypeVar("_T", np.uint8, np.float32)

ASPECT = 3  # a texture with a larger aspect is drawn in pieces, because the box of a diagonal shaft is mostly empty


@dataclass(frozen=True)
class _Pixels:
    """The size of the picture, and the values that follow from it."""

    width: int
    height: int

    @property
    def unit(self) -> float:
        return unit_of(self.width, self.height)

    @property
    def cell(self) -> int:
        return cell_of(self.width, self.height)

    def enlarge(self, coarse_hwc: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Interpolate linearly from cells (with a margin of one) to pixels."""
        cell, (rows, columns) = self.cell, coarse_hwc.shape[:2]
        fine_hwc = np.asarray(cv2.resize(coarse_hwc, (columns * cell, rows * cell)), coarse_hwc.dtype)
        return fine_hwc[cell : cell + self.height, cell : cell + self.width]


def render_cv2(view: View, width: int, height: int) -> Picture:
    """Render a view at a size in pixels."""
    pixels = _Pixels(width, height)
    picture = _seen(view, pixels)
    if view.later is not None:
        later = _seen(view.later, pixels)
        for ours, theirs in zip(_planes(picture), _planes(later), strict=True):
            ours[1::2] = theirs[1::2]
    quality = view.sensor.quality
    if quality is None:
        return picture
    return Picture(_compressed(picture.image_hwc, quality), picture.ids_hw, picture.parts_hw)


def _planes(picture: Picture) -> tuple[ImageU8, ImageU8, ImageU8]:
    return picture.image_hwc, picture.ids_hw, picture.parts_hw


def _seen(view: View, pixels: _Pixels) -> Picture:
    """Render a view without interlacing and compression."""
    field_hwc = field_at_cells(view, pixels.width, pixels.height)
    tools_hwc, which_hw = _tools(view, pixels, field_hwc)
    codes = np.zeros((2, 256), np.uint8)
    for index, sprite in enumerate(view.sprites):
        codes[:, index + 1] = sprite.id, sprite.part
    ids_hw, parts_hw = (np.asarray(cv2.LUT(which_hw, table), np.uint8) for table in codes)
    for glint in view.glints:
        _shine_on(tools_hwc, ids_hw, glint, pixels)
    image_hwc = _tissue(view, pixels, field_hwc, ids_hw)
    cv2.copyTo(tools_hwc, ids_hw, image_hwc)
    image_hwc = _through_lens(view, pixels, field_hwc, image_hwc)
    image_hwc = _sensed(view, pixels, image_hwc)
    if view.surround is not None:
        alpha_hw = surround_alpha(view.surround, pixels.width, pixels.height)
        cv2.multiply(image_hwc, cv2.cvtColor(alpha_hw, cv2.COLOR_GRAY2RGB), image_hwc, scale=1 / 255)
        _, inside_hw = cv2.threshold(alpha_hw, 127, 255, cv2.THRESH_BINARY)
        for plane_hw in (ids_hw, parts_hw):
            cv2.bitwise_and(plane_hw, inside_hw, plane_hw)
    return Picture(image_hwc, ids_hw, parts_hw)


def _tools(view: View, pixels: _Pixels, field_hwc: Float32) -> tuple[ImageU8, ImageU8]:
    """The instruments in the lamp's light, uint8 [H, W, 3], and at each pixel 1 + the index of the uppermost sprite."""
    tools_hwc = np.zeros((pixels.height, pixels.width, 3), np.uint8)
    which_hw = np.zeros((pixels.height, pixels.width), np.uint8)
    light_hwc = pixels.enlarge(_light(view, field_hwc))
    for index, sprite in enumerate(view.sprites):
        texture_hwc = view.textures.pieces[sprite.texture]
        place = pixel_place(sprite, pixels.width, pixels.height)
        h, w = texture_hwc.shape[:2]
        step = max(ASPECT * h, 64)
        for start in range(0, w, step):
            part_hwc = texture_hwc[
                :, max(start - 1, 0) : start + step + 1
            ]  # pieces share a column, so that there is no seam
            moved = place.copy()
            moved[:, 2] += place[:, 0] * max(start - 1, 0)
            _stamp(part_hwc, moved, index + 1, sprite, tools_hwc, which_hw, light_hwc)
    return tools_hwc, which_hw


def _stamp(
    texture_hwc: ImageU8,
    place: np.ndarray,
    label: int,
    sprite: Sprite,
    tools_hwc: ImageU8,
    which_hw: ImageU8,
    light_hwc: ImageU8,
) -> None:
    """Draw a piece of a sprite over the picture, in place."""
    h, w = texture_hwc.shape[:2]
    corners = place @ np.array([[-1, w, w, -1], [-1, -1, h, h], [1, 1, 1, 1]], np.float64)
    x0, y0 = np.maximum(np.floor(corners.min(1)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(1)) + 1, which_hw.shape[::-1]).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    place[:, 2] -= (x0, y0)
    seen_hwc = cv2.warpAffine(texture_hwc, place, (int(x1 - x0), int(y1 - y0)))
    window = np.s_[y0:y1, x0:x1]
    _, mask_hw = cv2.threshold(cv2.extractChannel(seen_hwc, 3), 127, 1, cv2.THRESH_BINARY)
    np.copyto(which_hw[window], label, where=mask_hw.view(np.bool_))
    if sprite.id:
        colour_hwc = cv2.cvtColor(seen_hwc, cv2.COLOR_RGBA2RGB)
        lit_hwc = cv2.multiply(colour_hwc, light_hwc[window], scale=sprite.gain / LIGHT_1)
        cv2.copyTo(lit_hwc, mask_hw, tools_hwc[window])


def _light(view: View, field_hwc: Float32, shade_hw: Float32 | float = 0.0) -> ImageU8:
    """The lamp's light at the cells, dimmed by shadow, uint8 [gh, gw, 3], where LIGHT_1 is a light of 1."""
    light_hw = field_hwc[..., Channel.LIGHT] * (1 - shade_hw)
    lit_hwc = light_hw[..., None] * np.float32(LIGHT_1) * np.array(view.tint_rgb, np.float32)
    return np.asarray(np.clip(lit_hwc, 0, 255), np.uint8)


def _shade(view: View, pixels: _Pixels, field_hwc: Float32, ids_hw: ImageU8) -> Float32 | float:
    """Darkness of the instruments' shadow at the cells, float32 [gh, gw]."""
    if not view.shadow.strength:
        return 0.0
    rows, columns = field_hwc.shape[0] - 2, field_hwc.shape[1] - 2
    tools_hw = np.zeros((rows * pixels.cell, columns * pixels.cell), np.uint8)
    cv2.threshold(ids_hw, 0, 255, cv2.THRESH_BINARY, tools_hw[: pixels.height, : pixels.width])
    cells_hw = cv2.resize(tools_hw, (columns, rows), interpolation=cv2.INTER_AREA)
    cells_hw = cv2.copyMakeBorder(cells_hw, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across, down = shadow_kernels(view.shadow, pixels.unit, pixels.cell)
    soft_hw = cv2.sepFilter2D(cells_hw, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft_hw * np.float32(view.shadow.strength / 255), np.float32)


def _tissue(view: View, pixels: _Pixels, field_hwc: Float32, ids_hw: ImageU8) -> ImageU8:
    """Tissue and blood in the lamp's light and the instruments' shadow, with specular highlights; uint8 [H, W, 3]."""
    where_hwc = pixels.enlarge(np.ascontiguousarray(field_hwc[..., : Channel.V + 1]))
    # None, because the map is one array. (An empty array, as OpenCV's stub asks, would read garbage.)
    seen_hwc = cv2.remap(  # type: ignore[call-overload]
        view.textures.tissue_hwc, where_hwc, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    gloss_hw = cv2.extractChannel(seen_hwc, 3)
    image_hwc = np.asarray(cv2.cvtColor(seen_hwc, cv2.COLOR_RGBA2RGB), np.uint8)
    if field_hwc[..., Channel.BLOOD].max() > 0:
        depth_hw = pixels.enlarge(np.ascontiguousarray(field_hwc[..., Channel.BLOOD])) * np.float32(BLOOD_EDGE)
        cover_hw = np.clip(depth_hw, 0, BLOOD_MOST) * np.float32(1 / 255)
        blood_hwc = np.full_like(image_hwc, np.array(view.blood_rgb, np.uint8))
        image_hwc = _mixed(blood_hwc, image_hwc, cover_hw)
        gloss_hw = cv2.add(gloss_hw, cv2.convertScaleAbs(cover_hw, alpha=40))
    light_hwc = pixels.enlarge(_light(view, field_hwc, _shade(view, pixels, field_hwc, ids_hw)))
    cv2.multiply(image_hwc, light_hwc, image_hwc, scale=1 / LIGHT_1)
    lamp_hw = np.clip(field_hwc[..., Channel.SPARKLE], 0, 255).astype(np.uint8)
    shine_hw = cv2.addWeighted(gloss_hw, 4, pixels.enlarge(lamp_hw), 4, -1180)
    if view.shine != 1:
        shine_hw = cv2.convertScaleAbs(shine_hw, alpha=view.shine)
    return np.asarray(cv2.add(image_hwc, cv2.cvtColor(shine_hw, cv2.COLOR_GRAY2RGB)), np.uint8)


def _shine_on(tools_hwc: ImageU8, ids_hw: ImageU8, glint: Glint, pixels: _Pixels) -> None:
    """Add a highlight to one instrument, in place, within its mask."""
    x, y = glint.x * pixels.unit + pixels.width / 2 - 0.5, glint.y * pixels.unit + pixels.height / 2 - 0.5
    sigma = glint.radius * pixels.unit
    x0, x1 = max(0, int(x - 3 * sigma)), min(pixels.width, int(x + 3 * sigma) + 2)
    y0, y1 = max(0, int(y - 3 * sigma)), min(pixels.height, int(y + 3 * sigma) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    across = np.exp(-0.5 * ((np.arange(x0, x1) - x) / sigma) ** 2)
    down = np.exp(-0.5 * ((np.arange(y0, y1) - y) / sigma) ** 2)
    light_hw = (glint.strength * down[:, None] * across[None]).astype(np.uint8)
    window = np.s_[y0:y1, x0:x1]
    light_hw[ids_hw[window] != glint.id] = 0
    cv2.add(tools_hwc[window], cv2.cvtColor(light_hw, cv2.COLOR_GRAY2RGB), tools_hwc[window])


def _through_lens(view: View, pixels: _Pixels, field_hwc: Float32, image_hwc: ImageU8) -> ImageU8:
    """Apply fog, grease, drops, smoke and exposure."""
    haze_hw = np.clip(field_hwc[..., Channel.HAZE], 0, 1)
    if haze_hw.max() > 0:
        part_hw = pixels.enlarge(np.asarray(haze_hw, np.float32))
        image_hwc = _mixed(_blurred(image_hwc, pixels), image_hwc, part_hw)
    sharp_hwc = image_hwc.copy() if view.drops else image_hwc
    for drop in view.drops:
        _wet(image_hwc, sharp_hwc, drop, pixels)
    gain_hw = np.clip(field_hwc[..., Channel.GAIN] * GAIN_1, 0, 255).astype(np.uint8)
    if (gain_hw != GAIN_1).any():
        gain_hwc = cv2.cvtColor(pixels.enlarge(gain_hw), cv2.COLOR_GRAY2RGB)
        image_hwc = np.asarray(cv2.multiply(image_hwc, gain_hwc, scale=1 / GAIN_1), np.uint8)
    veil_hw = field_hwc[..., Channel.VEIL]
    if veil_hw.max() > 0:
        veil_hwc = np.clip(veil_hw[..., None] * np.array(view.veil_rgb, np.float32), 0, 255).astype(np.uint8)
        image_hwc = np.asarray(cv2.add(image_hwc, pixels.enlarge(veil_hwc)), np.uint8)
    return image_hwc


def _mixed(over_hwc: ImageU8, under_hwc: ImageU8, part_hw: Float32) -> ImageU8:
    return np.asarray(cv2.blendLinear(over_hwc, under_hwc, part_hw, 1 - part_hw), np.uint8)


def _blurred(image_hwc: ImageU8, pixels: _Pixels) -> ImageU8:
    """The picture through a fogged lens: the means of half cells, smoothed."""
    cell = pixels.cell // 2
    rows, columns = -(-pixels.height // cell), -(-pixels.width // cell)
    whole_hwc = cv2.copyMakeBorder(
        image_hwc, 0, rows * cell - pixels.height, 0, columns * cell - pixels.width, cv2.BORDER_REPLICATE
    )
    small_hwc = cv2.resize(whole_hwc, (columns, rows), interpolation=cv2.INTER_AREA)
    kernel = blur_kernel(1.0)
    soft_hwc = cv2.sepFilter2D(small_hwc, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(soft_hwc, (columns * cell, rows * cell))[: pixels.height, : pixels.width], np.uint8)


def _wet(image_hwc: ImageU8, sharp_hwc: ImageU8, drop: Drop, pixels: _Pixels) -> None:
    """Draw a drop of water over the picture, in place."""
    x, y = drop.x * pixels.unit + pixels.width / 2 - 0.5, drop.y * pixels.unit + pixels.height / 2 - 0.5
    radius = drop.radius * pixels.unit
    x0, x1 = max(0, int(x - radius)), min(pixels.width, int(x + radius) + 2)
    y0, y1 = max(0, int(y - radius)), min(pixels.height, int(y + radius) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    m = -drop.power
    into = np.array([[m, 0, x + m * (x0 - x)], [0, m, y + m * (y0 - y)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    inner_hwc = cv2.warpAffine(sharp_hwc, into, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    columns, rows = (np.arange(x0, x1) - x) / radius, (np.arange(y0, y1) - y) / radius
    cover_hw, rim_hw = drop_profile(np.sqrt(columns[None] ** 2 + rows[:, None] ** 2).astype(np.float32))
    cover_hw *= np.float32(drop.opacity)
    window = np.s_[y0:y1, x0:x1]
    mixed_hwc = _mixed(np.asarray(inner_hwc, np.uint8), image_hwc[window], cover_hw)
    rim_hwc = cv2.cvtColor(cv2.convertScaleAbs(rim_hw, alpha=drop.opacity), cv2.COLOR_GRAY2RGB)
    image_hwc[window] = cv2.add(mixed_hwc, rim_hwc)


def _sensed(view: View, pixels: _Pixels, image_hwc: ImageU8) -> ImageU8:
    """Apply the sensor's blur and noise."""
    if view.sensor.blur > 0:
        size = blur_size(view.sensor.blur)
        cv2.GaussianBlur(image_hwc, (size, size), view.sensor.blur, image_hwc, borderType=cv2.BORDER_REPLICATE)
    if view.sensor.noise > 0:
        more_hwc, less_hwc = grain(view.sensor.grey, view.sensor.noise)
        y, x = view.sensor.noise_shift
        for top in range(-y, pixels.height, GRAIN):
            for left in range(-x, pixels.width, GRAIN):
                window = np.s_[max(top, 0) : top + GRAIN, max(left, 0) : left + GRAIN]
                seen_hwc = image_hwc[window]
                rows, columns = seen_hwc.shape[:2]
                own = np.s_[max(-top, 0) : max(-top, 0) + rows, max(-left, 0) : max(-left, 0) + columns]
                cv2.subtract(cv2.add(seen_hwc, more_hwc[own]), less_hwc[own], seen_hwc)
    return image_hwc


def _compressed(image_hwc: ImageU8, quality: int) -> ImageU8:
    """Compress as JPEG with chroma at half resolution, as video has it."""
    bgr_hwc = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, data = cv2.imencode(".jpg", bgr_hwc, how)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
