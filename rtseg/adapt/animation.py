"""Stills become clips: some objects of a picture move by themselves, over what may have been behind them.

An object that reaches the picture's edge, such as an instrument, turns about the place where it enters and moves in and
out along its own direction, so that its cut end stays near the edge.
"""

from __future__ import annotations

import numpy as np
import torch

from ..base.types import Float32
from .appearance import unchanged
from .inpaint import filled
from .motion import Motion, Rng, affine, deformation, excursion, invert, random_walk
from .pasted import PastedObject, entry_of, object_region
from .training_video import TrainingVideo

MOST = 2  # objects of one picture that move; others stay
MOST_COVERED = 0.4  # share of the picture that may be made up


def animate(
    rng: Rng, still: TrainingVideo, frame: int, view_t23: Float32, leave: float, motion: Motion
) -> tuple[TrainingVideo, list[PastedObject]]:
    """The background, and the objects that move over it, seen by a camera (`view_t23`, source to output pixels).

    None moves if the picture shows none, or if they are too large. The others stay in the background.
    """
    moving: list[int] = []
    for i in rng.permutation(still.large(frame)).tolist()[: int(rng.integers(1, MOST + 1))]:
        if still.areas_ti[frame, [*moving, i]].sum() < MOST_COVERED:
            moving.append(i)
    if not moving:
        return still, []
    ids_hw = still.ids_thw[frame]
    hole_hw = torch.isin(ids_hw, torch.tensor(moving, dtype=torch.uint8, device=ids_hw.device))
    shift = rng.choice([-1, 1], 2) * rng.uniform(0.2, 0.5, 2) * np.array(ids_hw.shape)
    image_3hw = filled(still.image_t3hw[frame], hole_hw, (int(shift[0]), int(shift[1])))
    background = TrainingVideo(still.name, image_3hw[None], ids_hw.masked_fill(hole_hw, 0)[None])
    moved = [_moved(rng, still, frame, i, view_t23, leave, motion) for i in moving]
    return background, moved


def _moved(
    rng: Rng,
    still: TrainingVideo,
    frame: int,
    object_id: int,
    view_t23: Float32,
    leave: float,
    motion: Motion,
) -> PastedObject:
    """One object of a picture on a path of its own."""
    length, region = len(view_t23), object_region(still, frame, object_id)
    center, anchor = np.array(region.center_xy), entry_of(still, frame, object_id)
    away = center - anchor if anchor is not None else rng.normal(0, 1, 2)
    away = away / max(float(np.linalg.norm(away)), 1e-6)
    along_t, across_t = (random_walk(rng, length, motion.shift) for _ in range(2))
    if anchor is not None:
        along_t, across_t = -np.abs(along_t), 0.3 * across_t
    if length > 1 and rng.random() < leave:
        along_t = along_t - 2.2 * region.radius / min(still.size_wh) * excursion(rng, length)
    shift_t2 = min(still.size_wh) * (along_t[:, None] * away + across_t[:, None] * np.array([-away[1], away[0]]))
    angle_t = random_walk(rng, length, motion.rotation)
    zoom_t = np.exp(random_walk(rng, length, motion.zoom))
    pivot = center if anchor is None else anchor
    path_t23 = np.stack(
        [
            _after(view_23, affine((pivot[0], pivot[1]), (x, y), (z, z), float(a)))
            for view_23, (x, y), a, z in zip(view_t23, pivot + shift_t2, angle_t, zoom_t, strict=True)
        ]
    )
    spread = float(rng.choice([0.0, 0.0, 0.01])) * region.radius
    return PastedObject(
        still, frame, object_id, None, region.center_xy, region.radius, invert(path_t23),
        deformation(rng, length, spread), np.ones(length, bool), unchanged(length),
    )  # fmt: skip


def _after(second_23: Float32, first_23: Float32) -> Float32:
    """The map that applies one affine map after another."""
    return np.column_stack([second_23[:, :2] @ first_23[:, :2], second_23[:, :2] @ first_23[:, 2] + second_23[:, 2]])
