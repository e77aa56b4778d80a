"""What light and camera do to a clip: colours, gamma, an uneven lamp, haze, blur, noise; the same from end to end."""

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


@dataclass(frozen=True, slots=True)
class Look:
    """`colour_cc` mixes channels (gain, tint, saturation, swaps), `flicker_t` is the light's gain on each frame.

    `lamp` is (x, y, falloff): how much darker it is a picture's width away from a place. `haze` is how much of it is
    white, `blur` in pixels, `noise` as a share of full scale.
    """

    colour_cc: Float32
    gamma: float
    flicker_t: Float32
    lamp: tuple[float, float, float] = (0.5, 0.5, 0.0)
    haze: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


def draw_look(rng: Rng, length: int, calm: bool = False) -> Look:
    """A look; a `calm` one changes colours only, as the look of one thing among others does."""
    gain = np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.15))
    saturation = 0.0 if rng.random() < 0.25 else float(np.exp(rng.normal(0, 0.3)))
    mix = saturation * np.eye(3) + (1 - saturation) * np.array([LUMA] * 3)
    if not saturation and rng.random() < 0.7:
        gain[:] = gain.mean()
    elif rng.random() < 0.15:
        mix = mix[rng.permutation(3)]
    colour = (gain[:, None] * mix).astype(np.float32)
    gamma = float(np.exp(rng.normal(0, 0.2 if calm else 0.25)))
    if calm:
        return Look(colour, gamma, np.ones(length, np.float32))
    return Look(
        colour,
        gamma,
        np.exp(rng.normal(0, 0.03, length)).astype(np.float32),
        (float(rng.uniform(0, 1)), float(rng.uniform(0, 1)), float(max(0.0, rng.normal(0.1, 0.3)))),
        float(max(0.0, rng.normal(-0.15, 0.2))),
        float(rng.uniform(0.5, 1.3)) if rng.random() < 0.2 else 0.0,
        float(abs(rng.normal(0, 0.015))) if rng.random() < 0.5 else 0.0,
    )


def apply_colours(image_k3hw: Tensor, looks: Sequence[Look], frame_k: Sequence[int]) -> Tensor:
    """Colours, gamma and flicker of the look of each picture; [k, 3, H, W] in 0..1, as it was and as it is."""
    device = image_k3hw.device
    flicker_k = np.array([look.flicker_t[t] for look, t in zip(looks, frame_k, strict=True)], np.float32)
    colour_kcc = torch.from_numpy(np.stack([look.colour_cc for look in looks]) * flicker_k[:, None, None]).to(device)
    gamma_k = torch.tensor([look.gamma for look in looks], device=device)
    mixed = torch.bmm(colour_kcc, image_k3hw.flatten(2)).view_as(image_k3hw)
    return mixed.clamp_(1e-4, 1).pow_(gamma_k[:, None, None, None])


def apply_optics(image_k3hw: Tensor, looks: Sequence[Look], generator: torch.Generator) -> Tensor:
    """Lamp, haze, blur and noise of the look of each picture."""
    device, size = image_k3hw.device, image_k3hw.shape[-1]
    lamp_k3 = torch.tensor([look.lamp for look in looks], device=device)
    haze_k = torch.tensor([look.haze for look in looks], device=device)[:, None, None, None]
    noise_k = torch.tensor([look.noise for look in looks], device=device)[:, None, None, None]
    at = (torch.arange(size, device=device) + 0.5) / size
    far_khw = (at[None, :, None] - lamp_k3[:, 1, None, None]) ** 2 + (
        at[None, None, :] - lamp_k3[:, 0, None, None]
    ) ** 2
    image = image_k3hw * (1 / (1 + lamp_k3[:, 2, None, None] * 2 * far_khw))[:, None]
    image = image * (1 - haze_k) + 0.75 * haze_k
    for k, look in enumerate(looks):
        if look.blur:
            image[k] = _blurred(image[k], look.blur)
    if any(look.noise for look in looks):
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
