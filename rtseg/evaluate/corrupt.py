"""Corruptions of an endoscope's picture at five levels: smoke, blood, blur, glare, compression, exposure.

Each is a pure function of (picture, kind, level, seed, frame). From frame to frame smoke drifts and changes, blood
stays on the lens, glints stay on wet tissue, and camera shake keeps its direction for a while. Sizes are fractions of
the picture's height, so that a level means the same at 480p and at 1080p. A higher level with the same seed is more of
the same: thicker smoke, but not another cloud.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ..base.errors import ConfigError, did_you_mean
from ..base.types import Float32, ImageU8
from ..data.dataset import Sequence

LEVELS = (1, 2, 3, 4, 5)
Complex64 = npt.NDArray[np.complex64]

SMOKE = (0.15, 0.30, 0.45, 0.60, 0.75)  # mean opacity
SMOKE_RGB = (206, 204, 202)  # scattered xenon light: nearly white
BLOOD = (0.07, 0.14, 0.23, 0.34, 0.46)  # the share of the picture that is covered
BLOOD_ABSORBS = (0.8, 2.6, 2.4)  # absorption of R, G and B per unit of thickness: haemoglobin lets red through
BLOOD_RGB = (58, 3, 4)  # the light that a thick layer scatters back
DEFOCUS = (0.003, 0.006, 0.010, 0.016, 0.024)  # radius of the circle of confusion
SHAKE = (0.010, 0.020, 0.035, 0.055, 0.085)  # how far the picture moves while the shutter is open
GLARE = (0.006, 0.014, 0.028, 0.050, 0.085)  # the share of the picture that is overexposed, before bloom
JPEG = (25, 18, 15, 10, 7)  # quality, as in ImageNet-C (Hendrycks and Dietterich, 2019)
DARK = (-0.7, -1.4, -2.1, -2.9, -3.8)  # exposure, in stops
BRIGHT = (0.4, 0.8, 1.2, 1.7, 2.3)
GAMMA = 2.2  # from a picture's values to light
BLACK = 12  # the largest value, of 255, outside the endoscope's round view
GRID = 96  # rows of the grid on which smoke and blood are made: they are smooth, so it can be coarse


def corrupted(sequence: Sequence, kind: str, level: int, seed: int) -> Sequence:
    """The sequence with its pictures corrupted when they are read. Each sequence has its own clouds and drops.

    Raises `ConfigError` for an unknown kind or level.
    """
    _check(kind, level)
    own = zlib.crc32(f"{seed} {sequence.name}".encode())
    return replace(sequence, image=lambda t: corrupt(sequence.image(t), kind, level, own, t))


def corrupt(image_hwc: ImageU8, kind: str, level: int, seed: int = 0, frame: int = 0) -> ImageU8:
    """Corrupt a picture uint8 [H, W, 3] RGB. `ConfigError` unless `kind` is in `CORRUPTIONS` and `level` is 1 to 5."""
    _check(kind, level)
    return CORRUPTIONS[kind](image_hwc, level - 1, seed, frame)


def _check(kind: str, level: int) -> None:
    if kind not in CORRUPTIONS:
        raise ConfigError(f"corruption {kind!r}: no such kind; {did_you_mean(kind, CORRUPTIONS)}")
    if level not in LEVELS:
        raise ConfigError(f"corruption level {level}: expected 1 to 5")


def _smoke(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    """A drifting, changing cloud. It absorbs light, and is lit itself, most in the middle of the view."""
    height, width = image_hwc.shape[:2]
    rows, columns = GRID, max(1, round(GRID * width / height))
    coarse_hw = _cloud(rows, columns, seed, frame, slope=1.7, drift=(0.35, -0.5), boil=0.05)
    fine_hw = _cloud(rows, columns, seed + 1, frame, slope=1.2, drift=(0.6, -0.9), boil=0.10)
    density_hw = np.exp(0.45 * coarse_hw + 0.2 * fine_hw)  # never negative, with dense wisps, like a fluid's
    depth = -math.log(1 - SMOKE[level])
    opacity_hw = 1 - np.exp(-depth * density_hw / density_hw.mean())
    light_hw = 0.72 + 0.28 * _spot(rows, columns)
    veil_hwc = (opacity_hw * light_hw)[..., None] * np.array(SMOKE_RGB, np.float32)
    through_hw = cv2.resize((1 - opacity_hw).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    veil_hwc = cv2.resize(veil_hwc.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    seen_hwc = cv2.multiply(image_hwc, cv2.merge([through_hw] * 3), dtype=cv2.CV_32F)
    return _to_u8(seen_hwc + cv2.multiply(veil_hwc, cv2.merge([_view(image_hwc)] * 3)))


def _blood(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    """Smears and drops on the lens, out of focus. The scene behind them is blurred, and only red gets through."""
    height, width = image_hwc.shape[:2]
    film_hw, through_hwc, glow_hwc = _film(height, width, level, seed)
    small_hwc = cv2.resize(image_hwc, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    soft_hwc = cv2.GaussianBlur(small_hwc, (0, 0), max(0.003 * height, 0.5))
    soft_hwc = cv2.resize(soft_hwc, (width, height), interpolation=cv2.INTER_LINEAR)
    behind_hwc = cv2.blendLinear(image_hwc, soft_hwc, 1 - film_hw, film_hw)
    seen_hwc = cv2.multiply(behind_hwc, through_hwc, dtype=cv2.CV_32F)
    return _to_u8(seen_hwc + cv2.multiply(glow_hwc, cv2.merge([_view(image_hwc)] * 3)))


def _defocus(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    """The picture of a lens out of focus: each point is a disc."""
    return np.asarray(cv2.filter2D(image_hwc, -1, _disc(DEFOCUS[level] * image_hwc.shape[0])), np.uint8)


def _motion(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    """The picture of a camera that moves while the shutter is open, in a direction that turns slowly."""
    phase = np.random.default_rng((seed, 3)).uniform(0, math.tau, 3)
    angle = phase[0] + 1.2 * math.sin(0.11 * frame + phase[1]) + 0.7 * math.sin(0.047 * frame + phase[2])
    return np.asarray(cv2.filter2D(image_hwc, -1, _streak(SHAKE[level] * image_hwc.shape[0], angle)), np.uint8)


def _specular(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    """Wet tissue that reflects the light: the brightest spots are overexposed, with a glow around them."""
    height, width = image_hwc.shape[:2]
    size = (max(1, width // 2), max(1, height // 2))
    light_hw = cv2.cvtColor(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    light_hw, view_hw = light_hw.astype(np.float32), cv2.resize(_view(image_hwc), size)
    window = (2 * (size[1] // 12) + 1,) * 2
    around_hw = cv2.blur(light_hw * view_hw, window) / np.maximum(cv2.blur(view_hw, window), 0.05)
    rows, columns = 2 * GRID, max(1, round(2 * GRID * width / height))
    ripple_hw = cv2.resize(_cloud(rows, columns, seed, frame, slope=0.9, drift=(0.05, 0.08), boil=0.12), size)
    # Relief that faces the light is brighter than its surroundings; ripples move the glints on it.
    relief_hw = (light_hw - around_hw) / (12 + 0.35 * around_hw)
    glint_hw = np.where(view_hw * light_hw > 12, relief_hw + 0.22 * ripple_hw, -9).astype(np.float32)
    least = float(np.quantile(glint_hw[::4, ::4], 1 - GLARE[level]))
    core_hw = np.clip((glint_hw - least) / 0.12 + 0.3, 0, 1)
    bloom_hw = cv2.GaussianBlur(core_hw, (0, 0), max(0.006 * height, 0.5))
    glow_hw = cv2.resize(np.clip(np.maximum(core_hw, 1.1 * bloom_hw), 0, 1), (width, height))
    white_hwc = cv2.merge([glow_hw * np.float32(v) for v in (255, 252, 246)])
    return _to_u8(cv2.multiply(image_hwc, cv2.merge([1 - glow_hw] * 3), dtype=cv2.CV_32F) + white_hwc)


def _jpeg(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    data = cv2.imencode(".jpg", image_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG[level]])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def _dark(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    return _expose(image_hwc, DARK[level])


def _bright(image_hwc: ImageU8, level: int, seed: int, frame: int) -> ImageU8:
    return _expose(image_hwc, BRIGHT[level])


CORRUPTIONS: dict[str, Callable[[ImageU8, int, int, int], ImageU8]] = {
    "smoke": _smoke,
    "blood": _blood,
    "defocus": _defocus,
    "motion": _motion,
    "specular": _specular,
    "jpeg": _jpeg,
    "dark": _dark,
    "bright": _bright,
}


def _expose(image_hwc: ImageU8, stops: float) -> ImageU8:
    """The picture with this many stops more light. Values above white, and below one step of 255, are lost."""
    light = (np.arange(256) / 255) ** GAMMA * 2**stops
    table = np.round(255 * np.clip(light, 0, 1) ** (1 / GAMMA)).astype(np.uint8)
    return np.asarray(cv2.LUT(image_hwc, table), np.uint8)


def _to_u8(image_hwc: npt.NDArray[np.float32]) -> ImageU8:
    return np.asarray(cv2.convertScaleAbs(np.maximum(image_hwc, 0)), np.uint8)


def _cloud(
    rows: int, columns: int, seed: int, frame: int, *, slope: float, drift: tuple[float, float], boil: float
) -> Float32:
    """Smooth noise on a torus, float32 [rows, columns] of unit variance, which changes with the frame.

    `slope`: how fast the spectrum falls; `drift`: motion in cells a frame, to the right and down; `boil`: the phase
    change in radians a frame of a wave of one cell's frequency.
    """
    spectrum_hw, turn_hw, fy_h1, fx_w = _waves(rows, columns, seed, slope)
    phase_hw = frame * (boil * turn_hw - math.tau * (drift[0] * fx_w + drift[1] * fy_h1))
    noise_hw = np.fft.irfft2(spectrum_hw * np.exp(1j * phase_hw), s=(rows, columns))
    return np.asarray(noise_hw / noise_hw.std(), np.float32)


@lru_cache(maxsize=8)
def _waves(rows: int, columns: int, seed: int, slope: float) -> tuple[Complex64, Float32, Float32, Float32]:
    """Amplitudes [rows, columns // 2 + 1] and the phase speed of each; frequencies down [rows, 1] and across."""
    rng = np.random.default_rng((seed, 1))
    fy_h1 = np.fft.fftfreq(rows)[:, None].astype(np.float32)
    fx_w = np.fft.rfftfreq(columns).astype(np.float32)
    frequency_hw = np.hypot(fy_h1, fx_w)
    frequency_hw[0, 0] = 1
    waves_hw = rng.standard_normal(frequency_hw.shape) + 1j * rng.standard_normal(frequency_hw.shape)
    spectrum_hw = (waves_hw / frequency_hw**slope).astype(np.complex64)
    spectrum_hw[0, 0] = 0
    turn_hw = (rng.standard_normal(frequency_hw.shape) * (0.2 + 8 * frequency_hw)).astype(np.float32)
    return spectrum_hw, turn_hw, fy_h1, fx_w


def _view(image_hwc: ImageU8) -> Float32:
    """The endoscope's round view, float32 [H, W] from 1 inside to 0 outside, where the picture stays black.

    It is the convex hull of all pixels that are not black, a little smaller, with a soft edge.
    """
    height, width = image_hwc.shape[:2]
    size = (max(1, width // 4), max(1, height // 4))
    small_hw = cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA).max(axis=2)
    seen_hw = (cv2.medianBlur(small_hw, 5) > BLACK).view(np.uint8)
    if seen_hw.any():
        cv2.fillConvexPoly(seen_hw, cv2.convexHull(cv2.findNonZero(seen_hw)), 1)
    edge = max(1, round(0.004 * height))
    inside_hw = cv2.erode(seen_hw, np.ones((2 * edge + 1,) * 2, np.uint8), borderType=cv2.BORDER_REPLICATE)
    soft_hw = cv2.GaussianBlur(inside_hw.astype(np.float32), (0, 0), 0.5 * edge, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(soft_hw, (width, height)), np.float32)


def _spot(rows: int, columns: int) -> Float32:
    """The endoscope's light, float32 [rows, columns]: 1 in the middle, and less outward."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    reach_hw = np.hypot((x + 0.5) / columns - 0.5, (y + 0.5) / rows - 0.5)
    return np.asarray(np.exp(-3 * reach_hw**2), np.float32)


@lru_cache(maxsize=2)
def _film(height: int, width: int, level: int, seed: int) -> tuple[Float32, Float32, Float32]:
    """Blood on the lens: its coverage [H, W], and the light that it lets through and that it adds, both [H, W, 3]."""
    rows, columns = 2 * GRID, max(1, round(2 * GRID * width / height))
    field_hw = _cloud(rows, columns, seed, 0, slope=1.9, drift=(0, 0), boil=0)
    field_hw += 0.12 * _cloud(rows, columns, seed + 1, 0, slope=1.0, drift=(0, 0), boil=0)  # ragged edges
    deep_hw = np.clip((field_hw - np.quantile(field_hw, 1 - BLOOD[level])) / 0.5, 0, None)
    deep_hw = cv2.resize(deep_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    deep_hw = np.clip(cv2.GaussianBlur(deep_hw, (0, 0), 0.006 * height), 0, 2.5)  # blurred, because it is out of focus
    through_hwc = np.exp(-deep_hw[..., None] * np.array(BLOOD_ABSORBS, np.float32))
    light_hw = cv2.resize(_spot(rows, columns), (width, height)) * (1 - np.exp(-1.5 * deep_hw))
    glow_hwc = light_hw[..., None] * np.array(BLOOD_RGB, np.float32)
    return np.clip(4 * deep_hw, 0, 1), through_hwc, glow_hwc


@lru_cache(maxsize=8)
def _disc(radius: float) -> Float32:
    """A disc of this radius in pixels with a soft edge, as a kernel of sum 1."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel_hw = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return np.asarray(kernel_hw / kernel_hw.sum(), np.float32)


def _streak(length: float, angle: float) -> Float32:
    """A line of this length in pixels, one pixel wide with soft edges, as a kernel of sum 1."""
    reach = math.ceil(length / 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along_hw = np.abs(x * math.cos(angle) + y * math.sin(angle))
    across_hw = np.abs(y * math.cos(angle) - x * math.sin(angle))
    kernel_hw = np.clip(length / 2 + 0.5 - along_hw, 0, 1) * np.clip(1 - across_hw, 0, 1)
    return np.asarray(kernel_hw / kernel_hw.sum(), np.float32)
