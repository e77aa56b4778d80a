"""Rendering of specified clips into pixels, many clips at once, on the device of their videos.

Each output pixel is sampled from the place in a video that it shows. Beyond its edges, a video and its masks are
continued by reflection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from .pasted import PastedObject
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
    for depth in range(max(len(spec.pasted) for spec in specs)):
        canvas.paste(depth)
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
        view_k23 = np.concatenate([spec.view_t23 for spec in specs])
        at_khw2 = _source_points(view_k23, np.concatenate([spec.deformation_t2hw for spec in specs]), size, device)
        videos = [spec.video for spec in specs for _ in spec.frames_t]
        frames = [int(t) for spec in specs for t in spec.frames_t]
        self.image_k3hw, self.id_khw = _sample(list(zip(videos, frames, strict=True)), at_khw2)
        frozen_k = torch.tensor([float(spec.frozen) for spec in specs for _ in spec.frames_t], device=device)
        known_khw = _is_inside(videos, at_khw2) * frozen_k[:, None, None]
        self.surface_kgg4 = _surface(known_khw, at_khw2, view_k23)

    def paste(self, depth: int) -> None:
        """Paste the object at one depth of each clip over its frames, with soft edges."""
        rows = [
            (n * self.length + t, spec.pasted[depth], t)
            for n, spec in enumerate(self.specs)
            if depth < len(spec.pasted)
            for t in np.flatnonzero(spec.pasted[depth].visible_t).tolist()
        ]
        if not rows:
            return
        picks, pasted, times = [k for k, _, _ in rows], [one for _, one, _ in rows], [t for _, _, t in rows]
        map_k23 = np.stack([one.map_t23[t] for one, t in zip(pasted, times, strict=True)])
        deformation_k2hw = np.stack([one.deformation_t2hw[t] for one, t in zip(pasted, times, strict=True)])
        at_khw2 = _source_points(map_k23, deformation_k2hw, self.size, self.image_k3hw.device)
        image, ids = _sample([(one.video, one.frame) for one in pasted], at_khw2)
        image = apply_color(image, [one.appearance for one in pasted], times)
        alpha_khw = _alpha(pasted, ids, at_khw2, _scales(map_k23))
        visible_khw = alpha_khw > 0.5
        self.image_k3hw[picks] = torch.lerp(self.image_k3hw[picks], image, alpha_khw[:, None])
        self.id_khw[picks] = torch.where(visible_khw, torch.full_like(ids, FIRST_PASTED_ID + depth), self.id_khw[picks])
        code_k = torch.tensor([DUPLICATED if one.duplicated else 2.0 + depth for one in pasted], device=at_khw2.device)
        surface_kgg4 = _surface(code_k[:, None, None].expand_as(alpha_khw), at_khw2, map_k23)
        at_center_kgg1 = _cell_centers(visible_khw)[..., None]
        self.surface_kgg4[picks] = torch.where(at_center_kgg1, surface_kgg4, self.surface_kgg4[picks])

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


def _cell_centers(t_khw: Tensor) -> Tensor:
    """The values at the center of each cell of the encoder's top map."""
    return t_khw[:, CELL // 2 :: CELL, CELL // 2 :: CELL]


def _scales(map_k23: Float32) -> Float32:
    """Source pixels per output pixel of each map."""
    return np.sqrt(np.abs(np.linalg.det(map_k23[:, :, :2]))).astype(np.float32)


def _surface(code_khw: Tensor, at_khw2: Tensor, map_k23: Float32) -> Tensor:
    """The surface point at the center of each cell: surface code, x and y in its texture, texture pixels per cell."""
    code, at = _cell_centers(code_khw), _cell_centers(at_khw2)
    wide_k = torch.from_numpy(_scales(map_k23) * CELL).to(at)
    return torch.stack((code.to(at), at[..., 0], at[..., 1], wide_k[:, None, None].expand_as(code)), -1)


def _source_points(map_k23: Float32, deformation_k2hw: Float32, size: int, device: torch.device) -> Tensor:
    """The point (x, y) of the source, in pixels, that each output pixel shows: [k, S, S, 2]."""
    map_k23t, shifts = torch.from_numpy(map_k23).to(device), torch.from_numpy(deformation_k2hw).to(device)
    y_hw, x_hw = torch.meshgrid(*2 * [torch.arange(size, device=device, dtype=torch.float32)], indexing="ij")
    xy1_n3 = torch.stack((x_hw, y_hw, torch.ones_like(x_hw)), -1).view(1, -1, 3)
    at_khw2 = (xy1_n3 @ map_k23t.transpose(1, 2)).view(len(map_k23t), size, size, 2)
    deformed = [k for k in range(len(deformation_k2hw)) if deformation_k2hw[k].any()]
    if deformed:
        shift = F.interpolate(shifts[deformed], size=(size, size), mode="bicubic", align_corners=True)
        at_khw2[deformed] += shift.permute(0, 2, 3, 1)
    return at_khw2


def _sample(views: Sequence[tuple[TrainingVideo, int]], at_khw2: Tensor) -> tuple[Tensor, Tensor]:
    """Sample one frame of a video per row at its points: images [k, 3, S, S] in 0..1, and ids uint8 [k, S, S]."""
    sizes = torch.tensor([v.size_wh for v, _ in views], device=at_khw2.device, dtype=torch.float32)
    width, height = (max(v.size_wh[axis] for v, _ in views) for axis in (0, 1))
    source_k4hw = at_khw2.new_zeros(len(views), 4, height, width)
    for k, (video, t) in enumerate(views):
        w, h = video.size_wh
        source_k4hw[k, :3, :h, :w] = video.image_t3hw[t]
        source_k4hw[k, 3, :h, :w] = video.ids_thw[t]
    last_k112 = (sizes - 1)[:, None, None]
    # Reflection has the period 2 * last; folding maps every coordinate into 0..last.
    folded = last_k112 - (at_khw2.abs() % (2 * last_k112) - last_k112).abs()
    grid_khw2 = folded / torch.tensor([width - 1, height - 1], device=at_khw2.device) * 2 - 1
    image = F.grid_sample(source_k4hw[:, :3], grid_khw2, mode="bilinear", align_corners=True)
    ids = F.grid_sample(source_k4hw[:, 3:], grid_khw2, mode="nearest", align_corners=True)
    return image.mul_(1 / 255), ids[:, 0].to(torch.uint8)


def _alpha(pasted: Sequence[PastedObject], ids_khw: Tensor, at_khw2: Tensor, scale_k: Float32) -> Tensor:
    """The share of each pixel that the pasted object covers, 0..1, [k, S, S]."""
    device, alpha_khw = at_khw2.device, torch.empty_like(at_khw2[..., 0])
    cut_out = [k for k, one in enumerate(pasted) if one.outline is None]
    if cut_out:
        id_k = torch.tensor([pasted[k].object_id for k in cut_out], device=device)
        in_video_khw = _is_inside([pasted[k].video for k in cut_out], at_khw2[cut_out])
        inside_khw = (ids_khw[cut_out] == id_k[:, None, None]) & in_video_khw
        alpha_khw[cut_out] = F.avg_pool2d(inside_khw.float(), 3, 1, 1)
    outlined = [k for k, one in enumerate(pasted) if one.outline is not None]
    if outlined:
        center = torch.tensor([pasted[k].center_xy for k in outlined], device=device)[:, None, None]
        radius = torch.tensor([pasted[k].radius for k in outlined], device=device)[:, None, None]
        outlines = [o for k in outlined if (o := pasted[k].outline)]
        distance = signed_distance(outlines, (at_khw2[outlined] - center) / radius[..., None])
        pixels_per_unit = radius / torch.from_numpy(scale_k[outlined]).to(device)[:, None, None]
        alpha_khw[outlined] = (0.5 - distance * pixels_per_unit).clamp(0, 1)
    return alpha_khw


def _is_inside(videos: Sequence[TrainingVideo], at_khw2: Tensor) -> Tensor:
    """Whether each point is inside its video's frame, and not in a reflection of it."""
    last = torch.tensor([video.size_wh for video in videos], device=at_khw2.device)[:, None, None] - 1
    return ((at_khw2 >= 0) & (at_khw2 <= last)).all(-1)


def _whole_frame(video: TrainingVideo, frame: int, size: int) -> Tensor:
    """A frame of a video resized to the output, [3, S, S] in 0..1."""
    whole = F.interpolate(video.image_t3hw[frame][None].float(), size=(size, size), mode="bilinear", antialias=True)
    return whole[0] / 255
