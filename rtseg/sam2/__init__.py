"""What the network is: SAM 2 in plain torch modules, its presets, its weights. Knows nothing above it."""

from .network import ABSENT_LOGIT, CLAMP_LOGIT, MEAN, STD, Sam2, certain, upsample
from .presets import PRESETS, Preset, get_preset
from .values import Candidates, Decoded, Features, Prompts, Recall, Remembered
from .weights import load_weights, save_weights

__all__ = [
    "ABSENT_LOGIT", "CLAMP_LOGIT", "MEAN", "PRESETS", "STD", "Candidates", "Decoded", "Features", "Preset", "Prompts",
    "Recall", "Remembered", "Sam2", "certain", "get_preset", "load_weights", "save_weights", "upsample",
]  # fmt: skip
