"""One moment of a scene as a value: the display list that both renderers draw, at any size and aspect.

Lengths are in units of the picture's short side, x to the right and y down from the picture's centre. Everything smooth
(sampling positions of tissue, light, smoke, ...) is one field of `NODES` x `NODES` nodes over the square from -1 to 1,
enough for an aspect ratio of 2; beyond, its border is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ..base.types import Float32, ImageU8

NODES = 65
Place = npt.NDArray[np.float64]


class Part(IntEnum):
    """The part of an instrument that a pixel belongs to: the values of `parts_hw`, where 0 is no instrument."""

    SHAFT = 1
    WRIST = 2
    TIP = 3  # jaws, hook, or the mouth of a tube


class Channel(IntEnum):
    """The channels of `View.field_hwc`."""

    U = 0  # where tissue is sampled: column and row of its texture
    V = 1
    LIGHT = 2  # of the lamp; 1 shows a texture as painted
    SPARKLE = 3  # specular reflection of the lamp, 0 to 255, on glossy tissue
    GAIN = 4  # factor by which smoke, fog and exposure change all brightness
    VEIL = 5  # how much of the view's `veil_rgb` smoke and fog add
    HAZE = 6  # how much fog and grease on the lens blur the picture, 0 to 1
    BLOOD = 7  # depth of blood over tissue; above 0 it is covered


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A rigid painted piece. Its texture is uint8 [h, w, 4], opaque where alpha (bilinear) is above 127.

    `place` [2, 3] maps a texture's (column, row) to units. `id` 0 is a fold of tissue over the instruments drawn
    before: the texture gives its shape, and the tissue map its colour.
    """

    texture: int
    place: Place
    id: int
    part: int
    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Glint:
    """A round highlight on one instrument: centre, radius (standard deviation), strength in levels, object id."""

    x: float
    y: float
    radius: float
    strength: float
    id: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """The shadow of the instruments on tissue: offset and softness (units), darkness (0 to 1)."""

    dx: float = 0.0
    dy: float = 0.0
    softness: float = 0.02
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Water on the lens. It shows its surroundings upside down and `power` times smaller."""

    x: float
    y: float
    radius: float
    power: float
    opacity: float


@dataclass(frozen=True, slots=True)
class Surround:
    """The bright circle of an endoscope: centre and radius in units, and the width of its soft rim."""

    x: float
    y: float
    radius: float
    softness: float


@dataclass(frozen=True, slots=True)
class Sensor:
    """The camera's sensor: blur (standard deviation, pixels), noise (levels), JPEG quality (None: not compressed)."""

    blur: float = 0.5
    noise: int = 0
    noise_shift: tuple[int, int] = (0, 0)
    grey: bool = False
    quality: int | None = None


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: renderers cache what they derive from it
class Textures:
    """A scene's textures: the tissue map, uint8 [H, W, 4] (colour, gloss), and the pieces of instruments."""

    tissue_hwc: ImageU8
    pieces: tuple[ImageU8, ...]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A moment of a scene. Later `sprites` cover earlier ones; `later`: the view of the odd lines, if interlaced."""

    seconds: float
    textures: Textures = field(repr=False)
    field_hwc: Float32 = field(repr=False)
    sprites: tuple[Sprite, ...] = ()
    glints: tuple[Glint, ...] = ()
    shadow: Shadow = Shadow()
    drops: tuple[Drop, ...] = ()
    shine: float = 1.0
    tint_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blood_rgb: tuple[float, float, float] = (120.0, 10.0, 12.0)
    veil_rgb: tuple[float, float, float] = (200.0, 200.0, 200.0)
    surround: Surround | None = None
    sensor: Sensor = Sensor()
    later: View | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A rendered view: RGB uint8 [H, W, 3]; ids of the visible instruments and their `Part`s, uint8 [H, W] each."""

    image_hwc: ImageU8
    ids_hw: ImageU8
    parts_hw: ImageU8
