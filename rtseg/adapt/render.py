"""Rendering of specified clips into pixels, many clips at once, on the device of their videos.

Each output pixel is sampled from the place in a video that it shows. Beyond its edges, a video and its masks are
continued by reflection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.types import Float32
from .appearance import apply_color, apply_optics
from .camera_faults import apply_faults
from .clip_spec import ClipSpec
from .correspondence import CELL, DUPLICATED, UNKNOWN
from .outlines import signed_distance
from .pasted import PastedObject, Window, whole, window_of
from .training_video import FIRST_PASTED_ID, TrainingVideo
from .veils import apply_veils


@dataclass(frozen=True, slots=True)
class RenderedClips:
    """N clips of T frames: `image_nt3hw` uint8 [N, T, 3, S, S], `id_nthw` uint8 [N, T, S, S].

    `id_nthw` is the id of the object that is visible at each pixel, 0 for the background. `surface_ntgg4`
    float32 [N, T, g, g, 4] is the surface point at the center of each cell, as `correspondence_loss` takes it.
    """

    image_nt3hw: Tensor
    id_nthw: Tensor
    surface_ntgg4: Tensor


def render_clips(specs: Sequence[ClipSpec], size: int, generator: torch.Generator) -> RenderedClips:
    """Render clips of one length, `size` pixels square, on the device of `generator`, which draws the noise."""
    length = len(specs[0].frames_t)
    canvas = _Canvas(specs, size, generator.device)
    for n, spec in enumerate(specs):
        for depth in range(len(spec.pasted)):
            canvas.paste(n, depth)
    canvas.cut_scenes()
    frames = [t for _ in specs for t in range(length)]
    appearances = [spec.appearance for spec in specs for _ in range(length)]
    image_k3hw = apply_color(canvas.image_k3hw, appearances, frames)
    image_k3hw = apply_veils(image_k3hw, [spec.veils for spec in specs for _ in range(length)], frames)
    canvas.image_k3hw = apply_optics(image_k3hw, appearances, generator)
    canvas.limit_field_of_view()
    canvas.image_k3hw = apply_faults(canvas.image_k3hw, [spec.faults for spec in specs for _ in range(length)], frames)
    image_k3hw = (canvas.image_k3hw * 255).round_().to(torch.uint8)
    shape = (len(specs), length)
    return RenderedClips(*(t.unflatten(0, shape) for t in (image_k3hw, canvas.id_khw, canvas.surface_kgg4)))


class _Canvas:
    """The frames of all clips in one batch (k = n * T + t), painted from the back to the front."""

    def __init__(self, specs: Sequence[ClipSpec], size: int, device: torch.device) -> None:
        self.specs, self.size, self.length = specs, size, len(specs[0].frames_t)
        count, cells = len(specs) * self.length, len(range(CELL // 2, size, CELL))
        self.image_k3hw = torch.empty(count, 3, size, size, device=device)
        self.id_khw = torch.empty(count, size, size, device=device, dtype=torch.uint8)
        self.surface_kgg4 = torch.empty(count, cells, cells, 4, device=device)
        for n, spec in enumerate(specs):
            self._paint(slice(n * self.length, (n + 1) * self.length), spec)

    def _paint(self, rows: slice, spec: ClipSpec) -> None:
        """Paint the frames of a clip's video."""
        at_khw2 = _source_points(spec.view_t23, spec.deformation_t2hw, whole(self.size), self.size, self.id_khw.device)
        if spec.frozen:
            self.image_k3hw[rows], self.id_khw[rows] = _sample(spec.video, int(spec.frames_t[0]), at_khw2)
        else:
            for k, t, at_hw2 in zip(range(rows.start, rows.stop), spec.frames_t.tolist(), at_khw2, strict=True):
                image, ids = _sample(spec.video, t, at_hw2[None])
                self.image_k3hw[k], self.id_khw[k] = image[0], ids[0]
        at_kgg2 = _cell_centers(at_khw2)
        known_kgg = _is_inside(spec.video, at_kgg2) & spec.frozen
        self.surface_kgg4[rows] = _surface(known_kgg, at_kgg2, spec.view_t23)

    def paste(self, n: int, depth: int) -> None:
        """Paste one object of a clip over its frames, with soft edges."""
        one, device = self.specs[n].pasted[depth], self.id_khw.device
        times = np.flatnonzero(one.visible_t)
        window = window_of(one, times, self.size)
        if window is None:
            return
        rows, down, across = torch.from_numpy(times + n * self.length).to(device), *window
        map_k23 = one.map_t23[times]
        at_khw2 = _source_points(map_k23, one.deformation_t2hw[times], window, self.size, device)
        image, ids = _sample(one.video, one.frame, at_khw2)
        image = apply_color(image, [one.appearance] * len(times), times.tolist())
        alpha_khw = _alpha(one, ids, at_khw2, _scales(map_k23))
        visible_khw = alpha_khw > 0.5
        self.image_k3hw[rows, :, down, across] = torch.lerp(
            self.image_k3hw[rows, :, down, across], image, alpha_khw[:, None]
        )
        self.id_khw[rows, down, across] = self.id_khw[rows, down, across].masked_fill(
            visible_khw, FIRST_PASTED_ID + depth
        )
        code = DUPLICATED if one.duplicated else 2.0 + depth
        at_kgg2, visible_kgg = (_cell_centers(t_khw, (down.start, across.start)) for t_khw in (at_khw2, visible_khw))
        surface = _surface(torch.full_like(at_kgg2[..., 0], code), at_kgg2, map_k23)
        y, x = (-(-(side.start - CELL // 2) // CELL) for side in (down, across))
        cells = np.s_[:, max(y, 0) : max(y, 0) + surface.shape[1], max(x, 0) : max(x, 0) + surface.shape[2]]
        own = self.surface_kgg4[rows]
        own[cells] = torch.where(visible_kgg[..., None], surface, own[cells])
        self.surface_kgg4[rows] = own

    def cut_scenes(self) -> None:
        """Replace the last frame of the clips that have a scene cut."""
        for n, spec in enumerate(self.specs):
            if spec.scene_cut:
                last = n * self.length + self.length - 1
                self.image_k3hw[last], self.id_khw[last] = _whole_frame(*spec.scene_cut, self.size), 0
                self.surface_kgg4[last] = UNKNOWN

    def limit_field_of_view(self) -> None:
        """Black out all pixels outside the endoscope's round field of view, and remove the objects there."""
        fields = [(n, spec.field_of_view_t4) for n, spec in enumerate(self.specs) if spec.field_of_view_t4 is not None]
        if not fields:
            return
        rows = [n * self.length + t for n, _ in fields for t in range(self.length)]
        field = torch.from_numpy(np.concatenate([field_t4 for _, field_t4 in fields])).to(self.image_k3hw.device)
        at = (torch.arange(self.size, device=field.device) + 0.5) / self.size
        x = (at[None, None, :] - field[:, 0, None, None]) / field[:, 2, None, None]
        y = (at[None, :, None] - field[:, 1, None, None]) / field[:, 3, None, None]
        inside_khw = x**2 + y**2 < 1
        self.image_k3hw[rows] = torch.where(inside_khw[:, None], self.image_k3hw[rows], 0.02)
        self.id_khw[rows] *= inside_khw.to(torch.uint8)
        self.surface_kgg4[rows] *= _cell_centers(inside_khw)[..., None]


def _cell_centers(t_khw: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """The values at the center of each cell of the encoder's top map; `corner` (y, x) is where the window begins."""
    first_y, first_x = ((CELL // 2 - begin) % CELL for begin in corner)
    return t_khw[:, first_y::CELL, first_x::CELL]


def _scales(map_k23: Float32) -> Float32:
    """Source pixels per output pixel of each map."""
    return np.sqrt(np.abs(np.linalg.det(map_k23[:, :, :2]))).astype(np.float32)


def _surface(code_kgg: Tensor, at_kgg2: Tensor, map_k23: Float32) -> Tensor:
    """The surface point at the center of each cell: surface code, x and y in its texture, texture pixels per cell."""
    wide_k = torch.from_numpy(_scales(map_k23) * CELL).to(at_kgg2)
    wide_kgg = wide_k[:, None, None].expand_as(code_kgg)
    return torch.stack((code_kgg.to(at_kgg2), at_kgg2[..., 0], at_kgg2[..., 1], wide_kgg), -1)


def _source_points(
    map_k23: Float32, deformation_k2gg: Float32, window: Window, size: int, device: torch.device
) -> Tensor:
    """The point (x, y) of the source, in pixels, that each output pixel of a window shows: [k, h, w, 2]."""
    map_k23t = torch.from_numpy(map_k23).to(device)
    y_h, x_w = (torch.arange(side.start, side.stop, device=device, dtype=torch.float32) for side in window)
    of_row_k2h = map_k23t[:, :, 1, None] * y_h + map_k23t[:, :, 2, None]
    at_k2hw = (map_k23t[:, :, 0, None] * x_w)[:, :, None] + of_row_k2h[..., None]
    if deformation_k2gg.any():
        weight_sg = _spline(size, deformation_k2gg.shape[-1]).to(device)
        shift_k2gg = torch.from_numpy(deformation_k2gg).to(device)
        at_k2hw = at_k2hw + weight_sg[window[0]] @ shift_k2gg @ weight_sg[window[1]].T
    return at_k2hw.permute(0, 2, 3, 1)


@lru_cache(16)
def _spline(size: int, cells: int) -> Tensor:
    """The weights [size, cells] that interpolate a row of `cells` values to `size` places, as bicubic interpolation."""
    return F.interpolate(torch.eye(cells)[None, None], size=(size, cells), mode="bicubic", align_corners=True)[0, 0]


def _sample(video: TrainingVideo, frame: int, at_khw2: Tensor) -> tuple[Tensor, Tensor]:
    """One frame of a video, sampled at the points of k pictures: images [k, 3, h, w] in 0..1, and ids [k, h, w]."""
    count, height, width = at_khw2.shape[:3]
    last_2 = torch.tensor(video.size_wh, device=at_khw2.device, dtype=torch.float32) - 1
    # Reflection has the period 2 * last; folding maps every coordinate into 0..last.
    folded = last_2 - (at_khw2.abs() % (2 * last_2) - last_2).abs()
    grid_1nw2 = (folded * (2 / last_2) - 1).reshape(1, count * height, width, 2)
    source_13hw = video.image_t3hw[frame][None].float() / 255
    image_13nw = F.grid_sample(source_13hw, grid_1nw2, mode="bilinear", align_corners=True)
    x_khw, y_khw = folded.round_().long().unbind(-1)
    return image_13nw[0].unflatten(1, (count, height)).transpose(0, 1), video.ids_thw[frame][y_khw, x_khw]


def _alpha(one: PastedObject, ids_khw: Tensor, at_khw2: Tensor, scale_k: Float32) -> Tensor:
    """The share of each pixel that the pasted object covers, 0..1, [k, h, w]."""
    if one.outline is None:
        inside_khw = (ids_khw == one.object_id) & _is_inside(one.video, at_khw2)
        return F.avg_pool2d(inside_khw[:, None].float(), 3, 1, 1)[:, 0]
    center_2 = torch.tensor(one.center_xy, device=at_khw2.device)
    distance_khw = signed_distance([one.outline] * len(at_khw2), (at_khw2 - center_2) / one.radius)
    pixels_per_unit_k = torch.from_numpy(one.radius / scale_k).to(at_khw2.device)
    return (0.5 - distance_khw * pixels_per_unit_k[:, None, None]).clamp(0, 1)


def _is_inside(video: TrainingVideo, at_khw2: Tensor) -> Tensor:
    """Whether each point is inside the video's frame, and not in a reflection of it."""
    last_2 = torch.tensor(video.size_wh, device=at_khw2.device) - 1
    return ((at_khw2 >= 0) & (at_khw2 <= last_2)).all(-1)


def _whole_frame(video: TrainingVideo, frame: int, size: int) -> Tensor:
    """A frame of a video resized to the output, [3, S, S] in 0..1."""
    whole = F.interpolate(video.image_t3hw[frame][None].float(), size=(size, size), mode="bilinear", antialias=True)
    return whole[0] / 255
