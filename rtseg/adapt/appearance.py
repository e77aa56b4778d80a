"""Photometric augmentation: color, gamma, uneven light, haze, blur and noise. Only flicker changes within a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.types import Float32
from .motion import Rng

LUMA = (0.299, 0.587, 0.114)
GREY = 0.3  # probability that a clip is grey, as some endoscopes' recordings are


@dataclass(frozen=True, slots=True)
class Appearance:
    """The photometric augmentation of one clip or of one pasted object.

    `color_cc` mixes channels (gain, tint, saturation, permutation). `flicker_t` is the brightness gain of each frame.
    `light` is (x, y, falloff): a light source at (x, y) in image widths, and how fast it darkens with the distance.
    `haze` is the share of white that is mixed in, `blur` a standard deviation in pixels, `noise` one as a share of full
    scale.
    """

    color_cc: Float32
    gamma: float
    flicker_t: Float32
    light: tuple[float, float, float] = (0.5, 0.5, 0.0)
    haze: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


def unchanged(length: int) -> Appearance:
    """The appearance that changes nothing."""
    return Appearance(np.eye(3, dtype=np.float32), 1.0, np.ones(length, np.float32))


def sample_appearance(rng: Rng, length: int, color_only: bool = False) -> Appearance:
    """A random appearance for `length` frames. `color_only` leaves out the effects of light and camera."""
    gain = np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.18))
    kind = rng.random()
    if kind < GREY:
        mix = np.array([rng.dirichlet(20 * np.array(LUMA))] * 3)  # a camera's own idea of grey
        if rng.random() < 0.7:
            gain[:] = gain.mean()
    else:
        saturation = float(np.exp(rng.normal(0, 0.4)))
        mix = saturation * np.eye(3) + (1 - saturation) * np.array([LUMA] * 3)
        if kind < GREY + 0.12:
            mix = mix[rng.permutation(3)]
        elif kind < GREY + 0.3:
            mix = _hue_turned(float(rng.uniform(-1, 1))) @ mix
        elif kind < GREY + 0.5:
            mix = mix + rng.normal(0, 0.12, (3, 3))
            mix /= mix.sum(1, keepdims=True)
    color = (gain[:, None] * mix).astype(np.float32)
    gamma = float(np.exp(rng.normal(0, 0.2 if color_only else 0.3)))
    if color_only:
        return Appearance(color, gamma, np.ones(length, np.float32))
    return Appearance(
        color,
        gamma,
        np.exp(rng.normal(0, 0.03, length)).astype(np.float32),
        (float(rng.uniform(0, 1)), float(rng.uniform(0, 1)), float(max(0.0, rng.normal(0.1, 0.3)))),
        float(max(0.0, rng.normal(-0.15, 0.2))),
        float(rng.uniform(0.5, 2.0)) if rng.random() < 0.25 else 0.0,
        float(abs(rng.normal(0, 0.015))) if rng.random() < 0.5 else 0.0,
    )


def _hue_turned(angle: float) -> np.ndarray:
    """The matrix [3, 3] that turns colours about the grey axis by `angle` radians (Rodrigues)."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turned = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(turned, np.float64)


def apply_color(image_k3hw: Tensor, appearances: Sequence[Appearance], frame_k: Sequence[int]) -> Tensor:
    """Apply color, gamma and flicker to images [k, 3, H, W] in 0..1.

    `appearances` holds one appearance per image, `frame_k` the number of its frame in the clip.
    """
    device = image_k3hw.device
    flicker_k = np.array([one.flicker_t[t] for one, t in zip(appearances, frame_k, strict=True)], np.float32)
    color_kcc = torch.from_numpy(np.stack([one.color_cc for one in appearances]) * flicker_k[:, None, None]).to(device)
    gamma_k = torch.tensor([one.gamma for one in appearances], device=device)
    mixed = torch.bmm(color_kcc, image_k3hw.flatten(2)).view_as(image_k3hw)
    return mixed.clamp_(1e-4, 1).pow_(gamma_k[:, None, None, None])


def apply_optics(image_k3hw: Tensor, appearances: Sequence[Appearance], generator: torch.Generator) -> Tensor:
    """Apply light falloff, haze, blur and noise to images [k, 3, H, W] in 0..1, one appearance per image."""
    device, size = image_k3hw.device, image_k3hw.shape[-1]
    light_k3 = torch.tensor([one.light for one in appearances], device=device)
    haze_k = torch.tensor([one.haze for one in appearances], device=device)[:, None, None, None]
    noise_k = torch.tensor([one.noise for one in appearances], device=device)[:, None, None, None]
    at = (torch.arange(size, device=device) + 0.5) / size
    squared_khw = (at[None, :, None] - light_k3[:, 1, None, None]) ** 2 + (
        at[None, None, :] - light_k3[:, 0, None, None]
    ) ** 2
    image = image_k3hw * (1 / (1 + light_k3[:, 2, None, None] * 2 * squared_khw))[:, None]
    image = image * (1 - haze_k) + 0.75 * haze_k
    for k, one in enumerate(appearances):
        if one.blur:
            image[k] = _blurred(image[k], one.blur)
    if any(one.noise for one in appearances):
        grain = torch.randn(image.shape, generator=generator, device=device)
        image = image + noise_k * grain
    return image.clamp_(0, 1)


def _blurred(image_3hw: Tensor, sigma: float) -> Tensor:
    reach = int(np.ceil(2.5 * sigma))
    at = torch.arange(-reach, reach + 1, device=image_3hw.device)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(image_3hw[:, None], (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1))[:, 0]
