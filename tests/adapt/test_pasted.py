"""Pasted objects: instruments reach in from an edge, what leaves comes back, and copies look like what they copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtseg.adapt import pasted
from rtseg.adapt.appearance import unchanged
from rtseg.adapt.batches import uniform
from rtseg.adapt.clip_spec import sample_clip
from rtseg.adapt.motion import STATIC, excursion
from rtseg.adapt.pasted import entry_of, object_region, sample_pasted
from rtseg.adapt.render import render_clips
from rtseg.adapt.training_video import FIRST_PASTED_ID, TrainingVideo

from .conftest import squares
from .test_batches import NOISE, QUIET

SIZE = 96


def instrument() -> TrainingVideo:
    """A bar from the right edge to the middle, and a square inside."""
    image_t3hw, ids_thw = torch.full((1, 3, 80, 100), 60, dtype=torch.uint8), torch.zeros(1, 80, 100, dtype=torch.uint8)
    ids_thw[0, 30:40, 50:], ids_thw[0, 60:70, 20:30] = 1, 2
    image_t3hw[0, :, ids_thw[0] > 0] = 240
    return TrainingVideo("instrument", image_t3hw, ids_thw)


def test_the_place_where_an_object_enters() -> None:
    entry = entry_of(instrument(), 0, 1)
    assert entry is not None and np.allclose(entry, (98.5, 34.5))
    assert entry_of(instrument(), 0, 2) is None


def test_what_reaches_the_edge_of_its_picture_mostly_reaches_in_from_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    video, blank = instrument(), squares(0, frames=1)
    blank = replace(blank, ids_thw=torch.zeros_like(blank.ids_thw))

    def share_at_edge() -> float:
        rng, specs = np.random.default_rng(0), []
        for _ in range(40):
            one = sample_pasted(rng, object_region(video, 0, 1), unchanged(1), 1, SIZE, 0.0, STATIC)
            spec = sample_clip(rng, blank, uniform([blank]), 1, SIZE, QUIET)
            specs.append(replace(spec, pasted=(one,)))
        own_nhw = render_clips(specs, SIZE, NOISE).id_nthw[:, 0] == FIRST_PASTED_ID
        edges = (own_nhw[:, 0], own_nhw[:, -1], own_nhw[:, :, 0], own_nhw[:, :, -1])
        return float(torch.stack([edge.any(1) for edge in edges]).any(0).float().mean())

    assert share_at_edge() > 0.65
    monkeypatch.setattr(pasted, "ENTERS", 0.0)
    assert share_at_edge() < 0.5


def test_what_leaves_mostly_comes_back() -> None:
    rng = np.random.default_rng(0)
    away = np.stack([excursion(rng, 6) for _ in range(200)])
    assert (away[:, 0] == 0).all() and (away.max(1) > 0.25).all() and (away <= 1).all()
    assert 0.2 < (away[:, -1] == 0).mean() < 0.8
    assert excursion(rng, 2).shape == (2,)


def test_an_object_that_leaves_is_not_seen_meanwhile() -> None:
    rng, region = np.random.default_rng(1), object_region(instrument(), 0, 2)
    hidden = moved = 0
    for _ in range(30):
        one = sample_pasted(rng, region, unchanged(6), 6, SIZE, 1.0, STATIC)
        hidden += int(not one.visible_t.all())
        moved += int(not np.allclose(one.map_t23[0], one.map_t23[1:], atol=1e-3))
        assert one.visible_t[0] and (not one.visible_t.all() or not np.allclose(one.map_t23[0], one.map_t23[1:]))
    assert hidden > 5 and moved > 5


def test_a_copy_of_an_object_of_the_video_looks_like_it() -> None:
    rng, video = np.random.default_rng(0), squares(0)
    doubled = 0
    for _ in range(30):
        spec = sample_clip(rng, video, uniform([squares(1)]), 2, SIZE, replace(QUIET, pasted=1.0, duplicate=1.0))
        assert all(one.video is video and one.duplicated for one in spec.pasted)
        assert all(np.array_equal(one.appearance.color_cc, np.eye(3)) for one in spec.pasted)
        doubled += len(spec.pasted)
    assert doubled > 40
    spec = sample_clip(rng, video, uniform([squares(1)]), 2, SIZE, replace(QUIET, pasted=1.0))
    assert all(one.video is not video and not one.duplicated for one in spec.pasted)
