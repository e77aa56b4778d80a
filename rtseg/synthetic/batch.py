"""Renders many views at once in torch, on a CPU or a GPU, for training: the same pictures as draw.py, up to rounding.

Tissue is dense: one `grid_sample`. Instruments are sparse: the rows of pixels that their pieces may cover are listed on
the host (spans.py), the uppermost opaque piece of each pixel is found with one scatter, and only its colour is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .batch_jpeg import compressed
from .batch_tools import Atlas, Layout, bilinear_weights, rasterize, spread
from .raster import (
    BLOOD_EDGE,
    BLOOD_MOST,
    DROP_EDGE,
    GAIN_1,
    GRAIN,
    LIGHT_1,
    RIM_AT,
    RIM_LIGHT,
    RIM_WIDE,
    blur_kernel,
    cell_of,
    field_at_cells,
    grain,
    shadow_kernels,
    surround_alpha,
    unit_of,
)
from .spans import spans_of
from .view import Channel, Textures, View


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Rendered views: RGB uint8 [N, 3, H, W]; the id of the visible instrument and its `Part`, uint8 [N, H, W]."""

    image_nchw: Tensor
    ids_nhw: Tensor
    parts_nhw: Tensor


def render_batch(views: Sequence[View], width: int, height: int, device: torch.device | str = "cpu") -> Pictures:
    """Render views, of any scenes, at one size in pixels. It needs about 200 bytes of memory for each pixel."""
    return BatchRenderer(device)(views, width, height)


class BatchRenderer:
    """Renders as `render_batch` does, and keeps the textures of the latest views on the device for the next call."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._atlases: dict[int, tuple[Textures, Atlas]] = {}

    @torch.no_grad()
    def __call__(self, views: Sequence[View], width: int, height: int) -> Pictures:
        laced = [n for n, view in enumerate(views) if view.later is not None]
        both = [*views, *(view.later for view in views if view.later is not None)]
        paints = {id(view.textures): view.textures for view in both}
        # Found by `id`: as the textures are kept here, no other object can have the same id.
        self._atlases = {key: self._atlases.get(key) or (p, self._upload(p)) for key, p in paints.items()}
        drawn = _Batch(both, [self._atlases[key][1] for key in paints], width, height, self._device).draw()
        planes = []
        for plane in (drawn.image_nchw, drawn.ids_nhw, drawn.parts_nhw):
            seen = plane[: len(views)]
            if laced:
                seen[laced, ..., 1::2, :] = plane[len(views) :, ..., 1::2, :]
            planes.append(seen)
        qualities = [view.sensor.quality for view in views]
        return Pictures(compressed(planes[0], qualities), planes[1], planes[2])

    def _upload(self, paint: Textures) -> Atlas:
        tissue_chw = torch.from_numpy(paint.tissue_hwc).to(self._device).permute(2, 0, 1).float()
        packed = np.concatenate([np.ascontiguousarray(piece).reshape(-1, 4) for piece in paint.pieces]).view(np.int32)
        return Atlas(tissue_chw, torch.from_numpy(packed[:, 0]).to(self._device))


class _Batch:
    """One rendering of `views`; `atlases` are those of their textures, in order of first appearance."""

    def __init__(
        self, views: Sequence[View], atlases: list[Atlas], width: int, height: int, device: torch.device
    ) -> None:
        self._views, self._atlases, self._device = views, atlases, device
        self._width, self._height = width, height
        self._unit, self._cell = unit_of(width, height), cell_of(width, height)
        order = {key: n for n, key in enumerate(dict.fromkeys(id(view.textures) for view in views))}
        self._scene = [order[id(view.textures)] for view in views]
        field_nhwc = np.stack([field_at_cells(view, width, height) for view in views])
        self._peaks = field_nhwc.max((0, 1, 2))
        self._field_nchw = self._to(field_nhwc).permute(0, 3, 1, 2)

    def _to(self, values: object, dtype: torch.dtype | None = torch.float32) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=dtype).to(self._device)

    def _enlarge(self, coarse_nchw: Tensor) -> Tensor:
        fine = F.interpolate(coarse_nchw, scale_factor=self._cell, mode="bilinear", align_corners=False)
        cell = self._cell
        return fine[..., cell : cell + self._height, cell : cell + self._width]

    def _colour(self, rgb: Sequence[tuple[float, float, float]]) -> Tensor:
        return self._to(rgb)[:, :, None, None]

    def draw(self) -> Pictures:
        tools_nchw, ids_nhw, parts_nhw = self._tools()
        tools_nchw = self._glints(tools_nchw, ids_nhw)
        image_nchw = torch.where(ids_nhw[:, None] > 0, tools_nchw, self._tissue(ids_nhw))
        image_nchw = self._sensed(self._through_lens(image_nchw))
        alpha_nhw = self._surround()
        inside_nhw = alpha_nhw > 127
        seen_nchw = (image_nchw * alpha_nhw[:, None] / 255).round().to(torch.uint8)
        return Pictures(seen_nchw, ids_nhw * inside_nhw, parts_nhw * inside_nhw)

    def _surround(self) -> Tensor:
        """How much light passes the endoscope's tube, uint8 [N, H, W]."""
        kinds = list(dict.fromkeys(view.surround for view in self._views))
        full_hw = np.full((self._height, self._width), 255, np.uint8)
        tables = [surround_alpha(kind, self._width, self._height) if kind else full_hw for kind in kinds]
        return self._to(np.stack(tables), torch.uint8)[[kinds.index(view.surround) for view in self._views]]

    def _light(self, shade_nhw: Tensor | float = 0.0) -> Tensor:
        light_nhw = self._field_nchw[:, Channel.LIGHT] * (1 - shade_nhw)
        tinted = light_nhw[:, None] * LIGHT_1 * self._colour([v.tint_rgb for v in self._views])
        return self._enlarge(tinted.clamp(0, 255).floor())

    def _tools(self) -> tuple[Tensor, Tensor, Tensor]:
        """The instruments in the lamp's light, float32 [N, 3, H, W]; their ids and parts, uint8 [N, H, W]."""
        n, h, w = len(self._views), self._height, self._width
        codes = np.zeros((2, n, 1 + max(len(v.sprites) for v in self._views)), np.uint8)
        for k, view in enumerate(self._views):
            for rank, sprite in enumerate(view.sprites, 1):
                codes[:, k, rank] = sprite.id, sprite.part
        light = self._light().permute(0, 2, 3, 1).reshape(-1, 3)
        winner, tools = rasterize(Layout.of(self._views, self._scene, w, h), self._atlases, light)
        rank_nhw = winner.view(n, h, w).long()
        ids_nhw, parts_nhw = (
            table.gather(1, rank_nhw.view(n, -1)).view(n, h, w) for table in self._to(codes, torch.uint8)
        )
        return tools.view(n, h, w, 3).permute(0, 3, 1, 2), ids_nhw, parts_nhw

    def _glints(self, tools_nchw: Tensor, ids_nhw: Tensor) -> Tensor:
        most = max(len(v.glints) for v in self._views)
        table = np.zeros((most, len(self._views), 5), np.float32)
        table[..., 2] = 1.0
        for k, view in enumerate(self._views):
            for g, glint in enumerate(view.glints):
                x = glint.x * self._unit + self._width / 2 - 0.5, glint.y * self._unit + self._height / 2 - 0.5
                table[g, k] = *x, glint.radius * self._unit, glint.strength, glint.id
        for x, y, sigma, strength, own in self._to(table).transpose(1, 2):
            across_nw = _bump(self._width, x, sigma)
            down_nh = _bump(self._height, y, sigma)
            light_nhw = (strength[:, None, None] * down_nh[:, :, None] * across_nw[:, None]).floor()
            light_nhw = light_nhw * (ids_nhw == own[:, None, None])
            tools_nchw = (tools_nchw + light_nhw[:, None]).clamp_max(255)
        return tools_nchw

    def _shade(self, ids_nhw: Tensor) -> Tensor:
        """Darkness of the instruments' shadow at the cells, float32 [N, gh, gw]."""
        n, _, rows, columns = self._field_nchw.shape
        cell = self._cell
        padding = (0, (columns - 2) * cell - self._width, 0, (rows - 2) * cell - self._height)
        cells = F.avg_pool2d(F.pad((ids_nhw > 0).float()[None], padding), cell).mul(255).round()
        kernels = [shadow_kernels(v.shadow, self._unit, cell) for v in self._views]
        across, down = (
            self._to([t[0] for t in kernels])[:, None, None],
            self._to([t[1] for t in kernels])[:, None, :, None],
        )
        cells = F.pad(cells, (5, 5, 5, 5), mode="replicate")
        soft = F.conv2d(F.conv2d(cells, across, groups=n), down, groups=n)[0]
        return soft * self._to([v.shadow.strength / 255 for v in self._views])[:, None, None]

    def _seen_tissue(self) -> Tensor:
        """The tissue map sampled at each pixel, float32 [N, 4, H, W]; the views of one scene are sampled together."""
        slot, seen = [], [0] * len(self._atlases)
        for scene in self._scene:
            slot.append(seen[scene])
            seen[scene] += 1
        sizes = [atlas.tissue_chw.shape[1:] for atlas in self._atlases]
        high, wide = max(s[0] for s in sizes), max(s[1] for s in sizes)
        maps = torch.stack(
            [F.pad(a.tissue_chw, (0, wide - s[1], 0, high - s[0])) for a, s in zip(self._atlases, sizes, strict=True)]
        )
        where = self._enlarge(self._field_nchw[:, [Channel.U, Channel.V]])
        extent = self._to([sizes[scene][::-1] for scene in self._scene])[:, :, None, None]
        mirrored = extent - ((where + 0.5) % (2 * extent) - extent).abs() - 0.5  # the map is mirrored beyond its edge
        inside = torch.minimum(mirrored.clamp_min(0), extent - 1)
        turned = inside * 2 / self._to([wide - 1, high - 1])[:, None, None] - 1
        grid = torch.zeros(len(maps), max(seen), *turned.shape[2:], 2, device=self._device)
        grid[self._scene, slot] = turned.permute(0, 2, 3, 1)
        out = F.grid_sample(maps, grid.flatten(1, 2), align_corners=True)
        return out.view(len(maps), 4, max(seen), self._height, self._width)[self._scene, :, slot].round()

    def _tissue(self, ids_nhw: Tensor) -> Tensor:
        seen_nchw = self._seen_tissue()
        image_nchw, gloss_nhw = seen_nchw[:, :3], seen_nchw[:, 3]
        if self._peaks[Channel.BLOOD] > 0:
            depth = self._enlarge(self._field_nchw[:, Channel.BLOOD, None]) * BLOOD_EDGE
            cover = depth.clamp(0, BLOOD_MOST) / 255
            image_nchw = image_nchw + (self._colour([v.blood_rgb for v in self._views]).floor() - image_nchw) * cover
            gloss_nhw = (gloss_nhw + (40 * cover[:, 0]).round()).clamp_max(255)
        image_nchw = (image_nchw * self._light(self._shade(ids_nhw)) / LIGHT_1).clamp_max(255)
        lamp_nhw = self._enlarge(self._field_nchw[:, Channel.SPARKLE, None].clamp(0, 255).floor())[:, 0]
        shine_nhw = (4 * gloss_nhw + 4 * lamp_nhw - 1180).clamp(0, 255)
        shine_nhw = shine_nhw * self._to([v.shine for v in self._views])[:, None, None]
        return (image_nchw + shine_nhw[:, None]).clamp_max(255)

    def _through_lens(self, image_nchw: Tensor) -> Tensor:
        if self._peaks[Channel.HAZE] > 0:
            haze = self._enlarge(self._field_nchw[:, Channel.HAZE, None].clamp(0, 1))
            image_nchw = image_nchw + (self._blurred(image_nchw) - image_nchw) * haze
        if any(v.drops for v in self._views):
            image_nchw = self._wet(image_nchw)
        gain = self._enlarge((self._field_nchw[:, Channel.GAIN, None] * GAIN_1).clamp(0, 255).floor())
        image_nchw = (image_nchw * gain / GAIN_1).clamp_max(255)
        if self._peaks[Channel.VEIL] > 0:
            veil = self._field_nchw[:, Channel.VEIL, None] * self._colour([v.veil_rgb for v in self._views])
            image_nchw = (image_nchw + self._enlarge(veil.clamp(0, 255).floor())).clamp_max(255)
        return image_nchw

    def _blurred(self, image_nchw: Tensor) -> Tensor:
        cell, n = self._cell // 2, len(image_nchw)
        rows, columns = -(-self._height // cell), -(-self._width // cell)
        padding = (0, columns * cell - self._width, 0, rows * cell - self._height)
        small = F.avg_pool2d(F.pad(image_nchw, padding, mode="replicate"), cell)
        soft = _smooth(small, self._to(blur_kernel(1.0)).expand(n, 5))
        fine = F.interpolate(soft, scale_factor=cell, mode="bilinear", align_corners=False)
        return fine[..., : self._height, : self._width]

    def _wet(self, image_nchw: Tensor) -> Tensor:
        """Draw the drops on the lenses; the drops of one picture do not overlap."""
        drops = [(k, drop) for k, view in enumerate(self._views) for drop in view.drops]
        size = np.array((self._width, self._height))
        middle = np.array([(d.x, d.y) for _, d in drops]) * self._unit + size / 2 - 0.5
        radius = np.array([d.radius for _, d in drops]) * self._unit
        box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * radius[:, None, None] + middle[:, None]
        spans = spans_of(box, self._width, self._height)
        span, step, pixel = spread(spans, np.array([k for k, _ in drops]), (self._height, self._width), self._device)
        owner = self._to(spans.owner, torch.int64)[span]
        x, y = self._to(spans.column)[span] + step, self._to(spans.row)[span]
        mid_x, mid_y = self._to(middle)[owner].unbind(1)
        power, opacity = self._to([(d.power, d.opacity) for _, d in drops])[owner].unbind(1)
        r = torch.hypot(x - mid_x, y - mid_y) / self._to(radius)[owner]
        cover = ((1 - r) / DROP_EDGE).clamp(0, 1) * opacity
        rim = RIM_LIGHT * (1 - (r - RIM_AT).abs() / RIM_WIDE).clamp(0, 1) * opacity
        flat = image_nchw.permute(0, 2, 3, 1).reshape(-1, 3)
        u = (mid_x - power * (x - mid_x)).clamp(0, self._width - 1)
        v = (mid_y - power * (y - mid_y)).clamp(0, self._height - 1)
        extent = self._to(size, torch.int64)[:, None]
        index, weight = bilinear_weights(u, v, torch.zeros_like(owner), *extent)
        start = pixel - pixel % (self._width * self._height)
        inner = sum(flat[start + i] * w[:, None] for i, w in zip(index, weight, strict=True))
        mixed = flat[pixel] + (inner - flat[pixel]) * cover[:, None] + rim[:, None]
        extended = torch.cat([flat, flat[:1]])  # an extra row receives the pixels outside of the drops
        extended[torch.where(r < 1, pixel, len(flat))] = mixed.clamp_max(255)
        return extended[:-1].view(len(self._views), self._height, self._width, 3).permute(0, 3, 1, 2)

    def _sensed(self, image_nchw: Tensor) -> Tensor:
        kernels = np.zeros((len(self._views), 5), np.float32)
        kernels[:, 2] = 1
        for k, view in enumerate(self._views):
            if view.sensor.blur > 0:
                own = blur_kernel(view.sensor.blur)
                kernels[k] = np.pad(own, (5 - len(own)) // 2)
        image_nchw = _smooth(image_nchw, self._to(kernels)).round()
        levels = {(v.sensor.grey, v.sensor.noise): 0 for v in self._views}
        tables: list[np.ndarray] = []
        for key in levels:
            levels[key] = len(tables)
            more, less = grain(*key)
            tables.append(more.astype(np.int16) - less)
        shift = self._to([v.sensor.noise_shift for v in self._views], torch.int64)
        rows = (shift[:, :1] + torch.arange(self._height, device=self._device)) % GRAIN
        columns = (shift[:, 1:] + torch.arange(self._width, device=self._device)) % GRAIN
        which = self._to([levels[v.sensor.grey, v.sensor.noise] for v in self._views], torch.int64)
        noise_nhwc = self._to(np.stack(tables), torch.int16)[which[:, None, None], rows[:, :, None], columns[:, None]]
        return (image_nchw + noise_nhwc.permute(0, 3, 1, 2)).clamp(0, 255)


def _bump(length: int, middle_n: Tensor, sigma_n: Tensor) -> Tensor:
    """A Gaussian over a row of pixels, cut at three sigma, [N, length]."""
    away = (torch.arange(length, device=middle_n.device) - middle_n[:, None]) / sigma_n[:, None]
    return torch.exp(-0.5 * away**2) * (away.abs() < 3)


def _smooth(image_nchw: Tensor, kernels_nk: Tensor) -> Tensor:
    """Each picture smoothed with its own kernel of five weights, along both axes."""
    n, channels, h, w = image_nchw.shape
    kernel = kernels_nk.repeat_interleave(channels, 0)[:, None]
    flat = F.pad(image_nchw.reshape(1, n * channels, h, w), (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(flat, kernel[:, :, None], groups=n * channels)
    return F.conv2d(flat, kernel[..., None], groups=n * channels).view(n, channels, h, w)
