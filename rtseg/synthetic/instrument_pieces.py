"""Paints the rigid pieces of an instrument: shaft, label, wrist and tip, each along +x with its pin at the origin.

Coordinates are in widths of the shaft: the shaft ends at x = 0, the wrist's far pin is at x = `look.wrist`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32, ImageU8
from .grade import Grade
from .looks import Jaw, Look
from .metal import Piece, Plate, add_blood, bevel, metal, tube
from .noise import Rng
from .options import ToolKind

LABEL_HALF = 0.22  # half the height of a label, in widths
SHAFT = 2.3  # units: long enough to reach the border from any position of the tip
TUBES = (ToolKind.SUCTION, ToolKind.TROCAR)


@dataclass(frozen=True, eq=False)
class Body:
    """The pieces of an instrument. `jaws`: two that open, or one."""

    look: Look
    shaft: Piece
    label: Piece | None
    wrist: Piece
    jaws: tuple[Piece, ...]


def _shaft(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    """A tube, slightly wider away from the tip, with its marks; half the resolution is enough along its axis."""
    length = SHAFT / look.width
    plate = Plate(-length, 0.0, 0.5 * (1 + look.taper * SHAFT), look.width, (detail / 2, detail))
    x_w, y_h = plate.grid()
    half_w = 0.5 * (1 - look.taper * x_w * look.width)
    across_hw = y_h / half_w
    streaks_hw = plate.streaks(rng)
    facing_hw = tube(across_hw)
    colour_hwc = metal(look.sheath, facing_hw, streaks_hw, look.gloss)
    end = 0.0 if look.kind is ToolKind.TROCAR else rng.uniform(0.1, 0.6)
    for place, breadth, rgb in (*look.rings, (0.5 * end, end, look.metal)):
        ring_w = np.abs(x_w[0] + place) < breadth / 2
        colour_hwc[:, ring_w] = metal(rgb, facing_hw[:, ring_w], streaks_hw[:, ring_w], look.gloss)
    groove_w = np.abs(x_w[0] + end) < max(0.05, 0.7 / plate.scale[0])
    colour_hwc[:, groove_w] *= 0.35
    add_blood(rng, plate, colour_hwc, look.blood - 0.1)
    alpha_hw = np.clip((1 - np.abs(across_hw)) * half_w * plate.scale[1] + 0.5, 0, 1) * (
        (x_w > -length) & (x_w <= 0.04)
    )
    return plate.piece(colour_hwc, (255 * alpha_hw).astype(np.uint8), grade)


def _label(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    """Print on the shaft: dashes and a bar."""
    plate = Plate(-0.9, 0.9, LABEL_HALF, look.width, (detail, detail))
    x_w, y_h = plate.grid()
    light = sum(look.sheath) < 300
    alpha_hw = np.zeros(plate.shape, np.uint8)
    for x in np.arange(-0.8, 0.75, 0.22):
        if rng.random() < 0.8:
            alpha_hw[(np.abs(x_w - x) < rng.uniform(0.04, 0.09)) & (np.abs(y_h) < rng.uniform(0.08, 0.16))] = 255
    alpha_hw[(np.abs(y_h + 0.19) < 0.02) & (np.abs(x_w) < 0.8)] = 255
    colour_hwc = np.full((*plate.shape, 3), 200.0 if light else 30.0, np.float32)
    return plate.piece(colour_hwc, alpha_hw, grade)


def _capsule(x0: float, x1: float, radius0: float, radius1: float) -> Float32:
    """The outline of a rod with round ends, points [N, 2]."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 12)
    front = np.stack([x1 + radius1 * np.cos(turn), radius1 * np.sin(turn)], 1)
    back = np.stack([x0 - radius0 * np.cos(turn), -radius0 * np.sin(turn)], 1)
    return np.concatenate([front, back]).astype(np.float32)


def _disc(colour_hwc: Float32, plate: Plate, x: float, y: float, radius: float, factor: float) -> None:
    """Draw a bolt or a hole, in place: a disc, lighter or darker by a factor, with a dark rim."""
    x_w, y_h = plate.grid()
    away_hw = np.sqrt((x_w - x) ** 2 + (y_h - y) ** 2) / radius
    colour_hwc[away_hw < 1] *= factor
    colour_hwc[np.abs(away_hw - 1) < 0.16] *= 0.4


def _wrist(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    """The joint between shaft and tip: a robotic clevis, a plain collar, or part of a trocar's sleeve."""
    plate = Plate(-0.5, look.wrist + 0.6, 0.6, look.width, (detail, detail))
    x_w, y_h = plate.grid()
    streaks_hw = plate.streaks(rng)
    if look.kind is ToolKind.TROCAR:
        box = [(-0.3, -0.5), (look.wrist, -0.55), (look.wrist, 0.55), (-0.3, 0.5)]
        sleeve_hwc = metal(look.sheath, tube(y_h / 0.54 + 0 * x_w), streaks_hw, look.gloss)
        return plate.piece(sleeve_hwc, plate.fill(np.array(box, np.float32)), grade)
    if look.articulated:
        return _clevis(rng, look, plate, grade)
    alpha_hw = plate.fill(_capsule(0.0, look.wrist, 0.3, 0.5 if look.kind is ToolKind.SUCTION else 0.36))
    facing_hw = 0.5 * tube(y_h / 0.5 + 0 * x_w) + 0.5 * bevel(alpha_hw, 0.16 * plate.scale[1])
    colour_hwc = metal(look.metal, facing_hw, streaks_hw, look.gloss)
    if look.kind is not ToolKind.SUCTION:
        _disc(colour_hwc, plate, look.wrist, 0.0, rng.uniform(0.10, 0.2), 1.2)
    add_blood(rng, plate, colour_hwc, look.blood)
    return plate.piece(colour_hwc, alpha_hw, grade)


def _clevis(rng: Rng, look: Look, plate: Plate, grade: Grade) -> Piece:
    """A forked link with cables, pulleys and facets, different for each scene."""
    x_w, y_h = plate.grid()
    waist, end = rng.uniform(0.3, 0.46, 2)
    neck = rng.uniform(0.25, 0.7) * look.wrist
    rear, front = _capsule(0.0, neck, rng.uniform(0.36, 0.48), waist), _capsule(neck, look.wrist, waist, end)
    holes: tuple[Float32, ...] = ()
    if rng.random() < 0.4:  # tissue shows between its prongs
        gap = rng.uniform(0.06, 0.14)
        far = look.wrist - rng.uniform(0.22, 0.3)
        holes = (np.array([(neck, -gap), (far, -gap), (far, gap), (neck, gap)], np.float32),)
    alpha_hw = plate.fill(rear, front, holes=holes)
    facing_hw = 0.5 * tube(y_h / 0.5 + 0 * x_w) + 0.5 * bevel(alpha_hw, rng.uniform(0.08, 0.25) * plate.scale[1])
    colour_hwc = metal(look.metal, facing_hw, plate.streaks(rng), look.gloss)
    for y in rng.uniform(-0.34, 0.34, int(rng.integers(0, 4))):  # cables
        colour_hwc[(np.abs(y_h - y) < 0.03) & (x_w > 0.15 * look.wrist)] *= 0.35
    for _ in range(int(rng.integers(2, 6))):  # facets and cuts
        x, y = rng.uniform(0, look.wrist), rng.uniform(-0.35, 0.35)
        long, broad = rng.uniform(0.05, 0.35), rng.uniform(0.03, 0.16)
        colour_hwc[(np.abs(x_w - x) < long) & (np.abs(y_h - y) < broad)] *= rng.choice([0.25, 0.5, 1.3, 1.6])
    if not holes and rng.random() < 0.5:
        slot = rng.uniform(0.06, 0.16)
        colour_hwc[(np.abs(y_h) < slot) & (x_w > neck) & (x_w < look.wrist)] *= 0.25
    for x in (0.02, look.wrist, *rng.uniform(0.2, 1.0, int(rng.integers(0, 3))) * look.wrist):  # pins and pulleys
        _disc(
            colour_hwc,
            plate,
            x,
            0.0 if x in (0.02, look.wrist) else rng.uniform(-0.2, 0.2),
            rng.uniform(0.09, 0.22),
            1.25,
        )
    add_blood(rng, plate, colour_hwc, look.blood)
    return plate.piece(colour_hwc, alpha_hw, grade)


def _jaw_outline(jaw: Jaw) -> tuple[Float32, tuple[Float32, ...], Float32]:
    """The upper jaw's outline, its holes, and its inner edge; the jaw opens towards -y."""
    t = np.linspace(0, 1, 1 + 4 * max(jaw.teeth, 5))
    bend = -jaw.hook * jaw.length * t**2
    bite = (0.10 * jaw.thick * (np.arange(len(t)) % 4 < 2) if jaw.teeth else 0.0) * (t > 0.25)
    thick = jaw.thick * (1 - (1 - jaw.taper) * t) * np.sqrt(np.clip((1.03 - t) / 0.15, 0, 1))
    inner = np.stack([t * jaw.length, bend - bite + jaw.overlap * (t > 0.1)], 1)
    outer = np.stack([t * jaw.length, bend - thick], 1)
    turn = np.linspace(0.5 * np.pi, 1.5 * np.pi, 9)
    root = jaw.thick / 2 + 0.06
    hub = np.stack([root * np.cos(turn), root * np.sin(turn) - 0.1 * jaw.thick], 1)
    outline = np.concatenate([inner, outer[::-1], hub[::-1]]).astype(np.float32)
    if not jaw.window:
        return outline, (), inner.astype(np.float32)
    s = np.linspace(0.5 - 0.46 * jaw.window, 0.5 + 0.58 * jaw.window, 10).clip(0.1, 0.9)
    open_ = 0.28 + 0.1 * jaw.window
    middle, half = (
        -jaw.hook * jaw.length * s**2 - 0.5 * jaw.thick * (1 - (1 - jaw.taper) * s),
        open_ * jaw.thick * jaw.taper,
    )
    up, down = np.stack([s * jaw.length, middle - half], 1), np.stack([s * jaw.length, middle + half], 1)
    return outline, (np.concatenate([up, down[::-1]]).astype(np.float32),), inner.astype(np.float32)


def _jaw(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    jaw = look.jaw
    half = max(1.1 * jaw.thick + abs(jaw.hook) * jaw.length, 0.3)
    plate = Plate(-0.5 * jaw.thick - 0.1, jaw.length + 0.1, half, look.width, (detail, detail))
    outline, holes, inner = _jaw_outline(jaw)
    alpha_hw = plate.fill(outline, holes=holes)
    facing_hw = bevel(alpha_hw, 0.3 * jaw.thick * plate.scale[1])
    colour_hwc = metal(look.metal, facing_hw, plate.streaks(rng), look.gloss)
    if jaw.insert:
        pad = np.concatenate([inner, (inner - (0.0, 0.3 * jaw.thick))[::-1]])
        gold_hw = plate.fill(pad.astype(np.float32)) > 127
        x_w, _ = plate.grid()
        hatch_hw = 0.8 + 0.35 * ((x_w * 9 % 1) > 0.5) + 0 * facing_hw
        colour_hwc[gold_hw] = (np.array((206, 172, 104), np.float32) * (facing_hw * hatch_hw)[..., None])[gold_hw]
    if look.articulated:
        _disc(colour_hwc, plate, 0.0, 0.0, 0.16, 1.2)
    add_blood(rng, plate, colour_hwc, look.blood + 0.15 * (look.blood > 0))
    return plate.piece(colour_hwc, alpha_hw, grade)


def _hook(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    """A bent wire in a ceramic collar."""
    length, radius, rise = look.jaw.length, look.jaw.thick / 2, look.jaw.hook
    plate = Plate(-0.1, length + 0.3, rise + 0.4, look.width, (detail, detail))
    x_w, y_h = plate.grid()
    line = np.array([(0, 0), (0.8 * length, 0), (0.96 * length, -0.25 * rise), (length, -rise)])
    points = np.round((line * plate.scale + plate.pin) * 16).astype(np.int32)
    alpha_hw = np.zeros(plate.shape, np.uint8)
    cv2.polylines(alpha_hw, [points], False, 255, max(2, round(2 * radius * plate.scale[1])), cv2.LINE_AA, 4)
    collar = _capsule(0.0, rng.uniform(0.2, 0.45) * length, 0.05, 0.75 * radius + 0.16)
    collar_hw = plate.fill(collar)
    alpha_hw = np.maximum(alpha_hw, collar_hw)
    facing_hw = bevel(alpha_hw, radius * plate.scale[1])
    colour_hwc = metal(look.metal, facing_hw, plate.streaks(rng), look.gloss)
    ceramic = ((226, 220, 206), (180, 190, 200), (70, 66, 64))[int(rng.integers(3))]
    own_hw = collar_hw > 127
    colour_hwc[own_hw] = metal(ceramic, tube(y_h / 0.3 + 0 * x_w), 0 * facing_hw, 0.3)[own_hw]
    add_blood(rng, plate, colour_hwc, look.blood)
    return plate.piece(colour_hwc, alpha_hw, grade)


def _mouth(rng: Rng, look: Look, detail: float, grade: Grade) -> Piece:
    """The end of a tube: suction with holes in its sides, or a trocar's slanted sleeve."""
    length, radius = look.jaw.length, look.jaw.thick / 2
    slant = 0.45 * radius if look.kind is ToolKind.TROCAR else 0.0
    plate = Plate(-0.2, length + 0.4 * radius + slant, radius + 0.06, look.width, (detail, detail))
    x_w, y_h = plate.grid()
    turn = np.linspace(-np.pi / 2, np.pi / 2, 16)
    front = np.stack([length - slant * np.sin(turn) + 0.32 * radius * np.cos(turn), radius * np.sin(turn)], 1)
    alpha_hw = plate.fill(np.concatenate([front, [(-0.15, radius), (-0.15, -radius)]]).astype(np.float32))
    rgb = look.sheath if look.kind is ToolKind.TROCAR else look.metal
    colour_hwc = metal(rgb, tube(y_h / radius + 0 * x_w), plate.streaks(rng), look.gloss)
    lip_hw = np.hypot((x_w - length + slant * y_h / radius) / (0.32 * radius), y_h / radius)
    colour_hwc[lip_hw < 1] *= 1.15
    colour_hwc[lip_hw < 0.82] = (26, 8, 8)
    if look.kind is ToolKind.SUCTION:
        for k in range(int(rng.integers(0, 6))):
            _disc(colour_hwc, plate, length - 0.5 - 0.45 * k, rng.uniform(-0.5, 0.5) * radius, 0.11, 0.12)
    add_blood(rng, plate, colour_hwc, look.blood)
    return plate.piece(colour_hwc, alpha_hw, grade)


def _flip(piece: Piece) -> Piece:
    texture_hwc = np.ascontiguousarray(piece.texture_hwc[::-1])
    return Piece(texture_hwc, (piece.pin[0], len(texture_hwc) - 1 - piece.pin[1]), piece.per_unit)


def paint_body(rng: Rng, look: Look, detail: float, grade: Grade) -> Body:
    """Paint all pieces of an instrument, at `detail` pixels a unit."""
    shaft_rng, label_rng, wrist_rng, tip_rng = rng.spawn(4)
    jaws: tuple[Piece, ...]
    if look.kind is ToolKind.HOOK:
        jaws = (_hook(tip_rng, look, detail, grade),)
    elif look.kind in TUBES:
        jaws = (_mouth(tip_rng, look, detail, grade),)
    else:
        jaw = _jaw(tip_rng, look, detail, grade)
        jaws = (jaw, _flip(jaw))
    label = _label(label_rng, look, detail, grade) if look.label else None
    shaft, wrist = _shaft(shaft_rng, look, detail, grade), _wrist(wrist_rng, look, detail, grade)
    return Body(look, shaft, label, wrist, jaws)


def paint_flap(rng: Rng, detail: float) -> Piece:
    """The shape of a fold of tissue that covers a tip, without colour; about 0.1 units in radius."""
    plate = Plate(-0.13, 0.13, 0.13, 1.0, (detail, detail))
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.uniform(0, 0.16) / k * np.sin(k * turn + rng.uniform(0, 6)) for k in (2, 3, 5, 7))
    radius = 0.1 * (1 + waves)
    outline = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
    blank_hwc: ImageU8 = np.zeros((*plate.shape, 3), np.uint8)
    return Piece(np.dstack([blank_hwc, plate.fill(outline.astype(np.float32))]), plate.pin, plate.detail)
