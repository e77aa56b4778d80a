"""The settings of an evaluation: protocol, prompts, corruption, memory policy and tolerance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..base.errors import ConfigError, did_you_mean
from ..engine.policy import get_policy
from .corrupt import CORRUPTIONS, LEVELS
from .metrics.surface import TOLERANCE
from .prompting import DRAWN, PROMPTS
from .protocols import PROTOCOLS, Patience

PATIENCE = Patience()
EVERY, LEVEL = 25, 3  # defaults: frames between prompts, and the level of a corruption
# Settings that are for these protocols only.
ONLY = {
    "every": ("every",),
    "clicks": ("interactive", "image"),
    "frames": ("interactive",),
    "slices": ("forward", "backward", "both"),
}


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        listed = "" if hint.startswith("expected") else f" expected one of: {', '.join(known)}"
        raise ConfigError(f"{name} {value!r}: no such {name}; {hint}{listed}")


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """The settings of an evaluation. Raises `ConfigError` for values that are not valid or do not fit together.

    `protocol` is one of `PROTOCOLS`, `prompt` one of `PROMPTS`. `every` is a number of frames (None: 25), for the
    protocol of that name. For `interactive`, `clicks` is their number on each corrected frame and `frames` the number
    of frames that are prompted or corrected (None: as in `Patience`); for `image`, `clicks` is their number after the
    prompt (None: 0). `slices` are the prompted slices of volumes; if empty, the one on which each object is largest.
    `corruption` is one of `CORRUPTIONS`, with `level` 1 to 5 (None: 3). `policy` None is the recipe's. `tolerance` is
    that of surface Dice, in mm if a sequence has a spacing, else in pixels. A setting that does not apply to the
    protocol is an error.
    """

    protocol: str = "video"
    prompt: str = "mask"
    every: int | None = None
    clicks: int | None = None
    frames: int | None = None
    slices: tuple[int, ...] = ()
    corruption: str | None = None
    level: int | None = None
    seed: int = 0
    policy: str | None = None
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        for name, known in (("protocol", PROTOCOLS), ("prompt", PROMPTS)):
            _choice(name, getattr(self, name), known)
        if self.corruption is not None:
            _choice("corruption", self.corruption, tuple(CORRUPTIONS))
        if self.policy is not None:
            get_policy(self.policy)
        if (self.protocol, self.prompt) == ("image", "mask"):
            raise ConfigError("prompt 'mask' is the answer itself where each image stands alone; use box or points-1")
        if self.level is not None and self.level not in LEVELS:
            raise ConfigError(f"level = {self.level}; expected 1 to 5")
        least = {"every": 1, "frames": 1, "clicks": 0, "seed": 0, "tolerance": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} = {value}; expected {low} or more")
        for name, protocols in ONLY.items():
            if getattr(self, name) not in (None, ()) and self.protocol not in protocols:
                which = " or ".join(protocols)
                raise ConfigError(f"{name}: is for the protocol {which}, not for {self.protocol!r}; leave it out")
        if self.level is not None and self.corruption is None:
            raise ConfigError("level: is that of a corruption, and there is none; choose one, or leave it out")


def asked(settings: EvaluationSettings) -> dict[str, Any]:
    """The settings that apply, as JSON values: `every` only with its protocol, a level only with a corruption, etc.

    So two evaluations with the same meaning have equal values, however their settings were written.
    """
    matters = {
        **{name: settings.protocol in protocols for name, protocols in ONLY.items()},
        "level": settings.corruption is not None,
        "seed": settings.corruption is not None or settings.prompt in DRAWN,
    }
    values = {
        **asdict(settings),
        "every": settings.every or EVERY,
        "clicks": clicks_of(settings),
        "frames": settings.frames or PATIENCE.frames,
        "slices": list(settings.slices),
        "level": settings.level or LEVEL,
    }
    return {name: value for name, value in values.items() if matters.get(name, True)}


def clicks_of(settings: EvaluationSettings) -> int:
    """How many clicks a frame gets, with the default of the protocol."""
    if settings.clicks is not None:
        return settings.clicks
    return PATIENCE.clicks if settings.protocol == "interactive" else 0
