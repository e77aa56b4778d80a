"""The synthetic endoscope: the same every time, exact truth, two renderers that agree, effects that obey."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from rtseg.base.errors import ConfigError, SourceError
from rtseg.grab import open_source
from rtseg.synthetic import EndoscopeSource, Options, Part, Picture, Scene, Site, ToolKind, View, render_cv2
from rtseg.synthetic.batch import BatchRenderer, Pictures, render_batch
from rtseg.synthetic.moves import GRASP, Moves
from rtseg.synthetic.noise import Canvas, noise
from rtseg.synthetic.view import Channel, Glint, Sensor, Shadow, Textures

SIZE = (160, 120)
DETAIL = 120
QUIET = Options(
    surround=None,
    noise=0.0,
    blur=0.0,
    specular=0.0,
    shake=0.0,
    zoom=0.0,
    sway=0.0,
    breathing=0.0,
    contact=0.0,
    shadow=0.0,
)
EVERYTHING = Options(
    tools=(ToolKind.GRASPER, ToolKind.HOOK, ToolKind.SUCTION, ToolKind.TROCAR), interlaced=True, surround=0.6,
    pace=1.0, contact=1.0, breathing=1.0, sway=1.0, shake=1.0, zoom=1.0, shadow=1.0, specular=1.0, smoke=1.0,
    bleeding=1.0, drops=1.0, fog=1.0, smear=1.0, exposure=1.0, grading=1.0, noise=0.6, blur=1.0, compression=0.7,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes as training draws them, and one with everything."""
    return [*(Scene(seed, detail=DETAIL) for seed in range(5)), Scene(5, EVERYTHING, DETAIL)]


def draw(view: View, size: tuple[int, int] = SIZE) -> Picture:
    return render_cv2(view, *size)


def difference(a: Picture, b: Picture) -> float:
    return float(np.abs(a.image_hwc.astype(int) - b.image_hwc).mean())


def plain(view: View) -> View:
    """Without what spreads a tool's light over its neighbours."""
    return replace(view, sensor=Sensor(blur=0.0), glints=(), surround=None, drops=(), shadow=Shadow())


# --- a pure function of seed, options, time and size


def test_same_seed_and_time_give_the_same_bits_in_any_order() -> None:
    one, two, times = Scene(5, EVERYTHING, DETAIL), Scene(5, EVERYTHING, DETAIL), (0.0, 4.0, 8.0)
    forward, backward = one.clip(times, *SIZE), two.clip(times[::-1], *SIZE)
    np.testing.assert_array_equal(forward.image_thwc, backward.image_thwc[::-1])
    np.testing.assert_array_equal(forward.ids_thw, backward.ids_thw[::-1])
    np.testing.assert_array_equal(forward.parts_thw, backward.parts_thw[::-1])


def test_another_seed_or_time_gives_another_picture(scenes: list[Scene]) -> None:
    first = draw(scenes[1].view(0.0))
    assert difference(first, draw(scenes[2].view(0.0))) > 8
    assert difference(first, draw(scenes[1].view(3.0))) > 2


def test_the_same_scene_at_any_size_and_detail() -> None:
    """Twice as large and painted twice as fine, and shrunk again, it is the same picture with the same masks."""
    options = replace(QUIET, contact=0.5, shadow=0.5, site=Site.BOWEL)
    small = draw(Scene(2, options, 120).view(1.0))
    large = draw(Scene(2, options, 240).view(1.0), (320, 240))
    shrunk_hwc = large.image_hwc.reshape(120, 2, 160, 2, 3).mean((1, 3))
    assert np.abs(shrunk_hwc - small.image_hwc).mean() < 10
    ours_hw, theirs_hw = small.ids_hw > 0, large.ids_hw[::2, ::2] > 0
    assert (ours_hw & theirs_hw).sum() > 0.85 * (ours_hw | theirs_hw).sum()
    other = draw(Scene(3, options, 120).view(1.0))
    assert np.abs(shrunk_hwc - other.image_hwc).mean() > 15  # the negative control


def test_noise_is_the_same_at_any_detail() -> None:
    fine_rng, rough_rng = np.random.default_rng(1), np.random.default_rng(1)
    fine_hw, rough_hw = noise(fine_rng, Canvas(1, 1, 256), 0.2, 5), noise(rough_rng, Canvas(1, 1, 64), 0.2, 5)
    assert np.corrcoef(fine_hw.reshape(64, 4, 64, 4).mean((1, 3)).ravel(), rough_hw.ravel())[0, 1] > 0.97
    assert fine_rng.random() == rough_rng.random()


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (131, 77), (80, 80)])
def test_shapes(size: tuple[int, int], scenes: list[Scene]) -> None:
    seen = draw(scenes[0].view(1.0), size)
    assert seen.image_hwc.shape == (size[1], size[0], 3)
    assert seen.ids_hw.shape == seen.parts_hw.shape == (size[1], size[0])
    assert seen.image_hwc.dtype == seen.ids_hw.dtype == seen.parts_hw.dtype == np.uint8


# --- truth


@pytest.mark.parametrize("kind", ToolKind)
def test_another_colour_of_the_tools_changes_exactly_the_mask(kind: ToolKind) -> None:
    scene = Scene(4, replace(QUIET, tools=(kind, ToolKind.GRASPER)), DETAIL)
    for seconds in (0.0, 3.0):
        view = plain(scene.view(seconds))
        seen, changed = draw(view), draw(replace(view, textures=_one_colour(view.textures, 60)))
        np.testing.assert_array_equal(seen.ids_hw, changed.ids_hw)
        changed_hw = (seen.image_hwc != changed.image_hwc).any(2)
        assert not changed_hw[seen.ids_hw == 0].any()
        other_hwc = draw(replace(view, textures=_one_colour(view.textures, 120))).image_hwc
        assert (changed.image_hwc != other_hwc).any(2)[seen.ids_hw > 0].all()
        assert (seen.ids_hw > 0).mean() > 0.01


def _one_colour(paint: Textures, level: int) -> Textures:
    """The same pieces, all in one grey."""
    blank = tuple(np.dstack([np.full_like(piece[..., :3], level), piece[..., 3]]) for piece in paint.pieces)
    return Textures(paint.tissue_hwc, blank)


@pytest.mark.parametrize("kind", ToolKind)
def test_parts_are_parts_of_tools(kind: ToolKind) -> None:
    scene = Scene(6, replace(QUIET, tools=(kind,)), DETAIL)
    seen = draw(scene.view(0.0))
    assert scene.kinds == {1: kind}
    np.testing.assert_array_equal(seen.parts_hw > 0, seen.ids_hw > 0)
    assert set(np.unique(seen.parts_hw)) == {0, *Part}
    x_w, y_h = np.arange(SIZE[0]), np.arange(SIZE[1])[:, None]
    pose = scene.poses(0.0)[0]
    along_hw = x_w * np.cos(pose.heading) + y_h * np.sin(pose.heading)
    shaft, wrist, tip = (along_hw[seen.parts_hw == part].mean() for part in Part)
    assert shaft < wrist < tip


def test_the_upper_tool_hides_the_lower_and_nothing_else_does() -> None:
    scene = Scene(1, replace(EVERYTHING, interlaced=False, surround=None), DETAIL)
    overlapped = 0
    for seconds in np.arange(0, scene._moves.period, 0.5):
        view = scene.view(float(seconds))
        drawn_hw, expected_hw = draw(view).ids_hw, np.zeros(SIZE[::-1], np.uint8)
        for sprite in view.sprites:
            alone_hw = draw(replace(plain(view), sprites=(replace(sprite, id=9),))).ids_hw > 0
            overlapped += int((expected_hw[alone_hw] > 0).any())
            expected_hw[alone_hw] = sprite.id
        np.testing.assert_array_equal(drawn_hw, expected_hw)
    assert overlapped > 10


@pytest.mark.parametrize("seed", range(6))
def test_no_tool_floats(seed: int) -> None:
    """Wherever a shaft is seen, it comes from the picture's border."""
    options = replace(QUIET, zoom=1.0, shake=1.0, sway=1.0, pace=1.0, robotic=seed % 2 == 0)
    scene, seen = Scene(seed, options, 60), 0
    for seconds in np.arange(0, 40, 1.3):
        view = plain(scene.view(float(seconds)))
        for tool in (1, 2):
            alone = replace(view, sprites=tuple(s for s in view.sprites if s.id == tool))
            shaft_hw = draw(alone, (107, 60)).parts_hw == Part.SHAFT
            inside_hw = shaft_hw.copy()
            inside_hw[1:-1, 1:-1] = False
            assert inside_hw.any() or not shaft_hw.any()
            seen += int(shaft_hw.any())
    assert seen > 30


def test_a_fold_of_tissue_covers_a_tip_and_the_truth_knows() -> None:
    options, covered = replace(QUIET, contact=1.0, tools=(ToolKind.GRASPER,) * 4), 0
    scene = Scene(8, options, DETAIL)
    for seconds in np.arange(0, 2 * scene._moves.period, 0.4):
        view = plain(scene.view(float(seconds)))
        bare = replace(view, sprites=tuple(s for s in view.sprites if s.id))
        seen, open_ = draw(view), draw(bare)
        hidden_hw = (seen.ids_hw == 0) & (open_.ids_hw > 0)
        covered += int(hidden_hw.sum())
        tissue_hwc = draw(replace(view, sprites=())).image_hwc
        np.testing.assert_array_equal(seen.image_hwc[hidden_hw], tissue_hwc[hidden_hw])
    assert covered > 20


def test_the_surround_is_black_and_cuts_the_truth() -> None:
    scene = Scene(3, replace(QUIET, surround=0.4), DETAIL)
    seen, whole = draw(scene.view(0.5)), draw(replace(scene.view(0.5), surround=None))
    y_h, x_w = np.mgrid[: SIZE[1], : SIZE[0]]
    away_hw = np.hypot(x_w + 0.5 - SIZE[0] / 2, y_h + 0.5 - SIZE[1] / 2) / min(SIZE)
    assert seen.image_hwc[away_hw > 0.5].max() == seen.ids_hw[away_hw > 0.5].max() == 0
    assert whole.ids_hw[away_hw > 0.5].max() > 0  # the negative control: a shaft was there
    np.testing.assert_array_equal(seen.ids_hw[away_hw < 0.3], whole.ids_hw[away_hw < 0.3])


def test_what_is_before_a_tool_never_changes_the_truth_nor_hides_it() -> None:
    calm = replace(EVERYTHING, smoke=0.0, bleeding=0.0, drops=0.0, fog=0.0, smear=0.0, exposure=0.0, noise=0.0)
    clear, clouded = Scene(5, calm, DETAIL), Scene(5, EVERYTHING, DETAIL)
    for seconds in (0.0, 2.5):
        np.testing.assert_array_equal(draw(clear.view(seconds)).ids_hw, draw(clouded.view(seconds)).ids_hw)
        field_hwc = clouded.view(seconds).field_hwc
        let_through_hw = field_hwc[..., Channel.GAIN] / clouded._atmosphere.exposure(seconds)
        assert let_through_hw.min() > 0.05
        assert field_hwc[..., Channel.HAZE].max() <= 0.95


# --- the two renderers


def test_the_renderers_agree_and_would_not_for_another_moment(scenes: list[Scene]) -> None:
    views = [scene.view(t) for scene in scenes for t in (0.0, 3.7, 8.1)]
    batch = render_batch(views, *SIZE)
    for n, view in enumerate(views):
        ours, theirs = draw(view), _picture(batch, n)
        assert (ours.ids_hw == theirs.ids_hw).mean() > 0.995
        assert (ours.parts_hw == theirs.parts_hw).mean() > 0.995
        apart_hw = np.abs(ours.image_hwc.astype(int) - theirs.image_hwc).mean(2)
        assert apart_hw.mean() < 2 and np.percentile(apart_hw, 99) < 8
        assert apart_hw[ours.ids_hw > 0].mean() < 3
    later = [draw(scene.view(t + 0.5)) for scene in scenes for t in (0.0, 3.7, 8.1)]
    assert np.mean([difference(picture, _picture(batch, n)) for n, picture in enumerate(later)]) > 4
    assert np.mean([(p.ids_hw != _picture(batch, n).ids_hw).mean() for n, p in enumerate(later)]) > 0.005


def _picture(batch: Pictures, n: int) -> Picture:
    image_hwc = batch.image_nchw[n].permute(1, 2, 0).numpy()
    return Picture(image_hwc, batch.ids_nhw[n].numpy(), batch.parts_nhw[n].numpy())


@pytest.mark.parametrize("size", [(131, 77), (64, 96), (320, 200)])
def test_the_renderers_agree_at_odd_sizes(size: tuple[int, int], scenes: list[Scene]) -> None:
    view = scenes[-1].view(6.0)
    ours, theirs = draw(view, size), _picture(render_batch([view], *size), 0)
    assert (ours.ids_hw == theirs.ids_hw).mean() > 0.995
    assert difference(ours, theirs) < 2


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(scenes: list[Scene]) -> None:
    render = BatchRenderer()
    mixed = render([scenes[5].view(1.0), scenes[0].view(2.0), scenes[5].view(3.0), scenes[3].view(2.0)], *SIZE)
    alone = render([scenes[0].view(2.0)], *SIZE)
    assert difference(_picture(mixed, 1), _picture(alone, 0)) < 0.02  # another order of summation rounds differently
    np.testing.assert_array_equal(_picture(mixed, 1).ids_hw, _picture(alone, 0).ids_hw)


def test_a_view_without_tools_is_tissue_alone(scenes: list[Scene]) -> None:
    view = replace(scenes[0].view(0.0), sprites=(), glints=(), later=None)
    ours, theirs = draw(view), _picture(render_batch([view], *SIZE), 0)
    assert ours.ids_hw.max() == theirs.ids_hw.max() == 0
    assert difference(ours, theirs) < 2


def test_a_highlight_lies_on_its_own_tool_alone() -> None:
    scene = Scene(3, replace(QUIET, specular=1.0), DETAIL)
    seconds = 0.3 * scene._moves.period  # where they cross
    view = replace(plain(scene.view(seconds)), glints=())
    sprites = [s for s in view.sprites if s.part == Part.SHAFT]
    middle = sprites[1].place @ (view.textures.pieces[sprites[1].texture].shape[1] - 1, 0, 1)
    lit = replace(view, glints=(Glint(float(middle[0]), float(middle[1]), 0.1, 200.0, 1),))
    for ours, theirs in (
        (draw(view), draw(lit)),
        (_picture(render_batch([view], *SIZE), 0), _picture(render_batch([lit], *SIZE), 0)),
    ):
        more_hw = (theirs.image_hwc.astype(int) - ours.image_hwc).max(2)
        assert more_hw[ours.ids_hw != 1].max() == 0
        assert {0, 1, 2} == set(np.unique(ours.ids_hw))
        assert more_hw.max() > 40
    assert np.abs(draw(lit).image_hwc.astype(int) - theirs.image_hwc)[ours.ids_hw == 1].mean() < 1


# --- effects


EFFECTS = (
    "smoke", "bleeding", "drops", "fog", "smear", "exposure", "specular", "shadow", "noise", "blur", "compression",
    "grading", "zoom", "shake", "sway", "breathing", "contact",
)  # fmt: skip


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_the_picture_the_more_the_stronger_it_is(effect: str) -> None:
    options, seconds = replace(QUIET, specular=0.3), 0.9
    if effect == "contact":
        seconds = (GRASP[1] - 0.03) * Moves(7, options).period
    strengths = (0.0, 0.15, 0.5, 1.0)
    pictures = [draw(Scene(7, replace(options, **{effect: s}), DETAIL).view(seconds)) for s in strengths]
    changes = [difference(pictures[0], picture) for picture in pictures]
    assert changes == sorted(set(changes))
    assert changes[3] > max(0.1, 1.3 * changes[1])


def test_odd_lines_of_an_interlaced_picture_are_later() -> None:
    options = replace(QUIET, pace=1.0, shake=1.0)
    scene = Scene(2, options, DETAIL)
    laced = draw(Scene(2, replace(options, interlaced=True), DETAIL).view(2.0))
    now, later = draw(scene.view(2.0)), draw(scene.view(2.02))
    np.testing.assert_array_equal(laced.image_hwc[::2], now.image_hwc[::2])
    np.testing.assert_array_equal(laced.image_hwc[1::2], later.image_hwc[1::2])
    np.testing.assert_array_equal(laced.ids_hw[1::2], later.ids_hw[1::2])
    assert (laced.image_hwc[1::2] != now.image_hwc[1::2]).any()


def test_a_grey_camera_has_no_colour() -> None:
    colour, grey = (
        draw(Scene(5, replace(EVERYTHING, grey=g, compression=0.0), DETAIL).view(1.0)) for g in (False, True)
    )
    assert np.ptp(grey.image_hwc.astype(int), axis=2).max() <= 3
    assert np.ptp(colour.image_hwc.astype(int), axis=2).mean() > 5


# --- what happens


def seen_ids(scene: Scene, begin: float, end: float, step: float = 0.2) -> list[set[int]]:
    times = [float(t) for t in np.arange(begin, end, step)]
    return [{int(k) for k in np.unique(draw(plain(scene.view(t)), (64, 48)).ids_hw) if k} for t in times]


@pytest.mark.parametrize(("seed", "pace", "count"), [(1, 0.0, 2), (2, 0.6, 2), (3, 1.0, 3), (4, 0.3, 1)])
def test_a_tool_leaves_for_one_to_four_seconds_and_returns(seed: int, pace: float, count: int) -> None:
    scene = Scene(seed, replace(QUIET, pace=pace, tools=(ToolKind.GRASPER,) * count), 48)
    period = scene._moves.period
    seen = seen_ids(scene, 0.0, (count + 1) * period)
    for tool in range(1, count + 1):
        there = [tool in now for now in seen]
        gone = [k for k, (a, b) in enumerate(pairwise(there)) if a and not b]
        back = [k for k, (a, b) in enumerate(pairwise(there)) if b and not a]
        stays = [0.2 * min(b - a for b in back if b > a) for a in gone if a < max(back, default=0)]
        assert any(0.8 <= stay <= 4.4 for stay in stays), stays
    assert np.mean([len(now) for now in seen]) > 0.6 * count  # the negative control: they are mostly there


@pytest.mark.parametrize("seed", range(4))
def test_two_tools_cross_in_every_period(seed: int) -> None:
    scene = Scene(seed, QUIET, 48)
    period, crossed = scene._moves.period, False
    for seconds in np.linspace(0.2, 0.45, 9) * period:
        view = plain(scene.view(float(seconds)))
        masks = [
            draw(replace(view, sprites=tuple(s for s in view.sprites if s.id == k)), (64, 48)).ids_hw > 0
            for k in (1, 2)
        ]
        crossed |= bool((masks[0] & masks[1]).sum() > 4)
    assert crossed


def test_another_tool_of_the_same_looks_comes_in_instead() -> None:
    options = replace(QUIET, alike=True, swap=True, pace=1.0)
    scene = Scene(11, options, 48)
    assert set(scene.kinds) == {1, 2, 3, 4} and len(set(scene.kinds.values())) == 1
    looks = [replace(body.look, blood=0.0) for body in scene._instruments.bodies]
    assert looks[0] == looks[1] == looks[2] == looks[3]
    clean = [body.jaws[0].texture_hwc for body in scene._instruments.bodies if not body.look.blood]
    assert all(np.array_equal(texture_hwc, clean[0]) for texture_hwc in clean)
    seen = seen_ids(scene, 0.0, 8 * scene._moves.period)
    assert {k for now in seen for k in now} > {1, 2}
    assert all(not {k, k + 2} <= now for now in seen for k in (1, 2))  # never both of one port
    fixed = seen_ids(Scene(11, replace(options, swap=False), 48), 0.0, 20.0)
    assert {k for now in fixed for k in now} == {1, 2}  # the negative control


def test_tools_that_are_not_alike_can_be_told_apart() -> None:
    looks = [body.look for body in Scene(3, replace(QUIET, tools=(ToolKind.GRASPER,) * 3), 48)._instruments.bodies]
    assert len({look.width for look in looks}) == len({look.sheath for look in looks}) == 3


def test_contact_moves_tissue_at_the_tip_and_not_far_away() -> None:
    options = replace(QUIET, tools=(ToolKind.GRASPER,) * 2, contact=1.0)
    scene, without = Scene(7, options, DETAIL), Scene(7, replace(options, contact=0.0), DETAIL)
    seconds = (GRASP[1] - 0.02) * scene._moves.period
    holding = [pose for pose in scene.poses(seconds) if pose.grip > 0.9]
    assert len(holding) == 1  # the other one is away
    where = np.s_[..., [Channel.U, Channel.V]]
    moved_hw = np.linalg.norm(scene.view(seconds).field_hwc[where] - without.view(seconds).field_hwc[where], axis=2)
    line = np.linspace(-1, 1, len(moved_hw))
    away_hw = np.hypot(line[None] - holding[0].x, line[:, None] - holding[0].y)
    near, far = moved_hw[away_hw < 0.06].max() / DETAIL, moved_hw[away_hw > 0.5].max() / DETAIL
    assert near > 0.03 > 0.002 > far


def test_held_tissue_stays_at_the_tip() -> None:
    """The map's place under the tip hardly changes while the tip pulls; the tip itself moves."""
    scene = Scene(7, replace(QUIET, contact=1.0), DETAIL)
    period = scene._moves.period
    port = next(k for k in range(2) if not scene._moves.leaves(0, k))
    tips, places = [], []
    for seconds in np.linspace(GRASP[0] + 0.035, GRASP[1] - 0.01, 8) * period:
        pose, field_hwc = scene.poses(float(seconds))[port], scene.view(float(seconds)).field_hwc
        column, row = (round((v + 1) * 32) for v in (pose.x, pose.y))
        offset = np.array((pose.x - (column / 32 - 1), pose.y - (row / 32 - 1)))
        tips.append((pose.x, pose.y))
        slope = np.stack([field_hwc[row, column + 1, :2] - field_hwc[row, column, :2],
                          field_hwc[row + 1, column, :2] - field_hwc[row, column, :2]], 1) * 32  # fmt: skip
        places.append((field_hwc[row, column, :2] + slope @ offset) / DETAIL)
    moved, slipped = np.ptp(tips, axis=0).max(), np.ptp(places, axis=0).max()
    assert moved > 0.04
    assert slipped < 0.55 * moved


def test_tools_jump_as_in_recordings_of_one_frame_a_second() -> None:
    scene = Scene(1, replace(QUIET, pace=1.0), 48)
    tips = np.array([[(p.x, p.y) for p in scene.poses(float(t))] for t in range(30)])
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=2)
    assert np.median(steps) > 0.1


def test_the_first_frame_can_be_prompted() -> None:
    shown = []
    for seed in range(24):
        options = replace(QUIET, tools=Options.draw(seed).tools, robotic=Options.draw(seed).robotic)
        seen = draw(plain(Scene(seed, options, 48).view(0.0)), (64, 48))
        shown += [(seen.ids_hw == k + 1).mean() for k in range(len(options.tools))]
    assert np.mean(np.array(shown) > 0.004) > 0.95


# --- options


def test_seeds_draw_calm_and_hard_scenes_of_every_kind() -> None:
    drawn = [Options.draw(seed) for seed in range(300)]
    assert {kind for o in drawn for kind in o.tools} == set(ToolKind)
    assert {o.site for o in drawn} == set(Site)
    assert {len(o.tools) for o in drawn} == {1, 2, 3, 4}
    disturbing = ("smoke", "bleeding", "drops", "fog", "smear", "compression")
    counts = [sum(getattr(o, name) > 0 for name in disturbing) for o in drawn]
    assert counts.count(0) > 60 and sum(count >= 3 for count in counts) > 25
    for flag in ("alike", "swap", "robotic", "grey", "interlaced"):
        assert 3 < sum(getattr(o, flag) for o in drawn) < 200, flag
    assert 50 < sum(o.surround is None for o in drawn) < 250


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"smoke": 1.5}, "smoke=1.5; expected a strength from 0 to 1"),
        ({"noise": -0.1}, "noise=-0.1; expected a strength"),
        ({"tools": ()}, "0 tools; expected 1 to 4"),
        ({"tools": (ToolKind.HOOK,) * 5}, "5 tools; expected 1 to 4"),
        ({"surround": 0.1}, "surround=0.1; expected None or a radius"),
    ],
)
def test_wrong_options_are_one_line_that_helps(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        Options(**wrong)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


# --- as a source


def test_source_carries_identity_time_and_truth() -> None:
    with open_source("synthetic:laparoscopy?seconds=0.2&seed=5&width=96&height=64&fps=30000/1001") as source:
        frames, again = list(source), list(source)
    assert (source.width, source.height, source.frame_count) == (96, 64, 6)
    assert source.fps == pytest.approx(29.97, abs=0.01)
    assert [f.seq for f in frames] == [f.pts for f in frames] == list(range(6))
    assert frames[0].time_base == Fraction(1001, 30000)
    assert {f.session for f in frames + again} == {source.session}
    assert all(f.truth_hw is not None and f.truth_hw.shape == (64, 96) for f in frames)
    np.testing.assert_array_equal(frames[3].image_hwc, again[3].image_hwc)
    np.testing.assert_array_equal(frames[3].image_hwc, source.frame(3).image_hwc)
    assert isinstance(source, EndoscopeSource)
    assert set(np.unique(frames[0].truth_hw)) <= {0, *range(1, source.tools + 1)}
    stamps = [f.captured_ns for f in frames]
    assert stamps == sorted(stamps) and len(set(stamps)) == 6


def test_the_rate_argument_wins_over_the_uri_and_two_sources_have_two_sessions() -> None:
    uri = "synthetic:laparoscopy?seconds=2&width=64&height=64&fps=25"
    one, two = open_source(uri, fps=10), open_source(uri)
    assert (one.fps, one.frame_count) == (10, 20)
    assert one.session != two.session


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("synthetic:laparoscopi", "did you mean 'laparoscopy'"),
        ("synthetic:laparoscopy?sed=7", "unknown key 'sed'; did you mean 'seed'"),
        ("synthetic:laparoscopy?zzz=7", "expected one of: seconds, seed, width, height, fps"),
        ("synthetic:laparoscopy?seed=red", "seed='red'; expected a whole number"),
        ("synthetic:laparoscopy?seed=1.5", "expected a whole number"),
        ("synthetic:laparoscopy?seed=-1", "expected a whole number from 0"),
        ("synthetic:laparoscopy?width=3", "width=3; expected a whole number from 64"),
        ("synthetic:laparoscopy?fps=0", "above 0"),
        ("synthetic:laparoscopy?fps=1/0", "fps='1/0'"),
        ("synthetic:laparoscopy?seconds=", "seconds=''"),
        ("synthetic:laparoscopy?seconds=nan", "seconds='nan'"),
    ],
)
def test_a_wrong_uri_is_one_line_that_helps(uri: str, says: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert says in str(error.value) and uri in str(error.value) and "\n" not in str(error.value)
