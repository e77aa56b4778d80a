"""A data set through an engine: what is asked, what is judged, what is named when it goes wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from rtseg.base.errors import ConfigError, SourceError
from rtseg.base.types import ImageU8
from rtseg.data.dataset import Dataset, Sequence, Target, Truth
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.evaluate import PROTOCOLS, EvaluationSettings, Result, evaluate
from rtseg.evaluate.settings import asked
from rtseg.sam2 import Sam2, get_preset

H, W, COUNT = 48, 64, 6


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    torch.manual_seed(3)
    network = Sam2(get_preset("nano"), 64)
    return TorchEngine(network, Recipe(model="nano", image_size=64, runtime="torch", max_objects=1), "abc", "cpu")


def sequence(name: str, *, late: int = 2, annotated: tuple[int, ...] = tuple(range(COUNT))) -> Sequence:
    """Two squares that slide over noise; the second one enters `late`."""

    def boxes(t: int) -> dict[int, tuple[slice, slice]]:
        first = np.s_[4 : 24 + t, 4 + t : 24 + t]
        return {1: first, 2: np.s_[28:44, 40:60]} if t >= late else {1: first}

    def image(t: int) -> ImageU8:
        image_hwc = np.random.default_rng(t).integers(0, 90, (H, W, 3)).astype(np.uint8)
        for i, box in boxes(t).items():
            image_hwc[box] = (250, 120 * i, 40)
        return image_hwc

    def truth(t: int) -> Truth | None:
        if t not in annotated:
            return None
        masks = {i: np.zeros((H, W), bool) for i in boxes(t)}
        for i, box in boxes(t).items():
            masks[i][box] = True
        return masks

    targets = (Target(1, "left", "grasper"), Target(2, "right", "hook"))
    return Sequence(name, COUNT, targets, image, truth)


def empty(name: str) -> Sequence:
    return replace(sequence(name), truth=lambda t: {})


def run(engine: TorchEngine, *sequences: Sequence, **asked: object) -> Result:
    return evaluate(Dataset("set", "test", sequences), engine, EvaluationSettings(**asked))


def test_every_mask_after_the_prompt_is_judged(engine: TorchEngine) -> None:
    result = run(engine, sequence("a", late=0), sequence("b", annotated=(1, 3, 4)), protocol="enter")
    keys = [(r.sequence, r.object, r.frame) for r in result.rows]
    assert keys == [
        *(("a", i, t) for t in range(COUNT) for i in (1, 2)),
        *(("b", i, t) for t, ids in ((1, (1,)), (3, (1, 2)), (4, (1, 2))) for i in ids),
    ]
    assert [k for k, r in zip(keys, result.rows, strict=True) if r.given] == [
        ("a", 1, 0), ("a", 2, 0), ("b", 1, 1), ("b", 2, 3)
    ]  # fmt: skip
    assert {r.category for r in result.classes} == {"grasper", "hook"}
    assert all(r.dice > 0.8 for r in result.rows if r.given)  # the truth itself, at the network's resolution
    assert set(result.tracked["b"].masks) == set(range(1, COUNT))  # what nobody annotated is tracked all the same


def test_what_made_the_result_is_in_it(engine: TorchEngine) -> None:
    result = run(engine, sequence("a"), policy="fifo", prompt="points-3", seed=4)
    assert json.loads(json.dumps(result.made_by)) == result.made_by
    assert json.loads(json.dumps(result.settings)) == result.settings
    assert result.settings["prompt"] == "points-3" and result.settings["seed"] == 4
    made_by = result.made_by
    assert (made_by["engine"], made_by["weights_sha256"], made_by["policy"]) == (engine.description, "abc", "fifo")
    assert made_by["versions"]["torch"] == torch.__version__.split("+")[0] or made_by["versions"]["torch"]
    assert run(engine, sequence("a")).made_by["policy"] == engine.recipe.memory.policy


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, set()),
        ({"protocol": "every"}, {"every"}),
        ({"protocol": "interactive"}, {"clicks", "frames"}),
        ({"protocol": "image", "prompt": "box"}, {"clicks"}),
        ({"protocol": "both"}, {"slices"}),
        ({"corruption": "smoke"}, {"level", "seed"}),
        ({"prompt": "points-1"}, set()),
        ({"prompt": "points-5"}, {"seed"}),
    ],
)
def test_only_settings_that_matter_are_kept(given: dict[str, object], kept: set[str]) -> None:
    always = {"protocol", "prompt", "corruption", "policy", "tolerance"}
    found = asked(EvaluationSettings(**given))
    assert found.keys() == always | kept
    assert asked(EvaluationSettings(**{**found, "slices": tuple(found.get("slices", ()))})) == found


def test_clicks_are_as_many_whether_said_or_not() -> None:
    assert asked(EvaluationSettings("interactive")) == asked(EvaluationSettings("interactive", clicks=3))
    assert asked(EvaluationSettings("interactive")) != asked(EvaluationSettings("interactive", clicks=2))
    assert asked(EvaluationSettings("image", "box")) == asked(EvaluationSettings("image", "box", clicks=0))
    assert asked(EvaluationSettings("every")) == asked(EvaluationSettings("every", every=25))
    assert asked(EvaluationSettings(corruption="dark")) == asked(EvaluationSettings(corruption="dark", level=3))


def test_a_missing_scipy_is_said_before_anything_is_looked_at(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtseg.evaluate import require

    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")
    require()
    read: list[int] = []
    watched = replace(sequence("a"), image=lambda t: (read.append(t), sequence("a").image(t))[1])
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    for call in (require, partial(run, engine, watched)):
        with pytest.raises(ConfigError, match=r"^scipy is not installed, .*: pip install 'rtseg\[eval\]'$"):
            call()
    assert read == []


def test_who_was_never_prompted_is_named(engine: TorchEngine) -> None:
    result = run(engine, sequence("a"), sequence("b", late=0), empty("nothing"))
    assert result.made_by["not_prompted"] == {"a": [2], "nothing": [1, 2]}
    assert set(result.tracked) == {"a", "b"}
    hooks = [(r.frame, r.mask_area) for r in result.classes if (r.sequence, r.category) == ("a", "hook")]
    assert hooks == [(t, 0) for t in range(2, COUNT)]  # a class of these frames all the same


def test_where_nothing_can_be_prompted_there_is_no_result(engine: TorchEngine) -> None:
    with pytest.raises(SourceError, match="^set: no sequence shows a target"):
        run(engine, empty("nothing"))
    with pytest.raises(SourceError, match="^set: no sequence shows a target"):
        run(engine, sequence("a", annotated=(0, 1)), protocol="both", slices=(3,))


def test_slices_outside_a_volume_are_an_error_before_anything_is_tracked(engine: TorchEngine) -> None:
    told: list[int] = []
    dataset = Dataset("set", "test", (replace(sequence("long"), count=9), sequence("short")))
    with pytest.raises(ConfigError, match="^slices 7: short has no such; expected 0 to 5$"):
        evaluate(dataset, engine, EvaluationSettings("both", slices=(5, 7)), lambda done, total: told.append(done))
    assert told == []


def test_a_sequence_of_slices_is_known_as_one(engine: TorchEngine) -> None:
    volume = replace(sequence("v", late=0), volume=True, group="patient")
    result = run(engine, volume, sequence("film", late=0), protocol="forward", slices=(1,))
    assert {name: tracked.volume for name, tracked in result.tracked.items()} == {"v": True, "film": False}
    assert result.volumes == []  # nobody knows how thick its slices are
    solid = run(engine, replace(volume, spacing_mm=(1, 1), slice_mm=2.0), protocol="forward", slices=(1,))
    assert [(row.sequence, row.object) for row in solid.volumes] == [("v", 1), ("v", 2)]
    assert (result.group("v"), result.group("film")) == ("patient", "film")


def test_a_file_that_cannot_be_read_ends_it_and_is_named(engine: TorchEngine) -> None:
    def image(t: int) -> ImageU8:
        if t == 3:
            raise SourceError("frames/00003.png: cannot be read")
        return sequence("b").image(t)

    with pytest.raises(SourceError, match="^b: frames/00003.png: cannot be read$"):
        run(engine, sequence("a"), replace(sequence("b"), image=image))


def test_two_sequences_of_one_name_are_refused(engine: TorchEngine) -> None:
    with pytest.raises(SourceError, match="a: another sequence has this name"):
        run(engine, sequence("a"), sequence("a"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_and_repeats(engine: TorchEngine, protocol: str) -> None:
    own = {"every": {"every": 2}, "interactive": {"clicks": 1, "frames": 3}, "image": {"clicks": 1}}
    asked = {"protocol": protocol, "prompt": "points-3", "seed": 2, **own.get(protocol, {})}
    first, again = (run(engine, sequence("a"), **asked) for _ in range(2))
    assert first.rows and first.rows == again.rows and first.classes == again.classes
    assert first.tracked["a"].masks == again.tracked["a"].masks
    assert first.tracked["a"].prompts == again.tracked["a"].prompts
    assert any(not r.given for r in first.rows)


def test_a_corruption_changes_the_pictures_and_not_the_prompts(engine: TorchEngine) -> None:
    clean, spoilt = (run(engine, sequence("a"), **how) for how in ({}, {"corruption": "dark", "level": 5}))
    assert clean.tracked["a"].prompts == spoilt.tracked["a"].prompts
    assert clean.tracked["a"].masks != spoilt.tracked["a"].masks


def test_progress_counts_frames_and_ends_with_all(engine: TorchEngine) -> None:
    told: list[tuple[int, int | None]] = []
    sequences = (sequence("a", late=0), empty("nothing"), sequence("b"))
    evaluate(
        Dataset("set", "test", sequences),
        engine,
        EvaluationSettings(protocol="enter"),
        lambda done, total: told.append((done, total)),
    )
    assert told == sorted(told) and told[-1] == (3 * COUNT, 3 * COUNT) and len(told) > 2 * COUNT


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"protocol": "vidoe"}, "protocol 'vidoe': no such protocol; did you mean 'video'"),
        ({"prompt": "points"}, "did you mean 'points-"),
        ({"corruption": "fog"}, "corruption 'fog': no such corruption; expected one of: smoke"),
        ({"policy": "lifo"}, "did you mean 'fifo'"),
        ({"protocol": "image", "prompt": "mask"}, "the answer itself"),
        ({"level": 0}, "level = 0; expected 1 to 5"),
        ({"every": 0}, "every = 0; expected 1 or more"),
        ({"seed": -1}, "seed = -1; expected 0 or more"),
        ({"clicks": -1}, "clicks = -1"),
        ({"prompt": "points-2"}, r"did you mean 'points-.'\? expected one of: mask, box, points-1, points-3, points-5"),
        ({"slices": (3,)}, "slices: is for the protocol forward or backward or both, not for 'video'; leave it out"),
        ({"every": 25}, "every: is for the protocol every, not for 'video'"),
        ({"clicks": 0}, "clicks: is for the protocol interactive or image"),
        ({"protocol": "every", "frames": 8}, "frames: is for the protocol interactive"),
        ({"level": 3}, "level: is that of a corruption, and there is none"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        EvaluationSettings(**asked)


def test_the_public_names_are_there() -> None:
    import rtseg.evaluate as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    assert sorted(room._HOMES) == sorted(room.__all__)
    with pytest.raises(AttributeError, match="evaluat"):
        _ = room.evaluat


def test_only_what_was_tracked_is_judged(engine: TorchEngine) -> None:
    """Backward there is nothing after the prompted slice; an image has rows of what is visible on it."""
    backward = run(engine, sequence("a"), protocol="backward", slices=(3,))
    assert [(r.frame, r.object) for r in backward.rows] == [(t, i) for t in range(4) for i in (1, 2)]
    assert [(r.frame, r.object) for r in backward.rows if r.given] == [(3, 1), (3, 2)]
    image = run(engine, sequence("a", late=4), protocol="image", prompt="box")
    assert [(r.frame, r.object) for r in image.rows] == [
        (t, i) for t in range(COUNT) for i in ((1, 2) if t >= 4 else (1,))
    ]
    assert not any(r.given for r in image.rows)
