"""Intensity windows: the range of a scanner's values that is shown as grey.

CT is in Hounsfield units. Its windows have a width, a level and a customary name (radiopaedia.org, "Windowing (CT)";
that of the abdomen is the one MedSAM and others train with). Other modalities have no units: their window goes from the
0.5th to the 99.5th percentile of the voxels that are not 0, as in MedSAM (Ma et al., arXiv 2304.12306).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..base.errors import ConfigError, did_you_mean
from ..base.types import ImageU8
from .volume import Volume

WINDOWS = {
    "abdomen": (400, 40),
    "bone": (1800, 400),
    "brain": (80, 40),
    "liver": (150, 30),
    "lung": (1500, -600),
    "mediastinum": (350, 50),
}  # width and level
PERCENTILE = "percentile"
PART = (0.5, 99.5)
AIR = -500.0  # a volume with lower values is in Hounsfield units, because other modalities have no negative values
SAMPLES = 1_000_000  # voxels that percentiles are computed from

Limits = tuple[float, float]


def check_window(name: str) -> None:
    """Raise `ConfigError` unless there is a window of this name. "" is valid, and lets the modality decide."""
    if name not in ("", PERCENTILE, *WINDOWS):
        raise ConfigError(f"window {name!r}: unknown; {did_you_mean(name, (*WINDOWS, PERCENTILE))}")


def limits(volume: Volume, modality: int, name: str, is_ct: bool | None) -> Limits:
    """The values shown as black and as white in the window `name`. "" means "abdomen" for CT, else percentiles.

    `is_ct` is whether the modality is CT; None: the values decide.
    """
    stored_lps = volume.stored_lpsm[..., modality]
    step = max(1, round((stored_lps.size / SAMPLES) ** (1 / 3)))
    values = volume.values(stored_lps[::step, ::step, ::step]).ravel()
    if name == "":
        name = "abdomen" if (values.min() < AIR if is_ct is None else is_ct) else PERCENTILE
    if name != PERCENTILE:
        width, level = WINDOWS[name]
        return level - width / 2, level + width / 2
    shown = values[values != 0]
    low, high = np.percentile(shown, PART) if shown.size else (0.0, 0.0)
    return float(low), float(high)


def to_grey(values_hw: npt.NDArray[np.float32], shown: Limits) -> ImageU8:
    """Values as grey, uint8 [H, W], clipped to the limits."""
    low, high = shown
    scale = 255 / (high - low) if high > low else 0.0
    return np.asarray(np.clip((values_hw - low) * scale, 0, 255) + 0.5, np.float32).astype(np.uint8)
