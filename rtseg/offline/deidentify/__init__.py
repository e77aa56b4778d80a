"""De-identification of what a run writes: pictures from outside the body, burned-in text, names. A heuristic."""

from .deidentify import LOOK_AHEAD, NOTE, WHAT, Deidentify

__all__ = ["LOOK_AHEAD", "NOTE", "WHAT", "Deidentify"]
