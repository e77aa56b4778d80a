"""Random appearance of an instrument, from a seed. Lengths are in widths of its shaft."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .noise import Rng
from .options import ToolKind

Rgb = tuple[float, float, float]

# Insulation black to grey, bare steel, the blues, greens, whites and violets of disposable instruments.
SHEATHS: tuple[Rgb, ...] = (
    (26, 26, 30), (38, 38, 42), (58, 58, 62), (92, 92, 96), (150, 152, 156), (176, 178, 182), (196, 190, 180),
    (46, 70, 120), (96, 120, 160), (60, 110, 96), (206, 206, 202), (118, 92, 150), (122, 108, 88), (30, 32, 44),
)  # fmt: skip
METALS: tuple[Rgb, ...] = (
    (150, 152, 156),
    (178, 180, 184),
    (118, 118, 122),
    (84, 82, 84),
    (196, 176, 140),
    (140, 148, 160),
)
MARKS: tuple[Rgb, ...] = ((228, 228, 224), (18, 18, 20), (190, 192, 196), (210, 176, 60), (60, 110, 190), (176, 44, 40))


@dataclass(frozen=True)
class Jaw:
    """One jaw: length, thickness at its root, taper (tip / root), bend, window, teeth."""

    length: float
    thick: float
    taper: float = 0.6
    hook: float = 0.0
    window: float = 0.0  # share of the jaw's length that is open
    teeth: int = 0
    overlap: float = 0.0  # blades pass each other
    insert: bool = False  # a pad of another metal along the inner edge


@dataclass(frozen=True)
class Look:
    """One instrument. `width` is in units of the picture's short side."""

    kind: ToolKind
    width: float
    wrist: float
    jaw: Jaw
    sheath: Rgb
    metal: Rgb
    articulated: bool
    gloss: float
    gain: float
    taper: float  # how much wider the shaft is one unit further from the tip
    rings: tuple[tuple[float, float, Rgb], ...]  # distance from the shaft's end, breadth, colour
    label: bool
    blood: float

    @property
    def reach(self) -> float:
        """The distance from the shaft's end to the tip, in units of the picture's short side."""
        return (self.wrist + self.jaw.length) * self.width


def _pick(rng: Rng, colours: tuple[Rgb, ...]) -> Rgb:
    red, green, blue = colours[int(rng.integers(len(colours)))]
    lift = rng.uniform(0.85, 1.15)
    return red * lift, green * lift, blue * lift


def _draw_jaw(rng: Rng, kind: ToolKind, robotic: bool) -> Jaw:
    short = 0.55 if robotic else 1.0  # a robot's shaft is wide compared with its jaws
    if kind is ToolKind.SCISSORS:
        return Jaw(
            rng.uniform(2.0, 3.2) * short, rng.uniform(0.32, 0.44), 0.12, rng.choice([0.0, 0.12, 0.2]), overlap=0.12
        )
    if kind is ToolKind.NEEDLE_DRIVER:
        return Jaw(
            rng.uniform(1.4, 2.1) * short, rng.uniform(0.42, 0.52), 0.55, rng.choice([0.0, 0.05]), 0.0, 9, insert=True
        )
    if kind is ToolKind.HOOK:
        return Jaw(rng.uniform(1.6, 2.6) * short, rng.uniform(0.16, 0.26), hook=rng.uniform(0.4, 0.75))
    if kind is ToolKind.SUCTION:
        return Jaw(rng.uniform(1.5, 3.5) * short, rng.uniform(0.7, 0.95))
    if kind is ToolKind.TROCAR:
        return Jaw(rng.uniform(0.35, 0.8), 1.12)
    length, thick = rng.uniform(1.9, 3.6) * short, rng.uniform(0.36, 0.56)
    style = rng.random()
    if style < 0.3:  # fenestrated
        return Jaw(length, 1.15 * thick, 0.7, rng.choice([0.0, 0.06]), rng.uniform(0.35, 0.6), int(rng.integers(4, 9)))
    if style < 0.5:  # a frame that is mostly open, as of robotic fenestrated forceps
        return Jaw(length, 1.4 * thick, 0.85, 0.0, rng.uniform(0.65, 0.8), int(rng.integers(0, 7)))
    if style < 0.75:  # dissector
        return Jaw(length, thick, 0.3, rng.uniform(0.12, 0.3), 0.0, int(rng.integers(6, 12)))
    return Jaw(length, thick, 0.6, 0.0, 0.0, int(rng.integers(5, 12)))


def _draw_rings(rng: Rng) -> tuple[tuple[float, float, Rgb], ...]:
    """Marks around the shaft: none, a few, or a regular scale."""
    style, colour = rng.random(), _pick(rng, MARKS)
    if style < 0.3:
        return ()
    if style < 0.5:
        pitch = rng.uniform(0.8, 1.8)
        return tuple((1.2 + pitch * k, 0.10, colour) for k in range(9))
    places = 0.8 + rng.uniform(0.3, 1.4) * (1 + rng.random(int(rng.integers(1, 4)))).cumsum()
    return tuple((float(place), float(rng.uniform(0.06, 0.7)), _pick(rng, MARKS)) for place in places)


def draw_look(rng: Rng, kind: ToolKind, robotic: bool) -> Look:
    """The random look of an instrument of one kind."""
    width = rng.uniform(0.09, 0.24) if robotic else rng.uniform(0.035, 0.105)
    if kind is ToolKind.TROCAR:
        width = rng.uniform(0.12, 0.25)
    if kind in (ToolKind.SUCTION, ToolKind.TROCAR, ToolKind.HOOK):
        wrist, articulated = rng.uniform(0.15, 0.6), False
    else:
        wrist, articulated = (rng.uniform(0.9, 1.5), True) if robotic else (rng.uniform(0.4, 1.1), rng.random() < 0.25)
    sheath = _pick(rng, SHEATHS[:3] if robotic and rng.random() < 0.75 else SHEATHS)
    return Look(
        kind=kind,
        width=float(width),
        wrist=float(wrist),
        jaw=_draw_jaw(rng, kind, robotic),
        sheath=sheath,
        metal=_pick(rng, METALS),
        articulated=bool(articulated),
        gloss=float(rng.uniform(0.1, 1.0)),
        gain=float(
            rng.choice([rng.uniform(0.45, 0.85), rng.uniform(0.85, 1.2), rng.uniform(1.2, 2.1)], p=[0.25, 0.5, 0.25])
        ),
        taper=float(rng.uniform(0.1, 0.6)),
        rings=_draw_rings(rng),
        label=bool(rng.random() < 0.4),
        blood=float(max(0.0, rng.uniform(-1.2, 0.9))),
    )


def draw_looks(rng: Rng, kinds: tuple[ToolKind, ...], robotic: bool, alike: bool) -> list[Look]:
    """Looks of a scene's instruments; `alike`: they differ only in the blood on them."""
    if not alike:
        return [draw_look(child, kind, robotic) for child, kind in zip(rng.spawn(len(kinds)), kinds, strict=True)]
    one = draw_look(rng, kinds[0], robotic)
    return [replace(one, kind=one.kind, blood=one.blood * rng.uniform(0.5, 1.3)) for _ in kinds]
