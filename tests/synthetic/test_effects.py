"""What the synthetic endoscope's effects do to a picture, each told by what it is known for; none touches the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rtseg.base.types import Float32
from rtseg.synthetic import Options, Picture, Scene, Site, ToolKind, View, render_cv2, tissue
from rtseg.synthetic.grade import Grade
from rtseg.synthetic.moves import GRASP, HOLD
from rtseg.synthetic.noise import Canvas
from rtseg.synthetic.tissue import paint_tissue
from rtseg.synthetic.vessels import burns
from rtseg.synthetic.view import Channel, Drop, Shadow, Textures

SIZE = (160, 120)
DETAIL = 120
STILL = Options(
    surround=None, contact=0.0, breathing=0.0, sway=0.0, shake=0.0, zoom=0.0, shadow=0.0, specular=0.0, grading=0.0,
    noise=0.0, blur=0.0,
)  # fmt: skip
SEEDS = (3, 7)


def scene(seed: int, **changed: object) -> Scene:
    return Scene(seed, replace(STILL, **changed), DETAIL)  # type: ignore[arg-type]


def draw(view: View) -> Picture:
    return render_cv2(view, *SIZE)


def bare(view: View) -> Float32:
    """Without tools: their neighbours are not in the way. float32 [H, W, 3]"""
    return draw(replace(view, sprites=(), glints=())).image_hwc.astype(np.float32)


def sharp(view: View) -> View:
    """Without the blur that every lens has."""
    return replace(view, sensor=replace(view.sensor, blur=0.0))


def on_one_colour(view: View, level: int, gloss: int = 0) -> View:
    tissue_hwc = np.full_like(view.textures.tissue_hwc, level)
    tissue_hwc[..., 3] = gloss
    return replace(view, textures=Textures(tissue_hwc, view.textures.pieces))


def away() -> Float32:
    """How far each pixel is from the picture's middle, in units, [H, W]."""
    y_h, x_w = np.mgrid[: SIZE[1], : SIZE[0]]
    return np.hypot(x_w + 0.5 - SIZE[0] / 2, y_h + 0.5 - SIZE[1] / 2).astype(np.float32) / min(SIZE)


def edges(image_hwc: Float32) -> Float32:
    """How much fine detail there is around each pixel, [H, W]."""
    fine_hwc = np.abs(image_hwc - cv2.GaussianBlur(image_hwc, (0, 0), 1.5))
    return np.asarray(cv2.GaussianBlur(fine_hwc.mean(2), (0, 0), 3), np.float32)


def alike(a: Float32, b: Float32) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def places(moment: Scene, seconds: float) -> Float32:
    """Where on the map the field's nodes lie, in units, [NODES, NODES, 2]."""
    return moment.view(seconds).field_hwc[..., [Channel.U, Channel.V]] / np.float32(DETAIL)


# --- the patient


@pytest.mark.parametrize("seed", SEEDS)
def test_breath_moves_tissue_to_and_fro_and_back_to_where_it_was(seed: int) -> None:
    breathing = scene(seed, breathing=1.0)
    times = np.arange(0, 40, 0.25)
    moved_thwc = np.stack([places(breathing, float(t)) for t in times]) - places(scene(seed), 0.0)
    far_hw = np.linalg.norm(moved_thwc, axis=3).max(0)
    y, x = np.unravel_index(far_hw.argmax(), far_hw.shape)
    wave = moved_thwc[:, y, x, np.abs(moved_thwc[:, y, x]).max(0).argmax()]
    hertz = np.fft.rfftfreq(len(wave), 0.25)[np.abs(np.fft.rfft(wave - wave.mean())).argmax()]
    assert 0.15 < hertz < 0.35  # 9 to 21 breaths a minute
    assert wave.max() > 0.01 and wave.min() < -0.01
    period = 1 / (0.25 * breathing._camera._rate[10])
    start = float(times[wave[:16].argmax()])
    first, half, whole = (bare(breathing.view(start + part * period)) for part in (0.0, 0.5, 1.0))
    assert np.abs(whole - first).mean() < 0.35 * np.abs(half - first).mean()


def test_breath_moves_no_tool_and_not_all_tissue() -> None:
    breathing, calm = scene(3, breathing=1.0), scene(3)
    far_hw = np.linalg.norm(places(breathing, 2.0) - places(calm, 2.0), axis=2)
    assert far_hw.max() > 0.01 > 0.001 > far_hw.min()
    np.testing.assert_array_equal(draw(breathing.view(2.0)).ids_hw, draw(calm.view(2.0)).ids_hw)


def test_tissue_that_is_let_go_lies_where_it_lay_and_was_darker_in_the_grip() -> None:
    tools = (ToolKind.GRASPER,) * 2
    holding, without = scene(7, tools=tools, contact=1.0), scene(7, tools=tools)
    period = holding._moves.period
    for part in (GRASP[0] - 0.01, GRASP[1] + HOLD + 0.01):
        np.testing.assert_array_equal(places(holding, part * period), places(without, part * period))
    seconds = (GRASP[1] - 0.02) * period
    assert np.abs(places(holding, seconds) - places(without, seconds)).max() > 0.03  # the negative control
    pose = next(pose for pose in holding.poses(seconds) if pose.grip > 0.9)
    held, free = (bare(on_one_colour(s.view(seconds), 120)).mean(2) for s in (holding, without))
    x, y = round(pose.x * DETAIL + SIZE[0] / 2), round(pose.y * DETAIL + SIZE[1] / 2)
    assert held[y, x] < 0.85 * free[y, x]
    far_hw = np.hypot(np.arange(SIZE[0])[None] - x, np.arange(SIZE[1])[:, None] - y) > 0.35 * DETAIL
    np.testing.assert_array_equal(held[far_hw], free[far_hw])


@pytest.mark.parametrize("seed", SEEDS)
def test_blood_is_redder_than_what_it_covers_and_leaves_the_rest_alone(seed: int) -> None:
    bleeding, clean = scene(seed, bleeding=0.6), scene(seed)
    for seconds in (0.0, 20.0, 30.0):
        ours, theirs = bare(bleeding.view(seconds)), bare(clean.view(seconds))
        covered_hw = (ours != theirs).any(2)
        assert 0.01 < covered_hw.mean() < 0.4
        red = [image[covered_hw][:, 0].sum() / image[covered_hw].sum() for image in (ours, theirs)]
        assert red[0] > red[1] + 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_pools_of_blood_grow_steadily_and_are_sucked_away_again(seed: int) -> None:
    bleeding = scene(seed, bleeding=0.6)
    times = np.arange(0, 53, 1.0)
    area = np.array([(bleeding.view(float(t)).field_hwc[..., Channel.BLOOD] > 0).mean() for t in times])
    assert area.max() > 3 * area.min() > 0
    turns = np.diff(np.sign(np.diff(cv2.blur(area, (1, 5)).ravel()))) != 0
    assert np.abs(np.diff(area)).max() < 0.15 * area.max()  # none appears at once
    assert turns.sum() < 8


def test_blood_lies_on_the_tissue_and_not_on_the_lens() -> None:
    """Two scenes that differ in how the camera is held: the pools are elsewhere in the picture, and where they were on
    the tissue."""
    seen, lain = [], []
    for sway in (0.0, 1.0):
        field_hwc = scene(7, bleeding=0.3, sway=sway).view(9.0).field_hwc
        bloody_hw = field_hwc[..., Channel.BLOOD] > 0
        assert bloody_hw.any() and not bloody_hw[[0, -1]].any() and not bloody_hw[:, [0, -1]].any()
        lain.append(field_hwc[bloody_hw][:, [Channel.U, Channel.V]].mean(0) / DETAIL)
        seen.append(np.argwhere(bloody_hw).mean(0) / 32)
    assert np.linalg.norm(seen[0] - seen[1]) > 0.06
    assert np.linalg.norm(lain[0] - lain[1]) < 0.02


def test_sites_differ_and_the_pale_one_is_the_brightest_and_least_colourful() -> None:
    means = {
        site: np.mean([paint_tissue(seed, site, Grade(), 48)[..., :3].mean((0, 1)) for seed in range(6)], axis=0)
        for site in Site
    }
    for site, mean in means.items():
        assert mean.argmax() == 0 and mean[0] > 1.25 * mean[1:].max()  # all are flesh
        others = [np.abs(mean - means[other]).max() for other in Site if other is not site]
        assert min(others) > 8, site
    pale = means.pop(Site.PALE)
    assert pale.mean() > 1.1 * max(mean.mean() for mean in means.values())
    assert np.ptp(pale) < 0.9 * min(np.ptp(mean) for mean in means.values())


def test_vessels_are_darker_and_of_another_hue_than_the_tissue_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen, arteries = tissue.vessels, {}, 0

    def painted(seed: int, strength: int) -> tuple[float, Float32]:
        """How bright vessels are by what lies beside them, and how their shares of red, green and blue differ."""

        def some(rng: np.random.Generator, canvas: Canvas) -> tuple[Float32, Float32]:
            seen["vein"], net_hw = real(rng, canvas)
            return strength * seen["vein"], strength * net_hw

        monkeypatch.setattr(tissue, "vessels", some)
        map_hwc = paint_tissue(seed, Site.BOWEL, Grade(), DETAIL)[..., :3].astype(np.float32)
        near_hw = (cv2.dilate(seen["vein"], np.ones((9, 9), np.uint8)) > 0.4) & (seen["vein"] < 0.05)
        on, beside = map_hwc[seen["vein"] > 0.4].mean(0), map_hwc[near_hw].mean(0)
        return float(on.sum() / beside.sum()), on / on.sum() - beside / beside.sum()

    for seed in range(6):
        dark, hue = painted(seed, 1)
        assert dark < 0.87
        assert hue[0] > 0.03 or hue[2] > 0.03  # arteries are redder, veins bluer
        arteries += int(hue[0] > 0.03)
        covered, opened = (seen["vein"] > 0.4), cv2.erode(seen["vein"], np.ones((5, 5), np.uint8)) > 0.4
        assert 0.003 < covered.mean() < 0.1 and opened.sum() < 0.02 * covered.sum()  # thin lines
        dark, hue = painted(seed, 0)  # the negative control
        assert 0.95 < dark < 1.05 and np.abs(hue).max() < 0.01
    assert 0 < arteries < 6


def test_a_burn_is_charred_in_the_middle_and_blanched_around() -> None:
    colour_chw = np.full((3, 300, 440), 120, np.float32)
    seeds = iter(range(99))
    while (colour_chw == 120).all():
        burns(np.random.default_rng(next(seeds)), Canvas(2.2, 1.5, 200), colour_chw)
    light_hw = colour_chw.mean(0)
    charred_hw, pale_hw = light_hw < 80, light_hw > 135
    assert charred_hw.any() and 0.0005 < (light_hw != 120).mean() < 0.1
    around_hw = cv2.dilate(charred_hw.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    assert pale_hw.any() and around_hw[pale_hw].mean() > 0.95


# --- the lamp


def test_the_lamp_is_brightest_near_the_middle_and_fades_to_the_rim() -> None:
    for seed in range(6):
        light_hw = bare(on_one_colour(scene(seed).view(0.0), 100)).mean(2)
        rings = [light_hw[(away() >= r) & (away() < r + 0.2)].mean() for r in (0.0, 0.2, 0.4, 0.6)]
        assert rings == sorted(rings, reverse=True) and rings[3] < 0.9 * rings[0]


def test_wet_highlights_are_white_on_glossy_tissue_near_the_lamp_and_only_add_light() -> None:
    middle, rim = [], []
    for seed in range(8):
        shiny, dull = sharp(scene(seed, specular=1.0).view(0.0)), sharp(scene(seed).view(0.0))
        more_hwc = bare(shiny) - bare(dull)
        free_hw = (bare(shiny) < 255).all(2)
        assert more_hwc.min() >= 0
        assert np.ptp(more_hwc[free_hw], axis=1).max() <= 1  # without colour
        matt_hwc = shiny.textures.tissue_hwc.copy()
        matt_hwc[..., 3] = 0
        np.testing.assert_array_equal(
            bare(replace(shiny, textures=Textures(matt_hwc, shiny.textures.pieces))), bare(dull)
        )
        assert 0.005 < (more_hwc.mean(2) > 20).mean() < 0.4
        even_hw = bare(on_one_colour(shiny, 0, gloss=185)).mean(2)
        middle.append(even_hw[away() < 0.3].mean())
        rim.append(even_hw[away() > 0.6].mean())
    assert np.mean(middle) > 1.3 * np.mean(rim)


def test_a_shadow_falls_beside_the_tool_on_its_side_and_darkens_tissue_alone() -> None:
    view = replace(sharp(on_one_colour(scene(4).view(0.5), 110)), glints=())
    plain = draw(replace(view, shadow=Shadow()))
    for dx, dy in ((0.06, 0.0), (-0.06, 0.0), (0.0, 0.06)):
        seen = draw(replace(view, shadow=Shadow(dx, dy, 0.012, 0.7)))
        np.testing.assert_array_equal(seen.ids_hw, plain.ids_hw)
        darker_hw = plain.image_hwc.astype(int).mean(2) - seen.image_hwc.mean(2)
        assert (darker_hw[plain.ids_hw > 0] == 0).all() and darker_hw.min() >= 0 and darker_hw.max() > 40
        tool_hw = (plain.ids_hw > 0).astype(np.uint8)
        there, opposite = (
            (cv2.warpAffine(tool_hw, np.array([[1, 0, s * dx * DETAIL], [0, 1, s * dy * DETAIL]]), SIZE) > 0)
            & (tool_hw == 0)
            for s in (1, -1)
        )
        assert darker_hw[there & ~opposite].mean() > 3 * darker_hw[opposite & ~there].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_exposure_goes_up_and_down_without_a_jump_and_changes_all_alike(seed: int) -> None:
    def over_time(exposure: float) -> Float32:
        drifting = scene(seed, exposure=exposure)
        views = [on_one_colour(drifting.view(float(t)), 70) for t in np.arange(0, 20, 0.2)]
        return np.stack([bare(view)[::20, ::20].mean(2) for view in views])

    drifting, steady = over_time(1.0), over_time(0.0)
    by = drifting / steady
    assert by.max() > 1.3 and by.min() < 0.75
    assert np.abs(np.diff(by.mean((1, 2)))).max() < 0.12
    assert (np.diff(np.sign(np.diff(by.mean((1, 2))))) != 0).sum() >= 3  # up and down, and again
    assert (np.ptp(by, axis=(1, 2)) < 0.06).all()
    assert (steady == steady[0]).all()


# --- the air and the lens


@pytest.mark.parametrize("seed", SEEDS)
def test_smoke_lifts_black_lowers_white_and_takes_contrast_and_colour(seed: int) -> None:
    smoky, clear = scene(seed, smoke=1.0), scene(seed)
    black, white = (bare(on_one_colour(smoky.view(0.0), level)).mean(2) for level in (0, 100))
    clean = bare(on_one_colour(clear.view(0.0), 100)).mean(2)
    let_through = (white - black) / clean
    assert black.max() > 60 and let_through.min() < 0.6
    # What smoke takes of the view, it adds of its own light.
    np.testing.assert_allclose(black, (1 - let_through) * smoky.view(0.0).veil_rgb[1], atol=6)
    ours, theirs = bare(smoky.view(0.0)), bare(clear.view(0.0))
    assert np.percentile(ours, 2) > np.percentile(theirs, 2) + 5
    assert ours.std() < 0.9 * theirs.std()
    assert np.ptp(ours, axis=2).mean() < 0.75 * np.ptp(theirs, axis=2).mean()


def test_smoke_drifts_slowly() -> None:
    smoky = scene(3, smoke=1.0)
    veil = [smoky.view(float(t)).field_hwc[..., Channel.VEIL] for t in (0.0, 0.04, 8.0)]
    assert 0 < np.abs(veil[1] - veil[0]).max() < 0.05
    assert np.abs(veil[2] - veil[0]).max() > 0.2
    assert alike(veil[2], veil[0]) < 0.9  # it is elsewhere, not only thinner


def test_a_drop_shows_what_is_around_it_smaller_and_upside_down() -> None:
    view = sharp(scene(4).view(0.5))
    drop = Drop(0.1, -0.05, 0.2, 1.8, 0.95)
    dry, wet = (draw(replace(view, drops=drops)).image_hwc.astype(np.float32) for drops in ((), (drop,)))
    x, y = drop.x * DETAIL + SIZE[0] / 2 - 0.5, drop.y * DETAIL + SIZE[1] / 2 - 0.5
    y_h, x_w = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    from_middle = np.hypot(x_w - x, y_h - y) / (drop.radius * DETAIL)
    np.testing.assert_array_equal(dry[from_middle > 1], wet[from_middle > 1])

    def through(power: float) -> float:
        """How well the drop's inside is what a lens of that power shows."""
        shown = cv2.remap(dry, x + power * (x_w - x), y + power * (y_h - y), cv2.INTER_LINEAR)
        return alike(shown[from_middle < 0.7], wet[from_middle < 0.7])

    assert through(-1.8) > 0.99
    assert max(through(power) for power in (1.8, 1.0, -1.0, -2.6)) < 0.9


def test_drops_stay_for_seconds_do_not_touch_and_then_others_come() -> None:
    wet = scene(3, drops=1.0, sway=1.0, shake=1.0)
    stays = [wet.view(9.0 * stay + t).drops for stay in range(8) for t in (0.0, 4.0, 8.9)]
    for stay, (first, middle, last) in enumerate(zip(stays[::3], stays[1::3], stays[2::3], strict=True)):
        assert first == middle == last and len(first) > 2
        assert not set(first) & set(stays[3 * stay - 3])
        for a in first:
            assert all(a is b or math.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius for b in first)


@pytest.mark.parametrize("seed", SEEDS)
def test_fog_comes_from_the_rim_it_blurs_and_whitens(seed: int) -> None:
    foggy, clear = scene(seed, fog=1.0), scene(seed)
    ours_hw, theirs_hw = edges(bare(foggy.view(0.0))), edges(bare(clear.view(0.0)))
    middle, rim = (float(ours_hw[at].sum() / theirs_hw[at].sum()) for at in (away() < 0.12, away() > 0.6))
    assert middle > 0.85 and rim < 0.5
    black_hw = bare(on_one_colour(foggy.view(0.0), 0)).mean(2)
    assert black_hw[away() < 0.12].mean() < 15 < 50 < black_hw[away() > 0.6].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_smear_blurs_one_streak_that_stays_on_the_lens(seed: int) -> None:
    smeared, clear = scene(seed, smear=1.0), scene(seed)
    angle, offset, breadth = smeared._atmosphere._streak
    y_h, x_w = (np.mgrid[: SIZE[1], : SIZE[0]] + 0.5 - np.array(SIZE[::-1])[:, None, None] / 2) / DETAIL
    across = np.abs(x_w * math.sin(angle) - y_h * math.cos(angle) - offset) / breadth
    ours_hw, theirs_hw = edges(bare(smeared.view(0.0))), edges(bare(clear.view(0.0)))
    streak, far = (float(ours_hw[at].sum() / theirs_hw[at].sum()) for at in (across < 0.3, across > 2.5))
    assert streak < 0.8 and far > 0.97
    hazes = [scene(seed, smear=1.0, sway=1.0, shake=1.0).view(t).field_hwc[..., Channel.HAZE] for t in (0.0, 5.0)]
    np.testing.assert_array_equal(hazes[0], hazes[1])


# --- the hand that holds the camera


@pytest.mark.parametrize("how", ["zoom", "shake"])
def test_zoom_and_shake_move_tools_and_tissue_as_one_picture(how: str) -> None:
    moving, still = scene(6, **{how: 1.0}), scene(6)
    for seconds in (0.4, 2.6, 5.2):
        ours, theirs = draw(moving.view(seconds)), draw(still.view(seconds))
        place = moving._camera.place(seconds)
        middle = np.array(SIZE) / 2 - 0.5
        warp = np.column_stack([place[:, :2], place[:, 2] * DETAIL + middle - place[:, :2] @ middle])
        inside = cv2.warpAffine(np.ones(SIZE[::-1], np.uint8), warp, SIZE, flags=cv2.INTER_NEAREST) > 0
        ids_hw = cv2.warpAffine(theirs.ids_hw, warp, SIZE, flags=cv2.INTER_NEAREST)
        assert (ids_hw == ours.ids_hw)[inside].mean() > 0.98
        free = inside & (ours.ids_hw == 0) & (ids_hw == 0)
        ours_hwc, theirs_hwc = (
            p.image_hwc - cv2.GaussianBlur(p.image_hwc.astype(np.float32), (0, 0), 4) for p in (ours, theirs)
        )
        same = alike(cv2.warpAffine(theirs_hwc, warp, SIZE)[free], ours_hwc[free])
        other = alike(theirs_hwc[free], ours_hwc[free])
        assert same > 0.9 > 0.75 > other


def test_zoom_goes_in_and_out_and_a_nearer_lamp_is_brighter() -> None:
    zooming, still = scene(6, zoom=1.0), scene(6)
    times = [float(t) for t in np.arange(0, 40, 0.5)]
    sizes = [float(np.sqrt(np.linalg.det(zooming._camera.place(t)[:, :2]))) for t in times]
    assert max(sizes) > 1.15 and min(sizes) < 0.87
    assert np.abs(np.diff(sizes)).max() < 0.15
    for t in (times[int(np.argmax(sizes))], times[int(np.argmin(sizes))]):
        step = [np.linalg.norm(np.diff(places(s, t)[32, 30:36], axis=0), axis=1).mean() for s in (zooming, still)]
        zoom = float(step[1] / step[0])
        assert zoom == pytest.approx(sizes[times.index(t)], rel=0.02)  # tissue is seen so much larger
        light = [bare(on_one_colour(s.view(t), 60))[60, 80].mean() for s in (zooming, still)]
        assert (light[0] > light[1]) == (zoom > 1)


def test_sway_is_far_and_slow_and_shake_near_and_fast() -> None:
    def middle(how: str, times: Float32) -> Float32:
        moving = scene(5, **{how: 1.0})
        return np.stack([places(moving, float(t))[32, 32] for t in times])

    slow, fast = np.arange(0, 24, 0.5, np.float32), np.arange(0, 2, 0.04, np.float32)
    range_ = {how: np.ptp(middle(how, slow), axis=0).max() for how in ("sway", "shake")}
    speed = {how: np.linalg.norm(np.diff(middle(how, fast), axis=0), axis=1).max() / 0.04 for how in ("sway", "shake")}
    assert range_["sway"] > 2 * range_["shake"] > 0.02
    assert speed["shake"] > 2 * speed["sway"] > 0.005


# --- the camera


def test_noise_is_another_at_every_frame_and_has_no_mean() -> None:
    noisy, clean = scene(3, noise=0.6), scene(3)
    one, two = (bare(on_one_colour(noisy.view(t), 90)) - bare(on_one_colour(clean.view(t), 90)) for t in (1.0, 1.04))
    assert abs(one.mean()) < 0.6 and 5 < one.std() < 20
    assert abs(alike(one, two)) < 0.05
    faint = bare(on_one_colour(scene(3, noise=0.2).view(1.0), 90)) - bare(on_one_colour(clean.view(1.0), 90))
    assert faint.std() < 0.6 * one.std()


def test_blur_takes_edges_and_no_light() -> None:
    soft, sharp = (bare(scene(3, blur=strength).view(0.0)) for strength in (1.0, 0.0))
    assert edges(soft).mean() < 0.75 * edges(sharp).mean()
    assert soft.mean() == pytest.approx(sharp.mean(), abs=0.7)


def test_compression_shows_blocks_of_eight_pixels() -> None:
    def blocky(image_hwc: Float32) -> float:
        """How much larger steps are between blocks than within."""
        luma_hw = image_hwc @ np.array((0.299, 0.587, 0.114), np.float32)
        steps = np.abs(np.diff(luma_hw, axis=1)).mean(0), np.abs(np.diff(luma_hw, axis=0)).mean(1)
        return float(np.mean([step[7::8].mean() / np.delete(step, np.s_[7::8]).mean() for step in steps]))

    views = [scene(3, compression=strength).view(0.0) for strength in (0.0, 0.3, 1.0)]
    found = [blocky(bare(view)) for view in views]
    assert 0.93 < found[0] < 1.07 and found[0] < found[1] < found[2] and found[2] > 1.2


def test_a_neutral_camera_shows_colours_as_they_are_and_others_each_in_their_own_way() -> None:
    white, red = (180.0, 180.0, 180.0), (200.0, 60.0, 50.0)
    neutral = Grade.draw(np.random.default_rng(0), 0.0, grey=False)
    np.testing.assert_allclose(neutral.colour(white), white, rtol=1e-4)
    np.testing.assert_allclose(neutral.colour(red), red, rtol=1e-4)
    graded = [Grade.draw(np.random.default_rng(seed), 1.0, grey=False) for seed in range(30)]
    balance = [Grade(balance=g.balance).colour(white) for g in graded]
    warmth = [seen[0] / seen[2] for seen in balance]
    vivid = [np.ptp(Grade(saturation=g.saturation).colour(red)) / np.ptp(red) for g in graded]
    light = [Grade(gamma=g.gamma).colour(white)[0] / 180 for g in graded]
    for values in (warmth, vivid, light):
        assert min(values) < 0.93 and max(values) > 1.07


# --- the truth


PHOTOMETRIC: tuple[dict[str, object], ...] = (
    {"smoke": 1.0}, {"bleeding": 1.0}, {"drops": 1.0}, {"fog": 1.0}, {"smear": 1.0}, {"exposure": 1.0},
    {"specular": 1.0}, {"shadow": 1.0}, {"grading": 1.0}, {"noise": 1.0}, {"blur": 1.0}, {"compression": 1.0},
    {"grey": True}, {"site": Site.BOWEL}, {"breathing": 1.0}, {"contact": 0.0},
)  # fmt: skip


def test_no_effect_of_light_lens_or_sensor_changes_a_mask() -> None:
    for seconds in (1.0, 4.0):
        clean = draw(scene(6).view(seconds))
        for changed in PHOTOMETRIC:
            seen = draw(scene(6, **changed).view(seconds))
            np.testing.assert_array_equal(seen.ids_hw, clean.ids_hw, err_msg=str(changed))
            np.testing.assert_array_equal(seen.parts_hw, clean.parts_hw, err_msg=str(changed))
        for how in ("zoom", "shake", "sway"):  # the negative control
            assert (draw(scene(6, **{how: 1.0}).view(seconds)).ids_hw != clean.ids_hw).any(), how


@pytest.mark.parametrize("later", [False, True])
def test_the_parts_of_a_tool_are_its_mask_whatever_cuts_it(later: bool) -> None:
    for seed in range(4):
        cut = scene(seed, surround=0.5, interlaced=later, contact=1.0, tools=(ToolKind.GRASPER,) * 3, pace=1.0)
        for part in np.linspace(0.05, 0.95, 7):
            seen = draw(cut.view(float(part) * cut._moves.period))
            np.testing.assert_array_equal(seen.parts_hw > 0, seen.ids_hw > 0)
            again = draw(cut.view(float(part) * cut._moves.period))
            np.testing.assert_array_equal(seen.parts_hw, again.parts_hw)
