"""The synthetic endoscope's instruments: outlines that tell what they are, joints that move and hold, metal, marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from rtseg.synthetic import Options, Part, Picture, Scene, ToolKind, View, render_cv2
from rtseg.synthetic.grade import Grade
from rtseg.synthetic.instrument_pieces import paint_body, paint_flap
from rtseg.synthetic.instruments import Instruments
from rtseg.synthetic.looks import Look, draw_look
from rtseg.synthetic.moves import GRASP, Pose
from rtseg.synthetic.view import NODES, Channel, Sensor, Sprite, Textures

DETAIL = 240
SIZE = (320, 240)
WIDTH = 0.16  # of the shaft, units: wide, so that its tip is seen well
FROM_LEFT = Pose(0, 0.45, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0)  # half open, seen from above
UNMOVED = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
JAWED = (ToolKind.GRASPER, ToolKind.SCISSORS, ToolKind.NEEDLE_DRIVER)
SEEDS = range(6)


def a_look(kind: ToolKind, seed: int = 0, robotic: bool = False) -> Look:
    return replace(draw_look(np.random.default_rng(seed), kind, robotic), width=WIDTH)


def plain(look: Look) -> Look:
    return replace(look, rings=(), label=False, blood=0.0, gain=1.0, sheath=(90.0, 90.0, 90.0), taper=0.0)


def made(look: Look, seed: int = 0) -> Instruments:
    rng = np.random.default_rng(seed)
    return Instruments([paint_body(rng, look, DETAIL, Grade())], paint_flap(rng, DETAIL))


def shown(rack: Instruments, pose: Pose, size: tuple[int, int] = SIZE) -> Picture:
    """An instrument alone, on green, in an even light."""
    field_hwc = np.zeros((NODES, NODES, len(Channel)), np.float32)
    field_hwc[..., [Channel.LIGHT, Channel.GAIN]] = 1
    green_hwc = np.full((8, 8, 4), (0, 90, 0, 0), np.uint8)
    sprites = tuple(rack.sprites(pose, UNMOVED, False))
    return render_cv2(View(0.0, Textures(green_hwc, rack.textures), field_hwc, sprites, sensor=Sensor(blur=0.0)), *size)


# --- outlines


@dataclass(frozen=True)
class Outline:
    """Of a tip that points right, in widths of the shaft."""

    ends: int  # how many there are just before the farthest point
    length: float
    spread: float  # from its uppermost to its lowest pixel
    broad: float  # how much of its middle column is tool
    aside: float  # how far its end lies off the shaft's axis


def outline(look: Look, opening: float = 0.3) -> Outline:
    tip_hw = shown(made(look), replace(FROM_LEFT, opening=opening)).parts_hw == Part.TIP
    columns, rows = np.flatnonzero(tip_hw.any(0)), np.flatnonzero(tip_hw.any(1))
    last, one = columns[-1], WIDTH * DETAIL
    return Outline(
        ends=cv2.connectedComponents(tip_hw[:, last - 3 : last - 1].astype(np.uint8))[0] - 1,
        length=len(columns) / one,
        spread=(rows[-1] - rows[0] + 1) / one,
        broad=float(tip_hw[:, columns[len(columns) // 2]].sum()) / one,
        aside=abs(float(np.nonzero(tip_hw[:, last - 1])[0].mean()) - (SIZE[1] - 1) / 2) / one,
    )


@dataclass(frozen=True)
class Tip:
    """Of one look: half open, and closed."""

    opened: Outline
    closed: Outline

    @property
    def blades(self) -> bool:
        """Whether its halves lie over each other when it closes."""
        return self.opened.ends == 2 and self.closed.broad < 0.85 * self.opened.broad


IS: dict[ToolKind, Callable[[Tip], bool]] = {
    ToolKind.HOOK: lambda tip: tip.opened.ends == 1 and tip.opened.aside > 0.25 and tip.opened.broad < 0.6,
    ToolKind.SUCTION: lambda tip: tip.opened.ends == 1 and tip.opened.aside < 0.1 and 0.6 < tip.opened.broad < 1.08,
    ToolKind.TROCAR: lambda tip: tip.opened.ends == 1 and tip.opened.spread > 1.08 and tip.opened.length < 1.3,
    ToolKind.SCISSORS: lambda tip: tip.blades,
}


@pytest.mark.parametrize("kind", ToolKind)
def test_a_tool_has_the_outline_of_its_kind_and_of_no_other(kind: ToolKind) -> None:
    for seed in SEEDS:
        look = a_look(kind, seed)
        bend = 0.0 if kind in JAWED else look.jaw.hook  # the jaws of a bent pair bend apart
        solid = replace(look, jaw=replace(look.jaw, window=0.0, hook=bend))
        seen = Tip(outline(solid), outline(solid, 0.0))
        named = {other for other, holds in IS.items() if holds(seen)}
        assert named == ({kind} & set(IS)), seen
        assert seen.opened.ends == (2 if kind in JAWED else 1), seen


def test_a_needle_drivers_jaws_are_shorter_and_stouter_than_a_graspers() -> None:
    short, long = ([outline(a_look(k, seed)) for seed in SEEDS] for k in (ToolKind.NEEDLE_DRIVER, ToolKind.GRASPER))
    assert np.mean([o.length for o in short]) < 0.8 * np.mean([o.length for o in long])
    assert np.mean([o.broad / o.length for o in short]) > 1.2 * np.mean([o.broad / o.length for o in long])


def test_tissue_is_seen_through_a_fenestrated_jaw() -> None:
    look = a_look(ToolKind.GRASPER, 1)
    assert look.jaw.window > 0.3
    solid = replace(look, jaw=replace(look.jaw, window=0.0))
    open_hw, solid_hw = (shown(made(one), FROM_LEFT).ids_hw > 0 for one in (look, solid))
    assert not (open_hw & ~solid_hw).any()
    holes_hw = (solid_hw & ~open_hw).astype(np.uint8)
    around_hw = cv2.dilate(holes_hw, np.ones((3, 3), np.uint8)) > holes_hw
    assert holes_hw.sum() > 20
    assert (open_hw[around_hw]).mean() > 0.95  # tool all around: these are holes, not a thinner jaw


@pytest.mark.parametrize("kind", [ToolKind.SUCTION, ToolKind.TROCAR])
def test_one_looks_into_the_mouth_of_a_tube(kind: ToolKind) -> None:
    for seed in SEEDS:
        seen = shown(made(plain(a_look(kind, seed))), FROM_LEFT)
        tip_hw = seen.parts_hw == Part.TIP
        dark_hw, columns = tip_hw & (seen.image_hwc.max(2) < 32), np.arange(SIZE[0])
        end = columns[tip_hw.any(0)][-1]
        near_w = columns > end - 0.75 * WIDTH * DETAIL
        assert dark_hw[:, near_w].sum() > 0.1 * tip_hw[:, near_w].sum()
        assert abs(np.nonzero(dark_hw[:, near_w])[0].mean() - 119.5) < 0.1 * WIDTH * DETAIL


# --- joints


@pytest.mark.parametrize("kind", JAWED)
def test_jaws_spread_the_more_the_wider_they_open(kind: ToolKind) -> None:
    for seed in SEEDS:
        spread = [outline(a_look(kind, seed), opening).spread for opening in (0.02, 0.2, 0.4, 0.55)]
        assert spread == sorted(set(spread)) and spread[3] > 1.5 * spread[0]


@pytest.mark.parametrize("kind", JAWED)
def test_jaws_seen_from_their_side_look_closed(kind: ToolKind) -> None:
    rack = made(a_look(kind))
    closed, opened = (
        [(shown(rack, replace(FROM_LEFT, opening=o, roll=roll)).parts_hw == Part.TIP).any(1).sum() for o in (0.02, 0.5)]
        for roll in (math.pi / 2, 0.0)
    )
    assert closed[1] == closed[0]
    assert opened[1] > 1.5 * opened[0]  # the negative control


@pytest.mark.parametrize("robotic", [False, True])
@pytest.mark.parametrize("kind", ToolKind)
def test_a_tool_holds_together_and_its_tip_is_where_the_pose_says(kind: ToolKind, robotic: bool) -> None:
    rng = np.random.default_rng(3)
    for seed in range(3):
        look = replace(a_look(kind, seed, robotic), width=0.1)
        rack = made(replace(look, jaw=replace(look.jaw, window=0.0)), seed)  # a frame may be finer than a pixel
        for heading, bend, yaw, roll in rng.uniform(-1, 1, (4, 4)) * (math.pi, 0.75, 0.35, 1.8):
            pose = Pose(0, 0.3 * math.cos(heading), 0.3 * math.sin(heading), heading, bend, yaw, 0.02, roll, 1, 0, 0)
            seen = shown(rack, pose)
            assert cv2.connectedComponents((seen.ids_hw > 0).astype(np.uint8))[0] == 2
            y_n, x_n = np.nonzero(seen.parts_hw == Part.TIP)
            aimed = heading + (bend + yaw if look.articulated else 0.0)
            away_n = (x_n + 0.5 - SIZE[0] / 2) / DETAIL - pose.x, (y_n + 0.5 - SIZE[1] / 2) / DETAIL - pose.y
            assert -0.1 < (away_n[0] * math.cos(aimed) + away_n[1] * math.sin(aimed)).max() / look.width < 0.4


def angles(sprites: list[Sprite]) -> dict[Part, list[float]]:
    """Where a tool's pieces point, by their parts."""
    found: dict[Part, list[float]] = {part: [] for part in Part}
    for sprite in sprites:
        if sprite.id:
            found[Part(sprite.part)].append(math.atan2(sprite.place[1, 0], sprite.place[0, 0]))
    return found


def over_a_period(options: Options, seed: int) -> list[dict[Part, list[float]]]:
    scene = Scene(seed, options, 24)
    return [angles(list(scene.view(float(t)).sprites)) for t in np.linspace(0, scene._moves.period, 60)]


def turned(a: float, b: float) -> float:
    return abs(math.remainder(a - b, math.tau))


@pytest.mark.parametrize("seed", range(3))
def test_a_wrist_bends_over_time_where_a_tool_has_one_and_nowhere_else(seed: int) -> None:
    bent = over_a_period(Options(tools=(ToolKind.NEEDLE_DRIVER,), robotic=True), seed)
    wrist = [turned(now[Part.WRIST][0], now[Part.SHAFT][0]) for now in bent]
    yaw = [turned(float(np.mean(now[Part.TIP])), now[Part.WRIST][0]) for now in bent]
    assert np.ptp(wrist) > 0.3 and max(yaw) > 0.15
    for kind in (ToolKind.HOOK, ToolKind.SUCTION, ToolKind.TROCAR):
        for now in over_a_period(Options(tools=(kind,)), seed):
            straight = [angle for pointing in now.values() for angle in pointing]
            assert max(turned(angle, straight[0]) for angle in straight) < 1e-6


@pytest.mark.parametrize("kind", JAWED)
def test_jaws_open_and_close_over_time_and_stay_closed_on_what_they_hold(kind: ToolKind) -> None:
    scene = Scene(2, Options(tools=(kind, kind)), 24)
    port = next(port for port in range(2) if not scene._moves.leaves(0, port))
    free, holding = [], []
    for part in np.linspace(0, 1, 80, endpoint=False):
        seconds = float(part) * scene._moves.period
        held = scene.poses(seconds)[port].grip
        one, other = angles([s for s in scene.view(seconds).sprites if s.id == port + 1])[Part.TIP]
        (holding if held > 0.99 else free).append(turned(one, other))
        assert held == 0 or GRASP[0] <= part
    assert len(holding) > 10 and max(holding) < 0.05
    assert np.ptp(free) > 0.4


# --- metal, marks, print, blood, highlights


@pytest.mark.parametrize("heading", [0.0, math.pi / 2, math.pi, -math.pi / 2])
def test_a_shaft_is_bright_along_its_middle_whichever_way_it_lies(heading: float) -> None:
    """The lamp is beside the lens."""
    at_x, at_y = 0.4 * math.cos(heading), 0.4 * math.sin(heading)
    seen = shown(made(plain(a_look(ToolKind.GRASPER))), replace(FROM_LEFT, x=at_x, y=at_y, heading=heading), (240, 240))
    turns = round(heading / (math.pi / 2)) % 4
    light_hw = np.rot90(seen.image_hwc.mean(2), turns)[:, :50]
    shaft_hw = np.rot90(seen.parts_hw, turns)[:, :50] == Part.SHAFT
    rows = np.flatnonzero(shaft_hw.all(1))
    profile = light_hw[rows].mean(1)
    assert len(profile) == pytest.approx(WIDTH * DETAIL, abs=2)
    assert profile.max() > 1.5 * max(profile[0], profile[-1])
    assert 0.25 < profile.argmax() / (len(profile) - 1) < 0.75
    smooth = np.convolve(profile, np.full(9, 1 / 9), "valid")  # without the marks of brushing
    assert (np.diff(smooth[: smooth.argmax() + 1]) > -1).all() and (np.diff(smooth[smooth.argmax() :]) < 1).all()


def test_polished_metal_is_brighter_where_it_faces_the_lens_and_nowhere_darker() -> None:
    look = plain(a_look(ToolKind.SUCTION))
    dull, glossy = (shown(made(replace(look, gloss=g)), FROM_LEFT).image_hwc.astype(int) for g in (0.1, 1.0))
    assert (glossy - dull).min() >= -1
    assert (glossy - dull).max() > 80


def test_marks_lie_around_the_shaft_where_the_look_says_in_their_colour() -> None:
    bare = plain(a_look(ToolKind.HOOK))
    red, blue = (176.0, 44.0, 40.0), (60.0, 110.0, 190.0)
    pose, ends = replace(FROM_LEFT, x=0.6), []
    without = shown(made(bare), pose)
    marked = shown(made(replace(bare, rings=((2.0, 0.5, red), (3.5, 0.3, blue)))), pose)
    np.testing.assert_array_equal(without.ids_hw, marked.ids_hw)
    changed_w = (without.image_hwc != marked.image_hwc).any((0, 2))
    shaft_end = np.flatnonzero((marked.parts_hw == Part.SHAFT).any(0))[-1]
    for place, breadth, channel in ((2.0, 0.5, 0), (3.5, 0.3, 2)):
        columns = shaft_end - np.array((place + breadth / 2, place - breadth / 2)) * WIDTH * DETAIL
        middle = round(columns.mean())
        colours = marked.image_hwc[:, middle][marked.ids_hw[:, middle] > 0].mean(0)
        assert colours.argmax() == channel and np.ptp(colours) > 30
        assert np.ptp(without.image_hwc[:, middle][marked.ids_hw[:, middle] > 0].mean(0)) < 15
        ends.append(columns)
    near_w = np.any([(np.arange(SIZE[0]) > a - 3) & (np.arange(SIZE[0]) < b + 3) for a, b in ends], axis=0)
    assert changed_w.any() and not changed_w[~near_w].any()


@pytest.mark.parametrize("taper", [0.0, 0.5])
def test_print_is_seen_from_its_own_side_alone_and_changes_no_outline(taper: float) -> None:
    look = replace(plain(a_look(ToolKind.GRASPER)), label=True, taper=taper)
    printed, blank = made(look), made(replace(look, label=False))
    for roll, seen in ((0.0, True), (0.6, True), (-0.6, True), (1.3, True), (math.pi / 2, False), (math.pi, False)):
        ours, theirs = (shown(rack, replace(FROM_LEFT, x=0.6, roll=roll)) for rack in (printed, blank))
        np.testing.assert_array_equal(ours.parts_hw, theirs.parts_hw)
        changed_hw = (ours.image_hwc != theirs.image_hwc).any(2)
        assert changed_hw.any() == seen
        rows = np.nonzero(changed_hw)[0]
        if roll:  # it goes around with the shaft
            assert not seen or (rows.mean() - 119.5) * roll > 0


def test_a_bloody_tool_is_redder_and_has_the_same_outline() -> None:
    look = plain(a_look(ToolKind.GRASPER))
    clean, bloody = (shown(made(replace(look, blood=b)), FROM_LEFT) for b in (0.0, 0.9))
    np.testing.assert_array_equal(clean.parts_hw, bloody.parts_hw)
    ours, theirs = (seen.image_hwc.astype(int)[seen.parts_hw == Part.TIP] for seen in (bloody, clean))
    red = (ours[:, 0] - ours[:, 1:].max(1)) > 40
    assert red.mean() > 0.2 and not ((theirs[:, 0] - theirs[:, 1:].max(1)) > 40).any()


def test_a_highlight_slides_along_a_shaft_and_flickers() -> None:
    rack = made(replace(a_look(ToolKind.GRASPER), gloss=1.0))
    heading = 0.7
    pose = replace(FROM_LEFT, heading=heading)
    glints = [rack.glints(pose, UNMOVED, float(t), 1.0)[0] for t in np.arange(0, 8, 0.2)]
    along = [g.x * math.cos(heading) + g.y * math.sin(heading) for g in glints]
    across = [(g.y - pose.y) * math.cos(heading) - (g.x - pose.x) * math.sin(heading) for g in glints]
    assert np.ptp(along) > WIDTH and np.ptp(across) < 1e-6
    assert max(abs(a) for a in across) < WIDTH / 2  # on the shaft
    assert max(g.strength for g in glints) > 2 * min(g.strength for g in glints) > 0
    assert np.abs(np.diff(along)).max() < 0.3 * WIDTH  # it slides, it does not jump


def test_a_robots_tools_are_wider() -> None:
    slim, wide = (
        [draw_look(np.random.default_rng(seed), ToolKind.GRASPER, robotic).width for seed in range(30)]
        for robotic in (False, True)
    )
    assert np.mean(wide) > 1.8 * np.mean(slim)
