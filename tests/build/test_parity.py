"""The parity check: a right engine passes, a wrong one does not, and the report names the verb that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import EngineError, PromptError
from rtseg.base.types import ImageU8
from rtseg.build import clips
from rtseg.build.clips import Clip, calibration_images, synthetic_clip, user_clip
from rtseg.build.parity import LIMITS, MOST_ERROR, PROBED, SMALL, STEPS, check_parity, explain, overlap
from rtseg.build.verb_errors import VerbErrors, relative_error
from rtseg.engine import Decoded, Engine, Features, PromptBatch, Recall, Remembered, open_engine
from rtseg.engine.base import Verbs
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Preset, get_preset
from rtseg.synthetic import HELD_OUT_SEED
from tests.engine.conftest import random_network

RECIPE = Recipe(image_size=64, runtime="torch", precision="fp32")


TINY = replace(
    get_preset("nano-hiera"), name="tiny", embed_dim=8, stages=(1, 1, 1, 1), global_blocks=(), dim=32, memory_dim=16,
    attention_layers=1, attention_ffn=32, decoder_ffn=32, decoder_heads=2,
)  # fmt: skip


def engine(precision: str = "fp32", preset: Preset = TINY) -> TorchEngine:
    """A small random network in which everything matters: every table, every pointer."""
    torch.manual_seed(0)  # of the points' positions, which are no parameter
    return TorchEngine(random_network(preset, 64), replace(RECIPE, precision=precision), "", "cpu")


@pytest.fixture(scope="module")
def reference() -> TorchEngine:
    return engine()


@pytest.fixture(scope="module")
def clip() -> Clip:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "FRAMES", 26)
        patch.setattr(clips, "SEED", HELD_OUT_SEED + 48)  # the random network's masks are no ties there
        made = synthetic_clip(64, 4)
        kept = list(made.frames())
    return replace(made, frames=lambda: iter(kept), count=26)


class Skewed(Verbs):
    """An engine of which one thing is wrong: `wrong[name]` is applied to what a verb says, or to what it recalls."""

    def __init__(self, engine: Engine, **wrong: Callable[[Any], Any]) -> None:
        self.engine, self.recipe, self.preset, self.image_size = engine, engine.recipe, engine.preset, engine.image_size
        self.weights_hash, self.description = "", "skewed"
        self.wrong = wrong

    def _say(self, verb: str, answer: Any) -> Any:
        return self.wrong.get(verb, lambda answer: answer)(answer)

    def encode_image(self, image_hwc: ImageU8) -> Features:
        return self._say("encode_image", self.engine.encode_image(image_hwc))

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        asked = [r and self._say("recall", r) for r in recalls]
        return self._say("attend", self.engine.attend(features, asked))

    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        return self._say("decode", self.engine.decode(conditioned_bchw, features, prompts))

    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        return self._say("remember", self.engine.remember(features, logits_b1hw, score_b, prompted))

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        return self._say("track", super().track(image_hwc, recalls))


def shaken(t: Tensor, share: float = 0.1) -> Tensor:
    """A share of its size wrong, always in the same way."""
    noise = torch.randn(t.shape, generator=torch.Generator().manual_seed(0))
    return t + share * noise * t.square().mean().sqrt()


def test_the_same_engine_passes(reference: TorchEngine, clip: Clip) -> None:
    seen: list[tuple[int, int | None]] = []
    report = check_parity(reference, engine(), clip, lambda done, total: seen.append((done, total)))
    assert report["ok"] and report["drifted"] is None and report["first_failure"] is None
    assert (report["frames"], report["objects"], report["least"], report["mean"]) == (26, 4, 1.0, 1.0)
    assert seen == [(k + 1, 26) for k in range(26)]
    assert set(report["verbs"]) == set(STEPS)
    assert all(verb["worst"] == 0 for verb in report["verbs"].values())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.slow
def test_half_precision_passes_and_its_error_is_seen(clip: Clip) -> None:
    nano = get_preset("nano-hiera")  # whose masks are no ties on this clip
    report = check_parity(engine("fp32", nano), engine("bf16", nano), clip)
    assert report["ok"], explain(report)
    assert 0.98 <= report["least"] <= report["mean"] < 1
    seen = {name: verb["typical"] / verb["limit"] for name, verb in report["verbs"].items()}
    assert seen.pop("decode") == 0  # which the reference always has in fp32
    assert all(0 < share < 1 for share in seen.values())


WRONG: dict[str, tuple[str, dict[str, Callable[[Any], Any]]]] = {
    "encode": ("encode_image", {"encode_image": lambda f: Features(shaken(f.top), f.mid, f.fine)}),
    "fine": ("encode_image", {"encode_image": lambda f: Features(f.top, f.mid, shaken(f.fine))}),
    "attend": ("attend", {"attend": shaken}),
    "logits": ("decode", {"decode": lambda d: replace(d, logits_b1hw=shaken(d.logits_b1hw))}),
    "pointer": ("decode", {"decode": lambda d: replace(d, pointer_bc=shaken(d.pointer_bc))}),
    "objects": ("decode", {"decode": lambda d: replace(d, logits_b1hw=d.logits_b1hw.flip(0))}),
    "remember": ("remember", {"remember": lambda w: [replace(m, map_chw=shaken(m.map_chw)) for m in w]}),
    "turned": ("remember", {"remember": lambda w: [replace(m, map_chw=m.map_chw.transpose(1, 2)) for m in w]}),
    "slot": ("attend", {"recall": lambda r: replace(r, slots=tuple((slot + 1) % 7 for slot in r.slots))}),
    "forgets": ("attend", {"recall": lambda r: replace(r, memories=r.memories[:1], slots=r.slots[:1])}),
    "ages": ("attend", {"recall": lambda r: replace(r, ages=tuple(age + 1 for age in r.ages))}),
    "pointers": ("attend", {"recall": lambda r: replace(r, pointers_pc=r.pointers_pc.flip(1))}),
    "not a number": ("remember", {"remember": lambda w: [replace(m, map_chw=m.map_chw * torch.nan) for m in w]}),
    "fused": ("track", {"track": lambda t: (replace(t[0], logits_b1hw=shaken(t[0].logits_b1hw)), t[1])}),
}


@pytest.mark.parametrize(("verb", "wrong"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_verb_is_named(
    reference: TorchEngine, clip: Clip, verb: str, wrong: dict[str, Callable[[Any], Any]]
) -> None:
    report = check_parity(reference, Skewed(engine(), **wrong), clip)
    assert not report["ok"] and report["drifted"] == verb
    line = explain(report)
    assert f"{'the fused step' if verb == 'track' else verb} drifted: " in line and "\n" not in line
    json.dumps(report, allow_nan=False)


class Blinks(Skewed):
    """Wrong on one picture alone."""

    def __init__(self, engine: Engine, picture: ImageU8) -> None:
        super().__init__(engine)
        self.picture = picture

    def encode_image(self, image_hwc: ImageU8) -> Features:
        features = self.engine.encode_image(image_hwc)
        wrong = np.array_equal(image_hwc, self.picture)
        return Features(-features.top, features.mid, features.fine) if wrong else features


def test_a_fault_of_one_frame_is_found_where_it_happened(reference: TorchEngine, clip: Clip) -> None:
    picture = list(clip.frames())[15].image_hwc
    report = check_parity(reference, Blinks(engine(), picture), clip)
    first = report["first_failure"]
    assert not report["ok"] and first["frame"] == 15 and first["object"] in (1, 2, 3, 4)
    assert report["drifted"] == "encode_image" and report["verbs"]["encode_image"]["frame"] == 15
    line = explain(report)
    assert f"frame 15, object {first['object']}: IoU" in line and "encode_image drifted: off by 2 on frame 15" in line


def test_an_engine_that_gives_up_fails_on_that_frame(reference: TorchEngine, clip: Clip) -> None:
    def broken(decoded: Decoded) -> Decoded:
        if len(decoded.iou_b) == 3:
            raise EngineError("no profile for 3 objects")
        return decoded

    report = check_parity(reference, Skewed(engine(), track=lambda answer: (broken(answer[0]), answer[1])), clip)
    assert report["drifted"] == "track" and report["verbs"]["track"]["worst"] is None
    assert report["first_failure"]["error"] == "no profile for 3 objects"
    assert "frame 9, object 1: no profile for 3 objects" in explain(report)


def test_masks_that_say_nothing_do_not_prove_an_engine(clip: Clip) -> None:
    """A network that sees nothing gives equal masks whatever is wrong: the verbs tell."""
    blind = engine()
    with torch.no_grad():
        blind._network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-50.0)
    report = check_parity(blind, Skewed(blind, encode_image=lambda f: Features(shaken(f.top), f.mid, f.fine)), clip)
    assert report["failures"] == 0 and report["mean"] == 1 and report["telling_masks"] < 0.2
    assert not report["ok"] and report["drifted"] == "encode_image"
    assert "the masks agree" in explain(report)
    silent = check_parity(blind, blind, clip)
    assert not silent["ok"] and silent["drifted"] is None and silent["telling_masks"] == 0
    assert "synthetic: cannot be checked on this clip: every tracked mask of the reference is empty or full" in explain(
        silent
    )


def test_what_goes_wrong_once_memories_are_full_is_found(
    reference: TorchEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the masks do not show it: as of a second graph that runs only then."""

    class LateWrong(Skewed):
        def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
            answer = super().attend(features, recalls)
            full = all(r is not None and len(r.memories) >= 5 for r in recalls)
            return shaken(answer) if full else answer

    monkeypatch.setitem(LIMITS, "fp32", replace(LIMITS["fp32"], each=-9, mean=-9))
    report = check_parity(reference, LateWrong(engine()), clip)
    assert report["first_failure"] is None and not report["ok"] and report["drifted"] == "attend"
    assert report["verbs"]["attend"]["frame"] >= PROBED
    monkeypatch.setattr("rtseg.build.parity.LATE", 0)
    late_unseen = check_parity(reference, LateWrong(engine()), clip)["verbs"]["attend"]
    assert late_unseen["frame"] == 25 or late_unseen["ok"]


def test_no_precision_may_be_far_off(reference: TorchEngine, clip: Clip) -> None:
    """Whatever its roundings would excuse; fp8's would excuse half of everything."""
    first = list(clip.frames())[:9]
    brief, candidate = replace(clip, frames=lambda: iter(first), count=9), engine()
    candidate.recipe = replace(candidate.recipe, precision="fp8")
    limits = {verb: found["limit"] for verb, found in check_parity(reference, candidate, brief)["verbs"].items()}
    assert limits == dict.fromkeys(STEPS, MOST_ERROR)


def test_a_mean_below_its_limit_fails(reference: TorchEngine, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an engine that is a little off everywhere, and nowhere as far as its precision may be."""
    monkeypatch.setitem(LIMITS, "bf16", replace(LIMITS["bf16"], each=0.5, mean=0.99999))
    candidate = Skewed(engine(), decode=lambda d: replace(d, logits_b1hw=shaken(d.logits_b1hw, 0.02)))
    candidate.recipe = replace(candidate.recipe, precision="bf16")
    report = check_parity(reference, candidate, clip)
    assert not report["ok"] and report["first_failure"] is None
    assert "mean IoU 0.99" in explain(report) and "no verb alone drifted; nearest to it is" in explain(report)


@pytest.mark.slow
def test_the_shipped_network_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "FRAMES", 14)
    half, full = (
        open_engine(Path(__file__).parents[2] / "engines/micro-cpu.toml", runtime="torch", precision=p)
        for p in ("bf16", "fp32")
    )
    report = check_parity(full, half, synthetic_clip(half.image_size, 2))
    assert report["ok"], explain(report)
    assert report["iou_with_truth"]["reference"] > 0.8 and report["telling_masks"] > 0.8


def test_overlap() -> None:
    masks = np.zeros((5, 32, 32), bool)
    masks[1, :20, :20] = True  # 400 pixels
    masks[2, :20, :19] = True
    masks[3, :3, :4] = True  # 12 pixels
    masks[4, 0, 0] = True
    assert overlap(masks[0], masks[0]) == (1.0, 0)
    assert overlap(masks[1], masks[2]) == (380 / 400, 400)
    assert overlap(masks[1], masks[0]) == (0.0, 400)
    assert overlap(masks[3], masks[0]) == (1 - 12 / SMALL, 12)  # a small mask that is missing is below every 0.98
    assert overlap(masks[4], masks[0])[0] > 0.98  # one pixel is no object


def test_relative_error() -> None:
    ones = torch.ones(2, 3, 4)
    assert relative_error(ones, ones) == 0
    assert relative_error(ones, torch.cat((ones[:1], 1.5 * ones[1:]))) == 0.5
    assert relative_error(ones, ones * torch.nan) == float("inf")
    assert relative_error(ones * torch.nan, ones) == 0
    errors = VerbErrors([(0.1, 0), (9.0, 1), (0.2, 2)])
    assert (errors.typical, errors.worst) == (0.2, (9.0, 1))
    assert (VerbErrors().typical, VerbErrors().worst) == (0.0, (0.0, None))


def test_the_synthetic_clip(clip: Clip) -> None:
    frames = list(clip.frames())
    assert [f.seq for f in frames] == list(range(26)) and not frames[-1].image_hwc.any() and frames[-2].image_hwc.any()
    assert {seq: [p.id for p in given] for seq, given in clip.prompts.items()} == {
        0: [1],
        4: [2],
        8: [3],
        12: [4],
        24: [1],
    }
    assert clip.truths == {1: 1, 2: 2, 3: 1, 4: 2}
    assert {p.id for given in synthetic_clip(64, 2).prompts.values() for p in given} == {1, 2}
    shown = calibration_images(64, None)
    assert len(shown) == clips.CALIBRATION and not np.array_equal(shown[0], frames[0].image_hwc)


def test_a_clip_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(5):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((60, 80, 3), 40 * k, np.uint8))
    plain = user_clip(str(tmp_path), None, 2)
    assert [p.box for p in plain.prompts[0]] == [(20, 15, 60, 45), (5, 15, 40, 45)] and plain.count == 5
    said = tmp_path / "p.json"
    said.write_text('[{"frame": 3, "id": 7, "points": [[4, 5, 1]]}, {"frame": 3, "id": 8, "points": [[4, 5, 1]]}]')
    given = user_clip(str(tmp_path), said, 2)
    assert [p.id for p in given.prompts[3]] == [7, 8]
    assert [f.seq for f in given.frames()] == [f.seq for f in given.frames()] == [0, 1, 2, 3, 4]
    with pytest.raises(PromptError, match="2 objects; the recipe says max_objects = 1; raise it"):
        user_clip(str(tmp_path), said, 1)
    monkeypatch.setattr(clips, "MOST_FRAMES", 3)
    with pytest.raises(PromptError, match="prompt on frame 3; expected one of the first 3 frames of"):
        user_clip(str(tmp_path), said, 2)
    assert len(list(user_clip(str(tmp_path), None, 1).frames())) == 3
