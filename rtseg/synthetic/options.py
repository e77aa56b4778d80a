"""The contents of a synthetic scene: instruments, tissue, and the strength of each effect.

Everything can be set. `draw` chooses at random, with frequencies that make a varied training set: some scenes are clean
and calm, others have every effect.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

import numpy as np

from ..base.errors import ConfigError

MOST_TOOLS = 4


class ToolKind(Enum):
    """The kind of an instrument, which decides the shape of its end."""

    GRASPER = "grasper"
    SCISSORS = "scissors"
    HOOK = "hook"
    NEEDLE_DRIVER = "needle driver"
    SUCTION = "suction"
    TROCAR = "trocar"  # from inside: a wide sleeve through the abdominal wall


class Site(Enum):
    """Which organs lie in view."""

    GALLBLADDER = "gallbladder"
    BOWEL = "bowel"
    PELVIS = "pelvis"
    STOMACH = "stomach"
    WALL = "abdominal wall"
    PALE = "pale"  # porcine tissue in robotic cameras: bright, low in contrast


@dataclass(frozen=True)
class Options:
    """The contents of a scene. A strength is from 0 (absent) to 1; the defaults are a clean, calm scene.

    `surround`: the radius of the endoscope's bright circle in short sides of the picture (0.5 touches two edges), or
    None for a picture without one. `ConfigError` for a value out of range.
    """

    tools: tuple[ToolKind, ...] = (ToolKind.GRASPER, ToolKind.SCISSORS)
    site: Site = Site.GALLBLADDER
    alike: bool = False  # all instruments look the same
    swap: bool = False  # an instrument that left may be replaced by one that looks the same, with another id
    robotic: bool = False  # large instruments with articulated wrists, from the lower corners
    grey: bool = False  # a camera without colour
    interlaced: bool = False  # odd lines are captured 1/50 s later
    surround: float | None = 0.7
    pace: float = 0.4  # of the instruments
    contact: float = 0.6  # how strongly instruments pull tissue
    breathing: float = 0.4
    sway: float = 0.3  # slow motion of the hand that holds the camera
    shake: float = 0.1  # fast motion of that hand
    zoom: float = 0.2
    shadow: float = 0.6
    specular: float = 0.6
    smoke: float = 0.0
    bleeding: float = 0.0
    drops: float = 0.0  # of water, on the lens
    fog: float = 0.0  # on the lens, from its rim
    smear: float = 0.0  # on the lens: grease, in a streak
    exposure: float = 0.0  # drift of the automatic exposure
    grading: float = 0.3  # how far white balance, saturation and gamma are from neutral
    noise: float = 0.15
    blur: float = 0.3  # of lens and sensor
    compression: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.tools) <= MOST_TOOLS:
            raise ConfigError(f"endoscope options: {len(self.tools)} tools; expected 1 to {MOST_TOOLS}")
        if self.surround is not None and not 0.3 <= self.surround <= 2:
            raise ConfigError(f"endoscope options: surround={self.surround}; expected None or a radius from 0.3 to 2")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "float" and not 0 <= value <= 1:
                raise ConfigError(f"endoscope options: {item.name}={value}; expected a strength from 0 to 1")

    @classmethod
    def draw(cls, seed: int) -> Options:
        """Random options, from a seed."""
        rng = np.random.default_rng((seed, 0))
        hard = float(rng.choice([0.0, 0.5, 1.0], p=[0.3, 0.45, 0.25]))  # number and strength of effects

        def sometimes(chance: float, low: float = 0.2) -> float:
            there, strength = rng.random() < chance * hard, rng.uniform(low, 0.5 + 0.5 * hard)
            return float(strength) if there else 0.0

        robotic = bool(rng.random() < 0.4)
        grey, bare, alike = rng.random(3) < ((0.45, 0.9, 0.45) if robotic else (0.04, 0.35, 0.3))
        return cls(
            tools=_draw_tools(rng, robotic, bool(alike)),
            site=_draw_site(rng, robotic),
            alike=bool(alike),
            swap=bool(alike and rng.random() < 0.6),
            robotic=robotic,
            grey=bool(grey),
            interlaced=bool(rng.random() < 0.12 * hard),
            surround=None if bare else float(rng.uniform(0.48, 0.9)),
            pace=float(rng.uniform(0.1, 1.0)),
            contact=float(rng.uniform(0.3, 1.0)),
            breathing=float(rng.uniform(0.1, 1.0)),
            sway=float(rng.uniform(0.1, 0.5 + 0.5 * hard)),
            shake=float(rng.uniform(0.0, 0.2 + 0.5 * hard)),
            zoom=float(rng.uniform(0.0, 0.3 + 0.7 * hard)),
            shadow=float(rng.uniform(0.2, 1.0)),
            specular=float(rng.uniform(0.1, 1.0)),
            smoke=sometimes(0.4),
            bleeding=sometimes(0.4),
            drops=sometimes(0.25),
            fog=sometimes(0.2),
            smear=sometimes(0.25),
            exposure=sometimes(0.6),
            grading=float(rng.uniform(0.1, 1.0)),
            noise=float(rng.beta(1.3, 4)) * (0.4 + 0.6 * hard) + (0.1 if grey else 0.02),
            blur=float(rng.uniform(0.1, 0.6 + 0.4 * hard)),
            compression=sometimes(0.7, 0.3),
        )


def _draw_tools(rng: np.random.Generator, robotic: bool, alike: bool) -> tuple[ToolKind, ...]:
    count = int(rng.choice([1, 2, 3, 4], p=[0.15, 0.5, 0.25, 0.1]))
    kinds = list(ToolKind)
    weights = [0.5, 0.15, 0.02, 0.3, 0.02, 0.01] if robotic else [0.42, 0.15, 0.13, 0.11, 0.12, 0.07]
    drawn = [kinds[int(k)] for k in rng.choice(len(kinds), count, p=weights)]
    return tuple(drawn[:1] * count if alike else drawn)


def _draw_site(rng: np.random.Generator, robotic: bool) -> Site:
    sites = list(Site)
    weights = [0.1, 0.12, 0.14, 0.12, 0.12, 0.4] if robotic else [0.3, 0.2, 0.17, 0.15, 0.12, 0.06]
    return sites[int(rng.choice(len(sites), p=weights))]
