"""Plans into pixels, many clips at once, on whatever device the material lies.

Everything is sampled backwards: where does an output pixel come from? A video's picture goes on as a mirror image
beyond its edge, and so do its masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.types import Float32
from .look import apply_colours, apply_optics
from .matching import ALIKE, CELL, UNKNOWN
from .material import FLYING, Video
from .plan import ClipPlan, Layer
from .shapes import inside


@dataclass(frozen=True, slots=True)
class Clips:
    """`image_nt3hw` uint8 [N, T, 3, S, S]; `owner_nthw` uint8 [N, T, S, S]: the id of what is visible, 0 for none.

    `place_ntgg4` [N, T, g, g, 4] says of the middle of each cell what `matching_loss` wants to know.
    """

    image_nt3hw: Tensor
    owner_nthw: Tensor
    place_ntgg4: Tensor


def compose(plans: Sequence[ClipPlan], size: int, generator: torch.Generator) -> Clips:
    """Render clips of one length. `generator` makes the noise, and says on which device."""
    length = len(plans[0].frames_t)
    canvas = _Canvas(plans, size, generator.device)
    for depth in range(max(len(p.layers) for p in plans)):
        canvas.lay(depth)
    canvas.cut()
    frames = [t for _ in plans for t in range(length)]
    looks = [p.look for p in plans for _ in range(length)]
    canvas.image_k3hw = apply_optics(apply_colours(canvas.image_k3hw, looks, frames), looks, generator)
    canvas.surround()
    image_k3hw = (canvas.image_k3hw * 255).round_().to(torch.uint8)
    shape = (len(plans), length)
    return Clips(*(t.unflatten(0, shape) for t in (image_k3hw, canvas.owner_khw, canvas.place_kgg4)))


class _Canvas:
    """The frames of all clips, one after the other (k = n * T + t), as they are painted: from the back to the front."""

    def __init__(self, plans: Sequence[ClipPlan], size: int, device: torch.device) -> None:
        self.plans, self.size, self.length = plans, size, len(plans[0].frames_t)
        view_k23 = np.concatenate([p.view_t23 for p in plans])
        at_khw2 = _places(view_k23, np.concatenate([p.bend_t2hw for p in plans]), size, device)
        videos = [p.video for p in plans for _ in p.frames_t]
        frames = [int(t) for p in plans for t in p.frames_t]
        self.image_k3hw, self.owner_khw = _seen(list(zip(videos, frames, strict=True)), at_khw2)
        still_k = torch.tensor([float(p.still) for p in plans for _ in p.frames_t], device=device)
        known_khw = _within(videos, at_khw2) * still_k[:, None, None]
        self.place_kgg4 = _material(known_khw, at_khw2, view_k23)

    def lay(self, depth: int) -> None:
        """Lay the things at one depth, one a clip, over its frames, with soft edges."""
        rows = [
            (n * self.length + t, p.layers[depth], t)
            for n, p in enumerate(self.plans)
            if depth < len(p.layers)
            for t in np.flatnonzero(p.layers[depth].shown_t).tolist()
        ]
        if not rows:
            return
        picks, layers, times = [k for k, _, _ in rows], [layer for _, layer, _ in rows], [t for _, _, t in rows]
        map_k23 = np.stack([layer.place_t23[t] for layer, t in zip(layers, times, strict=True)])
        bend_k2hw = np.stack([layer.bend_t2hw[t] for layer, t in zip(layers, times, strict=True)])
        at_khw2 = _places(map_k23, bend_k2hw, self.size, self.image_k3hw.device)
        picture, ids = _seen([(layer.video, layer.frame) for layer in layers], at_khw2)
        picture = apply_colours(picture, [layer.look for layer in layers], times)
        cover_khw = _cover(layers, ids, at_khw2, _scales(map_k23))
        mine_khw = cover_khw > 0.5
        self.image_k3hw[picks] = torch.lerp(self.image_k3hw[picks], picture, cover_khw[:, None])
        self.owner_khw[picks] = torch.where(mine_khw, torch.full_like(ids, FLYING + depth), self.owner_khw[picks])
        code_k = torch.tensor([ALIKE if layer.alike else 2.0 + depth for layer in layers], device=at_khw2.device)
        place_kgg4 = _material(code_k[:, None, None].expand_as(cover_khw), at_khw2, map_k23)
        self.place_kgg4[picks] = torch.where(_middles(mine_khw)[..., None], place_kgg4, self.place_kgg4[picks])

    def cut(self) -> None:
        """Let the last frame of some clips show something else."""
        for n, p in enumerate(self.plans):
            if p.cut:
                last = n * self.length + self.length - 1
                self.image_k3hw[last], self.owner_khw[last] = _elsewhere(*p.cut, self.size), 0
                self.place_kgg4[last] = UNKNOWN

    def surround(self) -> None:
        """Black out what an endoscope's round field of view hides, and its objects with it."""
        fields = [(n, p.field_t4) for n, p in enumerate(self.plans) if p.field_t4 is not None]
        if not fields:
            return
        rows = [n * self.length + t for n, _ in fields for t in range(self.length)]
        field = torch.from_numpy(np.concatenate([field_t4 for _, field_t4 in fields])).to(self.image_k3hw.device)
        at = (torch.arange(self.size, device=field.device) + 0.5) / self.size
        x = (at[None, None, :] - field[:, 0, None, None]) / field[:, 2, None, None]
        y = (at[None, :, None] - field[:, 1, None, None]) / field[:, 3, None, None]
        seen_khw = x**2 + y**2 < 1
        self.image_k3hw[rows] = torch.where(seen_khw[:, None], self.image_k3hw[rows], 0.02)
        self.owner_khw[rows] *= seen_khw.to(torch.uint8)
        self.place_kgg4[rows] *= _middles(seen_khw)[..., None]


def _middles(t_khw: Tensor) -> Tensor:
    """What is in the middle of each cell."""
    return t_khw[:, CELL // 2 :: CELL, CELL // 2 :: CELL]


def _scales(map_k23: Float32) -> Float32:
    """Source pixels per output pixel."""
    return np.sqrt(np.abs(np.linalg.det(map_k23[:, :, :2]))).astype(np.float32)


def _material(code_khw: Tensor, at_khw2: Tensor, map_k23: Float32) -> Tensor:
    """Of the middle of each cell: which thing, where in its texture, and how many texture pixels a cell is wide."""
    code, at = _middles(code_khw), _middles(at_khw2)
    wide_k = torch.from_numpy(_scales(map_k23) * CELL).to(at)
    return torch.stack((code.to(at), at[..., 0], at[..., 1], wide_k[:, None, None].expand_as(code)), -1)


def _places(map_k23: Float32, bend_k2hw: Float32, size: int, device: torch.device) -> Tensor:
    """The place in the source, in pixels, that each output pixel shows: [k, S, S, 2]."""
    map_k23t, bend = torch.from_numpy(map_k23).to(device), torch.from_numpy(bend_k2hw).to(device)
    y_hw, x_hw = torch.meshgrid(*2 * [torch.arange(size, device=device, dtype=torch.float32)], indexing="ij")
    xy1_n3 = torch.stack((x_hw, y_hw, torch.ones_like(x_hw)), -1).view(1, -1, 3)
    at_khw2 = (xy1_n3 @ map_k23t.transpose(1, 2)).view(len(map_k23t), size, size, 2)
    bent = [k for k in range(len(bend_k2hw)) if bend_k2hw[k].any()]
    if bent:
        shift = F.interpolate(bend[bent], size=(size, size), mode="bicubic", align_corners=True)
        at_khw2[bent] += shift.permute(0, 2, 3, 1)
    return at_khw2


def _seen(views: Sequence[tuple[Video, int]], at_khw2: Tensor) -> tuple[Tensor, Tensor]:
    """Frames of videos at places in them: pictures [k, 3, S, S] in 0..1, and ids uint8 [k, S, S]."""
    sizes = torch.tensor([v.size_wh for v, _ in views], device=at_khw2.device, dtype=torch.float32)
    width, height = (max(v.size_wh[axis] for v, _ in views) for axis in (0, 1))
    source_k4hw = at_khw2.new_zeros(len(views), 4, height, width)
    for k, (video, t) in enumerate(views):
        w, h = video.size_wh
        source_k4hw[k, :3, :h, :w] = video.image_t3hw[t]
        source_k4hw[k, 3, :h, :w] = video.ids_thw[t]
    last_k112 = (sizes - 1)[:, None, None]
    # A mirror of period 2 * last, folded: |x| runs up, and what is beyond the far edge runs back.
    folded = last_k112 - (at_khw2.abs() % (2 * last_k112) - last_k112).abs()
    grid_khw2 = folded / torch.tensor([width - 1, height - 1], device=at_khw2.device) * 2 - 1
    picture = F.grid_sample(source_k4hw[:, :3], grid_khw2, mode="bilinear", align_corners=True)
    ids = F.grid_sample(source_k4hw[:, 3:], grid_khw2, mode="nearest", align_corners=True)
    return picture.mul_(1 / 255), ids[:, 0].to(torch.uint8)


def _cover(layers: Sequence[Layer], ids_khw: Tensor, at_khw2: Tensor, scale_k: Float32) -> Tensor:
    """How much of each pixel a thing covers, 0..1."""
    device, cover_khw = at_khw2.device, torch.empty_like(at_khw2[..., 0])
    cut = [k for k, layer in enumerate(layers) if layer.outline is None]
    if cut:
        wanted_k = torch.tensor([layers[k].object_id for k in cut], device=device)
        inside_khw = (ids_khw[cut] == wanted_k[:, None, None]) & _within([layers[k].video for k in cut], at_khw2[cut])
        cover_khw[cut] = F.avg_pool2d(inside_khw.float(), 3, 1, 1)
    drawn = [k for k, layer in enumerate(layers) if layer.outline is not None]
    if drawn:
        centre = torch.tensor([layers[k].centre_xy for k in drawn], device=device)[:, None, None]
        reach = torch.tensor([layers[k].reach for k in drawn], device=device)[:, None, None]
        value = inside([o for k in drawn if (o := layers[k].outline)], (at_khw2[drawn] - centre) / reach[..., None])
        steep = reach / torch.from_numpy(scale_k[drawn]).to(device)[:, None, None]  # output pixels a unit
        cover_khw[drawn] = (0.5 - value * steep).clamp(0, 1)
    return cover_khw


def _within(videos: Sequence[Video], at_khw2: Tensor) -> Tensor:
    """Where a place is inside its video's picture, and not in a mirror image of it."""
    last = torch.tensor([video.size_wh for video in videos], device=at_khw2.device)[:, None, None] - 1
    return ((at_khw2 >= 0) & (at_khw2 <= last)).all(-1)


def _elsewhere(video: Video, frame: int, size: int) -> Tensor:
    whole = F.interpolate(video.image_t3hw[frame][None].float(), size=(size, size), mode="bilinear", antialias=True)
    return whole[0] / 255
