"""Batches: reproducible by step, with images and masks that match, and with every kind of event."""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from rtseg.adapt import render
from rtseg.adapt.appearance import Appearance
from rtseg.adapt.batches import BatchSampler, Prefetcher, VideoSource, uniform
from rtseg.adapt.clip_spec import Augmentation, ClipSpec, sample_clip
from rtseg.adapt.motion import affine, invert
from rtseg.adapt.outlines import sample_outline, signed_distance
from rtseg.adapt.pasted import whole, window_of
from rtseg.adapt.render import _sample, _source_points, render_clips
from rtseg.adapt.training_video import MIN_AREA, TrainingVideo

from .conftest import CPU, squares

NOISE = torch.Generator(CPU)
QUIET = Augmentation(
    pasted=0.0, field_of_view=0.0, scene_cut=0.0, leave=0.0, duplicate=0.0, low_frame_rate=0.0, animated=0.0,
    highlights=0.0, smoke=0.0, faults=0.0,
)  # fmt: skip


def test_a_batch_depends_on_seed_and_step_alone(clips: BatchSampler) -> None:
    clips.batch(6, 2, 3, 64, 3)
    first, again, other = (clips.batch(step, 2, 3, 64, 3) for step in (7, 7, 8))
    assert torch.equal(first.image_ntchw, again.image_ntchw)
    assert torch.equal(first.mask_bthw, again.mask_bthw)
    assert not torch.equal(first.image_ntchw, other.image_ntchw)


def test_shapes_and_objects_that_can_be_prompted(clips: BatchSampler) -> None:
    for step in range(12):
        batch = clips.batch(step, 2, 4, 64, 2)
        assert batch.image_ntchw.shape == (2, 4, 3, 64, 64)
        assert batch.image_ntchw.dtype == torch.uint8
        assert batch.mask_bthw.shape == (len(batch.clip_b), 4, 64, 64)
        assert set(batch.mask_bthw.unique().tolist()) <= {0, 1}
        assert (batch.mask_bthw[:, 0].flatten(1).float().mean(1) > MIN_AREA).all()
        assert batch.clip_b.bincount().max() <= 2


def test_objects_of_a_clip_do_not_overlap_and_some_leave(clips: BatchSampler) -> None:
    gone = count = 0
    for step in range(15):
        batch = clips.batch(step, 3, 4, 64, 3)
        for n in range(3):
            assert batch.mask_bthw[batch.clip_b == n].sum(0).max() <= 1
        there_bt = batch.mask_bthw.flatten(2).bool().any(2)
        gone, count = gone + int((~there_bt).sum()), count + there_bt.numel()
    assert 0 < gone < 0.4 * count


def test_each_source_has_its_share() -> None:
    sources = [VideoSource("often", 0.75, uniform([squares(0)])), VideoSource("seldom", 0.25, uniform([squares(1)]))]
    sampler = BatchSampler(sources, uniform([squares(2)]), 0, CPU)
    for step in range(5):
        names = [p.video.name for p in sampler.specs(np.random.default_rng(step), 8, 2, 64)]
        assert names.count("squares-0") == 6


def test_the_image_of_an_object_is_where_its_mask_is() -> None:
    """Without appearance changes and pasted objects, the red of the source is under the mask after any motion."""
    video = squares(3)
    rng = np.random.default_rng(1)
    for _ in range(8):
        made = render_clips([_plain(sample_clip(rng, video, uniform([video]), 3, 96, QUIET))], 96, NOISE)
        bright_thw = made.image_nt3hw[0, :, 0] > 170
        own_thw = made.id_nthw[0] > 0
        union = (bright_thw | own_thw).sum()
        assert (bright_thw & own_thw).sum() > 0.9 * union
        assert (bright_thw & own_thw.roll(12, -1)).sum() < 0.8 * union


def _plain(made: ClipSpec) -> ClipSpec:
    """The clip without photometric augmentation."""
    identity = Appearance(np.eye(3, dtype=np.float32), 1.0, np.ones(len(made.frames_t), np.float32))
    return replace(made, appearance=identity)


def test_sampling_agrees_with_opencv() -> None:
    """The same warp by `cv2.warpAffine`, reflection beyond the edge included."""
    video = squares(0)
    map_23 = affine((50, 40), (30, 36), (0.55, 0.6), 0.3)
    at_khw2 = _source_points(invert(map_23[None]), np.zeros((1, 2, 5, 5), np.float32), whole(64), 64, CPU)
    picture, ids = _sample(video, 0, at_khw2)
    image_hwc = np.ascontiguousarray(video.image_t3hw[0].permute(1, 2, 0).numpy())
    expected = cv2.warpAffine(image_hwc, map_23, (64, 64), borderMode=cv2.BORDER_REFLECT_101)
    got = (picture[0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(got - expected).mean() < 2
    assert np.abs(got[:, ::-1] - expected).mean() > 20
    mask_hw = cv2.warpAffine(video.ids_thw[0].numpy(), map_23, (64, 64), flags=0, borderMode=cv2.BORDER_REFLECT_101)
    assert (ids[0].numpy() == mask_hw).mean() > 0.98


def test_small_and_large_sources_share_a_batch() -> None:
    small, large = squares(0), squares(1)
    large = TrainingVideo("large", large.image_t3hw.repeat(1, 1, 2, 2), large.ids_thw.repeat(1, 2, 2))
    rng = np.random.default_rng(0)
    specs = [_plain(sample_clip(rng, v, uniform([small, large]), 2, 64, QUIET)) for v in (small, large)]
    together, alone = render_clips(specs, 64, NOISE), render_clips(specs[:1], 64, NOISE)
    assert (together.image_nt3hw[0].int() - alone.image_nt3hw[0].int()).abs().max() <= 1
    assert torch.equal(together.id_nthw[0], alone.id_nthw[0])


def test_only_the_window_of_a_pasted_object_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is smaller than the picture, and nothing of the object is outside of it."""
    video, rng = squares(0), np.random.default_rng(2)
    specs = [sample_clip(rng, video, uniform([squares(1)]), 3, 64, replace(QUIET, pasted=1.0)) for _ in range(8)]
    windows = [window_of(one, np.arange(3), 64) for spec in specs for one in spec.pasted]
    shares = [(y.stop - y.start) * (x.stop - x.start) / 64**2 for y, x in filter(None, windows)]
    assert np.mean(shares) < 0.6
    made = render_clips(specs, 64, NOISE)
    monkeypatch.setattr(render, "window_of", lambda one, times, size: whole(size))
    full = render_clips(specs, 64, NOISE)
    assert torch.equal(made.id_nthw, full.id_nthw)
    assert (made.surface_ntgg4 - full.surface_ntgg4).abs().max() < 1e-2
    monkeypatch.setattr(render, "window_of", lambda one, times, size: (slice(0, 20), slice(0, 20)))
    assert not torch.equal(render_clips(specs, 64, NOISE).id_nthw, full.id_nthw)


def test_a_field_of_view_hides_objects_and_image() -> None:
    video = squares(0)
    rng = np.random.default_rng(1)
    spec = sample_clip(rng, video, uniform([video]), 3, 64, replace(QUIET, field_of_view=1.0))
    made = render_clips([spec], 64, NOISE)
    dark_thw = made.image_nt3hw[0].amax(1) <= 6
    assert 0.05 < dark_thw.float().mean() < 0.9
    assert not made.id_nthw[0][dark_thw].any()


def test_outlines_cover_some_but_not_all_of_the_image() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-2:2:64j, -2:2:64j]
    uv_hw2 = torch.from_numpy(np.stack([x, y], -1).astype(np.float32))
    outlines = [sample_outline(rng) for _ in range(60)]
    covered = (signed_distance(outlines, uv_hw2.expand(60, -1, -1, -1)) < 0).float().mean((1, 2))
    assert (covered > 0.005).all()
    assert (covered < 0.7).all()
    assert covered.std() > 0.02
    assert {o.blob for o in outlines} == {True, False}


def test_a_video_without_objects_gets_some() -> None:
    blank = TrainingVideo("blank", squares(0).image_t3hw, torch.zeros(8, 80, 100, dtype=torch.uint8))
    sampler = BatchSampler([VideoSource("blank", 1.0, uniform([blank]))], uniform([blank]), 0, CPU)
    batch = sampler.batch(0, 4, 2, 64, 2)
    assert len(batch.clip_b) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: equal batches on one are not tested")
def test_a_gpu_makes_the_same_clips() -> None:
    videos = [squares(0)]
    there = [TrainingVideo(v.name, v.image_t3hw.cuda(), v.ids_thw.cuda()) for v in videos]
    specs = [sample_clip(np.random.default_rng(k), videos[0], uniform(videos), 3, 64, QUIET) for k in range(3)]
    others = [sample_clip(np.random.default_rng(k), there[0], uniform(there), 3, 64, QUIET) for k in range(3)]
    one, two = render_clips(specs, 64, NOISE), render_clips(others, 64, torch.Generator("cuda"))
    assert (one.id_nthw == two.id_nthw.cpu()).float().mean() > 0.995


def test_prefetched_batches_are_the_same(clips: BatchSampler) -> None:
    sizes = [(2, 2), (4, 1)]
    prefetcher = Prefetcher(clips, lambda step: sizes[step % 2])
    for step in (0, 1, 2, 7, 8):
        made, wanted = (maker.batch(step, *sizes[step % 2], 64, 1) for maker in (prefetcher, clips))
        assert torch.equal(made.image_ntchw, wanted.image_ntchw) and torch.equal(made.mask_bthw, wanted.mask_bthw)
    assert prefetcher.batch(9, 1, 3, 64, 1).image_ntchw.shape == (1, 3, 3, 64, 64)
    prefetcher.close()


def test_close_ends_the_prefetching_thread(clips: BatchSampler) -> None:
    before = threading.active_count()
    prefetcher = Prefetcher(clips, lambda step: (2, 2))
    prefetcher.batch(0, 2, 2, 64, 1)
    assert threading.active_count() == before + 1
    prefetcher.close()
    prefetcher.close()
    assert threading.active_count() == before
