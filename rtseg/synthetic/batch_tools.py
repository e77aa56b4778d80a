"""Instruments in the batch renderer: the uppermost opaque piece of each pixel, and its colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .raster import LIGHT_1, pixel_place
from .spans import Spans, spans_of
from .view import View


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """A scene's textures on the device: tissue as float32 [4, H, W], all pieces as packed RGBA, int32 [pixels]."""

    tissue_chw: Tensor
    pieces: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """All sprites of all views, arrays [S, ...], and the pixels that they may cover."""

    spans: Spans
    view: np.ndarray
    scene: np.ndarray
    rank: np.ndarray
    gain: np.ndarray
    offset: np.ndarray  # of its texture in the atlas of its scene
    wide: np.ndarray
    high: np.ndarray
    along: np.ndarray  # the step in the texture from one column of the picture to the next, [S, 2]
    start: np.ndarray  # where a span begins in the texture, [spans, 2]
    size: tuple[int, int]  # height and width of the pictures

    @classmethod
    def of(cls, views: Sequence[View], scenes: list[int], width: int, height: int) -> Layout:
        rows: list[tuple[float, ...]] = []
        places = []
        for k, view in enumerate(views):
            sizes = [piece.shape[:2] for piece in view.textures.pieces]
            begins = np.cumsum([0, *(h * w for h, w in sizes)])
            for rank, sprite in enumerate(view.sprites, 1):
                h, w = sizes[sprite.texture]
                rows.append((k, scenes[k], rank, sprite.gain, begins[sprite.texture], w, h))
                places.append(pixel_place(sprite, width, height))
        table = np.array(rows, np.float64).reshape(-1, 7)
        view_s, scene, rank_s, gain, offset, wide, high = table.T
        place = np.array(places).reshape(-1, 2, 3)
        ends = np.stack([np.zeros_like(wide), wide - 1]), np.stack([np.zeros_like(high), high - 1])
        corners = np.stack([np.stack([ends[0][i], ends[1][j]], 1) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))], 1)
        spans = spans_of(corners @ place[:, :, :2].transpose(0, 2, 1) + place[:, None, :, 2], width, height)
        back = np.linalg.inv(place[:, :, :2])
        at = np.stack([spans.column, spans.row], 1) - place[spans.owner, :, 2]
        start = (back[spans.owner] @ at[..., None])[..., 0]
        whole = [column.astype(np.int64) for column in (view_s, scene, rank_s, offset, wide, high)]
        return cls(
            spans,
            whole[0],
            whole[1],
            whole[2],
            gain,
            whole[3],
            whole[4],
            whole[5],
            back[:, :, 0],
            start,
            (height, width),
        )


def spread(
    spans: Spans, picture: np.ndarray, size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the spans: its span, its column within the span, and its index in all pictures.

    `picture`: the picture of each owner of spans; `size`: height and width of a picture.
    """
    count = torch.as_tensor(spans.count, device=device)
    span = torch.repeat_interleave(torch.arange(len(count), device=device), count, output_size=spans.total)
    begins = torch.as_tensor(np.cumsum(spans.count) - spans.count, device=device)
    step = torch.arange(spans.total, device=device) - begins[span]
    first = (picture[spans.owner] * size[0] + spans.row) * size[1] + spans.column
    return span, step, torch.as_tensor(first, device=device)[span] + step


def bilinear_weights(
    u: Tensor, v: Tensor, owner: Tensor, wide: Tensor, high: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The four texels around a position, row by row, and their bilinear weights; outside, the border is repeated."""
    w, h = wide[owner], high[owner]
    column, row = (
        torch.minimum(u.floor().long().clamp_min(0), w - 2),
        torch.minimum(v.floor().long().clamp_min(0), h - 2),
    )
    right, below = (u - column).clamp(0, 1), (v - row).clamp(0, 1)
    first = row * w + column
    weights = [(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below]
    return [first, first + 1, first + w, first + w + 1], weights


def rasterize(layout: Layout, atlases: Sequence[Atlas], light: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's uppermost sprite (its rank from 1; 0 for none), int32 [pixels], and its lit colour, [pixels, 3].

    `light`: the lamp's light at the pixels of all pictures, [pixels, 3], where LIGHT_1 is a light of 1.
    """
    device = light.device

    def to(values: np.ndarray, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=device)

    winner, tools = torch.zeros(len(light), dtype=torch.int32, device=device), torch.zeros_like(light)
    if not layout.spans.total:
        return winner, tools
    span, step, pixel = spread(layout.spans, layout.view, layout.size, device)
    owner = to(layout.spans.owner)[span]
    start, along = to(layout.start, torch.float32)[span], to(layout.along, torch.float32)[owner]
    u, v = (start + step[:, None] * along).unbind(1)
    sizes = np.cumsum([0, *(len(atlas.pieces) for atlas in atlases)])
    base = to(layout.offset + sizes[layout.scene])[owner]
    index, weight = bilinear_weights(u, v, owner, to(layout.wide), to(layout.high))
    atlas = torch.cat([atlas.pieces for atlas in atlases])
    texels = [atlas[base + i] for i in index]
    alpha = sum((((t >> 24) & 255) * w for t, w in zip(texels, weight, strict=True)), torch.zeros_like(u))
    rank = to(layout.rank, torch.int32)[owner]
    inside = (alpha > 127.5) & (u >= 0) & (v >= 0)
    winner.scatter_reduce_(0, pixel, torch.where(inside, rank, 0), "amax")
    kept = (inside & (rank == winner[pixel])).nonzero()[:, 0]  # the only synchronisation with the device
    place, gain = pixel[kept], to(layout.gain, torch.float32)[owner[kept]] / LIGHT_1
    texels, weight = [t[kept] for t in texels], [w[kept] for w in weight]
    for channel in range(3):
        parts = (((t >> 8 * channel) & 255) * w for t, w in zip(texels, weight, strict=True))
        colour = sum(parts, torch.zeros_like(gain)).round()
        tools[place, channel] = (colour * light[place, channel] * gain).clamp(0, 255).round()
    return winner, tools
