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

from ..types import Float32
from .look import apply_colours, apply_optics
from .material import Video
from .plan import FLYING, ClipPlan, Layer
from .shapes import inside


@dataclass(frozen=True, slots=True)
class Clips:
    """`image_nt3hw` uint8 [N, T, 3, S, S]; `owner_nthw` uint8 [N, T, S, S]: the id of what is visible, 0 for none."""

    image_nt3hw: Tensor
    owner_nthw: Tensor


def compose(plans: Sequence[ClipPlan], size: int, generator: torch.Generator) -> Clips:
    """Render clips of one length. `generator` makes the noise, and says on which device."""
    device, length = generator.device, len(plans[0].frames_t)
    views = [(p.video, int(t)) for p in plans for t in p.frames_t]
    at_khw2 = _places(
        np.concatenate([p.view_t23 for p in plans]), np.concatenate([p.bend_t2hw for p in plans]), size, device
    )
    image_k3hw, owner_khw = _seen(views, at_khw2)
    for depth in range(max(len(p.layers) for p in plans)):
        rows = [
            (n * length + t, p.layers[depth], t)
            for n, p in enumerate(plans)
            if depth < len(p.layers)
            for t in np.flatnonzero(p.layers[depth].shown_t).tolist()
        ]
        if rows:
            _lay(image_k3hw, owner_khw, rows, FLYING + depth, size)
    for n, p in enumerate(plans):
        if p.cut:
            last = n * length + length - 1
            image_k3hw[last], owner_khw[last] = _elsewhere(*p.cut, size), 0
    frames = [t for _ in plans for t in range(length)]
    looks = [p.look for p in plans for _ in range(length)]
    image_k3hw = apply_optics(apply_colours(image_k3hw, looks, frames), looks, generator)
    _surround(image_k3hw, owner_khw, plans, length)
    shape = (len(plans), length)
    return Clips((image_k3hw * 255).round_().to(torch.uint8).unflatten(0, shape), owner_khw.unflatten(0, shape))


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
    width, height = (int(n) for n in sizes.amax(0))
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


def _lay(image_k3hw: Tensor, owner_khw: Tensor, rows: list[tuple[int, Layer, int]], owner: int, size: int) -> None:
    """Lay one thing over each of some pictures, in place, with a soft edge."""
    device = image_k3hw.device
    picks, layers, times = [k for k, _, _ in rows], [layer for _, layer, _ in rows], [t for _, _, t in rows]
    place_k23 = np.stack([layer.place_t23[t] for _, layer, t in rows])
    at_khw2 = _places(place_k23, np.stack([layer.bend_t2hw[t] for _, layer, t in rows]), size, device)
    picture, ids = _seen([(layer.video, layer.frame) for layer in layers], at_khw2)
    picture = apply_colours(picture, [layer.look for layer in layers], times)
    cover_khw = torch.empty_like(at_khw2[..., 0])
    cut = [k for k, layer in enumerate(layers) if layer.outline is None]
    if cut:
        wanted_k = torch.tensor([layers[k].object_id for k in cut], device=device)
        within = _within([layers[k] for k in cut], at_khw2[cut])
        cover_khw[cut] = F.avg_pool2d(((ids[cut] == wanted_k[:, None, None]) & within).float(), 3, 1, 1)
    drawn = [k for k, layer in enumerate(layers) if layer.outline is not None]
    if drawn:
        centre = torch.tensor([layers[k].centre_xy for k in drawn], device=device)[:, None, None]
        reach = torch.tensor([layers[k].reach for k in drawn], device=device)[:, None, None]
        value = inside([o for k in drawn if (o := layers[k].outline)], (at_khw2[drawn] - centre) / reach[..., None])
        scale_k = np.sqrt(np.abs(np.linalg.det(place_k23[drawn][:, :, :2])))
        steep = reach / torch.from_numpy(scale_k.astype(np.float32)).to(device)[:, None, None]  # output pixels a unit
        cover_khw[drawn] = (0.5 - value * steep).clamp(0, 1)
    image_k3hw[picks] = torch.lerp(image_k3hw[picks], picture, cover_khw[:, None])
    owner_khw[picks] = torch.where(cover_khw > 0.5, torch.full_like(ids, owner), owner_khw[picks])


def _within(layers: Sequence[Layer], at_khw2: Tensor) -> Tensor:
    """Where a place is inside its video's picture: a cut-out has no mirror image."""
    last = torch.tensor([layer.video.size_wh for layer in layers], device=at_khw2.device)[:, None, None] - 1
    return ((at_khw2 >= 0) & (at_khw2 <= last)).all(-1)


def _elsewhere(video: Video, frame: int, size: int) -> Tensor:
    whole = F.interpolate(video.image_t3hw[frame][None].float(), size=(size, size), mode="bilinear", antialias=True)
    return whole[0] / 255


def _surround(image_k3hw: Tensor, owner_khw: Tensor, plans: Sequence[ClipPlan], length: int) -> None:
    """Black out, in place, what an endoscope's round field of view hides, and its objects with it."""
    rows = [n * length + t for n, p in enumerate(plans) if p.field_t4 is not None for t in range(length)]
    if not rows:
        return
    field_k4 = np.concatenate([p.field_t4 for p in plans if p.field_t4 is not None])
    field = torch.from_numpy(field_k4).to(image_k3hw.device)
    size = image_k3hw.shape[-1]
    at = (torch.arange(size, device=field.device) + 0.5) / size
    x = (at[None, None, :] - field[:, 0, None, None]) / field[:, 2, None, None]
    y = (at[None, :, None] - field[:, 1, None, None]) / field[:, 3, None, None]
    seen_khw = x**2 + y**2 < 1
    image_k3hw[rows] = torch.where(seen_khw[:, None], image_k3hw[rows], image_k3hw[rows] * 0.0 + 0.02)
    owner_khw[rows] *= seen_khw.to(torch.uint8)
