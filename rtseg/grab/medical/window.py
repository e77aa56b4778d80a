"""Intensity windows: the range of a scanner's values that is shown as grey, by a name or as WIDTH/LEVEL.

CT is in Hounsfield units. Its windows have a width, a level and a customary name (radiopaedia.org, "Windowing (CT)";
that of the abdomen is the one MedSAM and others train with). Other modalities have no units: their window goes from the
0.5th to the 99.5th percentile of the voxels that are not 0, as in MedSAM (Ma et al., arXiv 2304.12306).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from ...base.errors import ConfigError, did_you_mean
from ...base.types import ImageU8
from .nifti_file import Volume

WINDOWS = {
    "abdomen": (400, 40),
    "bone": (1800, 400),
    "brain": (80, 40),
    "liver": (150, 30),
    "lung": (1500, -600),
    "mediastinum": (350, 50),
}  # width and level
PERCENTILE = "percentile"
DEFAULT_CT = "abdomen"
PART = (0.5, 99.5)
AIR = -500.0  # a volume with lower values is in Hounsfield units, because other modalities have no negative values
SAMPLES = 1_000_000  # voxels that percentiles are computed from
_GIVEN = re.compile(r"(\d+(?:\.\d+)?)/(-?\d+(?:\.\d+)?)")

Limits = tuple[float, float]


def check_window(name: str) -> None:
    """Raise `ConfigError` unless there is such a window. "" is valid, and lets the modality decide."""
    if name in ("", PERCENTILE, *WINDOWS):
        return
    numbers = _GIVEN.fullmatch(name)
    if numbers and float(numbers[1]) > 0:
        return
    known = did_you_mean(name, (*WINDOWS, PERCENTILE))
    raise ConfigError(f"window {name!r}: unknown; {known}, or WIDTH/LEVEL such as 400/40")


def named_limits(name: str) -> Limits | None:
    """The values shown as black and as white in a window that the values do not decide; None for one that they do."""
    numbers = _GIVEN.fullmatch(name)
    width, level = map(float, numbers.groups()) if numbers else WINDOWS.get(name, (0.0, 0.0))
    return (level - width / 2, level + width / 2) if width else None


def limits(volume: Volume, modality: int, name: str, is_ct: bool | None) -> Limits:
    """The values shown as black and as white in the window `name`. "" means "abdomen" for CT, else percentiles.

    `is_ct` is whether the modality is CT; None: the values decide.
    """
    stored_lps = volume.stored_lpsm[..., modality]
    step = max(1, round((stored_lps.size / SAMPLES) ** (1 / 3)))
    values = volume.values(stored_lps[::step, ::step, ::step]).ravel()
    if name == "" and (values.min() < AIR if is_ct is None else is_ct):
        name = DEFAULT_CT
    return named_limits(name) or percentiles(values[values != 0])


def percentiles(values: npt.NDArray[np.float32]) -> Limits:
    """The limits that leave out the lowest and the highest half per cent of values."""
    low, high = np.percentile(values, PART) if values.size else (0.0, 0.0)
    return float(low), float(high)


def to_grey(values_hw: npt.NDArray[np.float32], shown: Limits) -> ImageU8:
    """Values as grey, uint8 [H, W], clipped to the limits."""
    low, high = shown
    scale = 255 / (high - low) if high > low else 0.0
    return np.asarray(np.clip((values_hw - low) * scale, 0, 255) + 0.5, np.float32).astype(np.uint8)
