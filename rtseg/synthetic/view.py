"""One moment of a scene as a value: the display list that both renderers draw, at any size and aspect.

Lengths are in units of the picture's short side, x to the right and y down from the picture's middle. Whatever is
smooth (where tissue is sampled, light, smoke, ...) is one `field` of `NODES` x `NODES` nodes over the square from -1 to
1, so a picture may be up to twice as long as it is wide; beyond, the field's border goes on.
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
    """What a pixel of a tool belongs to; the values of `parts_hw`, where 0 is no tool."""

    SHAFT = 1
    WRIST = 2
    TIP = 3  # jaws, hook, or the mouth of a tube


class Channel(IntEnum):
    """The channels of `View.field_hwc`."""

    U = 0  # where tissue is sampled: column and row of its texture
    V = 1
    LIGHT = 2  # of the lamp; 1 shows a texture as it was painted
    SPARKLE = 3  # how near the lamp's mirror image is, 0 to 255: glossy tissue glints there
    GAIN = 4  # by which smoke, fog and exposure dim all that is seen
    VEIL = 5  # what smoke and fog add, of the view's `veil_rgb`
    HAZE = 6  # how much of the picture is blurred by what is on the lens, 0 to 1
    BLOOD = 7  # how deep tissue lies under blood; above 0 it is covered


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A rigid painted piece. Its texture is uint8 [h, w, 4], opaque where alpha (bilinear) is above 127.

    `place` [2, 3] maps a texture's (column, row) to units. `id` 0 is tissue that lies over the tools drawn before: the
    texture says where, tissue itself is seen.
    """

    texture: int
    place: Place
    id: int
    part: int
    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Glint:
    """A round highlight that moves over one tool: centre, radius (standard deviation), strength in levels, tool."""

    x: float
    y: float
    radius: float
    strength: float
    id: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """Of the tools on tissue: how far it falls beside them, how soft it is (units), how dark (0 to 1)."""

    dx: float = 0.0
    dy: float = 0.0
    softness: float = 0.02
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Water on the lens: it shows what is around its centre upside down and `power` times smaller."""

    x: float
    y: float
    radius: float
    power: float
    opacity: float


@dataclass(frozen=True, slots=True)
class Surround:
    """The bright circle of an endoscope: centre and radius in units, and the width of its rim's fall-off."""

    x: float
    y: float
    radius: float
    softness: float


@dataclass(frozen=True, slots=True)
class Sensor:
    """What the camera does last: blur (standard deviation, pixels), noise (whole levels), JPEG quality (None: none)."""

    blur: float = 0.5
    noise: int = 0
    noise_shift: tuple[int, int] = (0, 0)
    grey: bool = False
    quality: int | None = None


@dataclass(frozen=True, slots=True, eq=False)  # it is itself: what is kept for it is found by identity
class Textures:
    """A scene's textures, painted once: the tissue, uint8 [H, W, 4] (colour, gloss), and the tools' pieces."""

    tissue_hwc: ImageU8
    pieces: tuple[ImageU8, ...]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A moment. `sprites` lie over each other in their order; `later` is what odd lines show, if interlaced."""

    seconds: float
    paint: Textures = field(repr=False)
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
    """A drawn view: uint8 [H, W, 3] RGB; at each pixel the id of the visible tool, and its `Part`, uint8 [H, W]."""

    image_hwc: ImageU8
    ids_hw: ImageU8
    parts_hw: ImageU8
