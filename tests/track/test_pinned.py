"""What policies pin, against a slow reading of each rule that forgets nothing."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch

from rtseg.engine import PromptBatch, Remembered
from rtseg.engine.cpu.engine import CpuEngine
from rtseg.engine.cuda.engine import CudaEngine
from rtseg.engine.policy import MaskQuality
from rtseg.engine.reference import TorchEngine
from rtseg.track import POLICIES, Bank, BankSize, Memory, Tracker

SIZE = BankSize(window=7, spatial=5)
GOOD = MaskQuality(score=0.99, iou=0.97, area=100, rival_overlap=0.9)


def memory(step: int, quality: MaskQuality = GOOD, conditioning: bool = False) -> Memory:
    g = torch.Generator().manual_seed(step)
    map_chw = torch.randn(8, 3, 3, generator=g)
    return Memory(step, Remembered(map_chw), torch.zeros(4), conditioning, step, quality)


def video(seed: int, count: int = 60) -> list[Memory]:
    """A prompted frame, then runs of good, middling and bad ones."""
    rng = np.random.default_rng(seed)
    moods = np.repeat(rng.choice(3, count, p=(0.7, 0.15, 0.15)), rng.integers(1, 12, count))[:count]
    kinds = (GOOD, replace(GOOD, score=0.8, iou=0.75), replace(GOOD, score=0.2, iou=0.3, area=0))
    memories = []
    for step, mood in enumerate(moods):
        quality = replace(kinds[mood], iou=kinds[mood].iou + 0.03 * rng.random() - 0.01)
        if mood == 0:
            quality = replace(quality, area=int(rng.integers(80, 121)), rival_overlap=float(rng.choice((0.5, 0.9))))
        memories.append(memory(step, quality, conditioning=step == 0))
    return memories


def looked_at(policy: str, memories: list[Memory]) -> list[dict[int, int]]:
    """Step to slot, after each memory that a bank has taken in."""
    bank, seen = Bank(POLICIES[policy], SIZE), []
    for m in memories:
        bank.add(m)
        recall = bank.recall(m.step + 1)
        by_map = {id(kept.written): kept.step for kept in bank.memories}
        seen.append({by_map[id(w)]: slot for w, slot in zip(recall.memories, recall.slots, strict=True)})
    return seen


def beside(held: list[int], latest: list[int]) -> dict[int, int]:
    """Slots of the prompted frame 0, of three of `held`, and of as many of `latest`, newest first, as there is room."""
    newest = latest[0]
    timeless = [0, *[s for s in held if s != newest][-3:]]
    loose = [s for s in latest if s not in timeless][: 7 - len(timeless)]
    return dict.fromkeys(timeless, 6) | {s: rank for rank, s in enumerate(loose)}


def slow_similarity(a: Memory, b: Memory) -> float:
    u, v = a.map_chw.numpy().astype(float), b.map_chw.numpy().astype(float)
    return float(((u * v).sum(0) / np.linalg.norm(u, axis=0) / np.linalg.norm(v, axis=0)).mean())


def slow_anchor(memories: list[Memory]) -> list[list[int]]:
    """What has been held up to each frame."""
    for end in range(5, len(memories)):
        run = memories[end - 4 : end + 1]
        if all(m.quality.score > 0.9 and m.quality.iou > 0.7 for m in run):
            best = max(m.quality.iou for m in run)
            step = next(m.step for m in run if m.quality.iou == best)
            return [[] for _ in range(end)] + [[step]] * (len(memories) - end)
    return [[] for _ in memories]


def slow_diverse(memories: list[Memory]) -> list[list[int]]:
    pool: list[Memory] = []
    held = [memories[0]]
    after = []
    for m in memories:
        if m.step and m.quality.score > 0.5 and m.quality.iou > 0.95:
            pool.append(m)
        if len(pool) == 5:
            held.append(min(pool, key=lambda c: slow_similarity(c, held[-1])))
            pool = []
        after.append([m.step for m in held[1:]])
    return after


def slow_distractor(memories: list[Memory]) -> tuple[list[list[int]], list[dict[int, int]]]:
    """What has been held up to each frame, and what is looked at, on which the rule depends."""
    held: list[int] = []
    after, seen = [], []
    bank: set[int] = set()
    for m in memories:
        areas = [memories[s].quality.area for s in {*bank, m.step} if memories[s].quality.score > 0.5]
        v, waited = m.quality, not held or m.step - held[-1] > 5
        steady = v.area > 0 and 0.8 <= v.area / median(areas) <= 1.2
        if m.step and waited and v.score > 0.5 and v.iou > 0.8 and steady and v.rival_overlap <= 0.7:
            held.append(m.step)
        latest = [s for s in range(m.step, 0, -1) if s == m.step or (s % 5 == 0 and memories[s].quality.score > 0.5)]
        seen.append(beside(held, latest or [0]))
        bank = set(seen[-1])
        after.append([*held])
    return after, seen


@pytest.mark.parametrize(("policy", "slow", "least"), [("anchor", slow_anchor, 30), ("diverse", slow_diverse, 100)])
def test_what_is_held_is_the_definition_over_whole_videos(policy: str, slow: object, least: int) -> None:
    held = 0
    for seed in range(40):
        memories = video(seed)
        after = slow(memories)  # type: ignore[operator]
        latest = [list(range(m.step, 0, -1)) or [0] for m in memories]
        assert looked_at(policy, memories) == [beside(h, some) for h, some in zip(after, latest, strict=True)]
        held += len({step for steps in after for step in steps})
    assert held > least


def test_distractors_are_the_definition_over_whole_videos() -> None:
    held = 0
    for seed in range(40):
        after, seen = slow_distractor(memories := video(seed))
        assert looked_at("distractor", memories) == seen
        held += len({step for steps in after for step in steps})
    assert held > 100


def test_the_slow_readings_would_notice_another_rule() -> None:
    """Negative control: each rule holds other frames, and `diverse` asks how alike they are."""
    memories = video(3)
    held = [slow_anchor(memories)[-1], slow_diverse(memories)[-1], slow_distractor(memories)[0][-1]]
    assert len({*map(str, held)}) == 3 and all(held)
    same_maps = [replace(m, written=memories[-1].written) for m in memories]
    assert slow_diverse(memories) != slow_diverse(same_maps)


@pytest.mark.parametrize("policy", ["anchor", "diverse", "distractor"])
def test_what_was_held_before_a_correction_is_let_go(policy: str) -> None:
    rival = replace(GOOD, rival_overlap=0.4)
    bank = Bank(POLICIES[policy], SIZE)
    for step in range(30):
        bank.add(memory(step, rival, conditioning=step == 0))
    before = {m.step for m in bank.memories if m.pinned_at is not None}
    assert before and min(before) < 24
    bank.add(memory(30, rival, conditioning=True))
    for step in range(31, 60):
        bank.add(memory(step, rival))
    assert {m.step for m in bank.memories if m.conditioning} == {0, 30}
    held = {m.step for m in bank.memories if m.pinned_at is not None}
    assert held and min(held) > 30


def test_a_bank_of_the_past_does_not_know_what_was_held_later() -> None:
    bank = Bank(POLICIES["diverse"], SIZE)
    different = replace(memory(3), written=Remembered(-memory(0).map_chw))
    for step in range(6):
        bank.add(different if step == 3 else memory(step, conditioning=step == 0))
    assert {m.step: m.pinned_at for m in bank.memories if m.pinned_at is not None} == {3: 5}
    past = bank.before(5)
    assert [m.step for m in past.memories] == [0, 1, 2, 3, 4] and all(m.pinned_at is None for m in past.memories)
    past.add(memory(6))
    assert {m.step: m.pinned_at for m in past.memories if m.pinned_at is not None} == {3: 6}
    assert {m.step: m.pinned_at for m in bank.memories if m.pinned_at is not None} == {3: 5}


@torch.inference_mode()
def test_rivals_are_the_two_masks_that_lost(small_engine: TorchEngine) -> None:
    features = small_engine.encode_image(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    conditioned_bchw = small_engine.attend(features, [None]).repeat(3, 1, 1, 1)
    conditioned_bchw = conditioned_bchw + torch.randn(
        conditioned_bchw.shape, generator=torch.Generator().manual_seed(0)
    )
    candidates = small_engine._network.predict_masks(conditioned_bchw, features, PromptBatch.none(3))
    rivals_b2hw = small_engine.rivals(conditioned_bchw, features)
    assert rivals_b2hw.shape == (3, 2, 16, 16)
    for b, iou_k in enumerate(candidates.iou_bk[:, 1:]):
        losing = [k + 1 for k in range(3) if k != int(iou_k.argmax())]
        expected = [candidates.logits_bkhw[b, k] for k in losing]
        assert all(any(torch.equal(rival, e) for e in expected) for rival in rivals_b2hw[b])
        assert not torch.equal(*rivals_b2hw[b])


def test_the_tracker_says_what_the_network_says(small_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(mask_hw: np.ndarray, rivals_khw: np.ndarray) -> tuple[int, float]:
        asked.append(rivals_khw)
        return 7, 0.3

    monkeypatch.setattr("rtseg.track.objects.area_and_rival_overlap", measure)
    for policy, expected in (("fifo", (0, 1.0)), ("distractor", (7, 0.3))):
        tracker = Tracker(small_engine, policy)
        tracker.prompt(4, points=[(20, 30, 1)])
        tracker.prompt(2, box=(5, 5, 40, 40))
        image_hwc = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        tracker.step(image_hwc)
        masks = tracker.step(image_hwc[:, ::-1].copy())
        for i, object_id in enumerate(masks.ids):
            quality = tracker._objects[object_id].bank.memories[-1].quality
            assert quality == MaskQuality(masks.scores[i], masks.ious[i], *expected)
    assert [rivals_khw.shape for rivals_khw in asked] == [(2, 16, 16)] * 4  # two objects, two steps, one policy


def test_a_step_is_the_same_whether_anybody_asks_for_rivals(small_engine: TorchEngine) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 48, 64, 3), np.uint8)
    masks = {}
    for policy in ("fifo", "distractor"):
        tracker = Tracker(small_engine, policy)
        tracker.prompt(1, box=(5, 5, 40, 40))
        masks[policy] = [tracker.step(image_hwc) for image_hwc in images[:2]]
    for one, other in zip(*masks.values(), strict=True):
        assert np.array_equal(one.mask_logits_bhw, other.mask_logits_bhw) and one.ious == other.ious


@pytest.mark.parametrize("policy", ["anchor", "diverse", "distractor", "efp-confident"])
def test_every_engine_holds_the_same(policy: str, small_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With thresholds that a random network passes: what is held is attended to, and for all engines alike."""
    low = dict.fromkeys(("CREDIBLE_SCORE", "CREDIBLE_IOU", "LONG_IOU", "ANCHOR_IOU"), 0)
    for name, value in (low | {"ANCHOR_AREA": 99, "ANCHOR_RIVAL": 1}).items():
        monkeypatch.setattr(f"rtseg.engine.policy.pinned.{name}", value)
    monkeypatch.setattr("rtseg.engine.policy.window.CONFIDENT_IOU", 0)
    network, recipe = small_engine._network, small_engine.recipe
    engines = [small_engine, CpuEngine(network, recipe, "", None), CudaEngine(network, recipe, "", "cpu")]
    images = np.random.default_rng(1).integers(0, 256, (14, 48, 64, 3), np.uint8)
    logits, held = [], []
    for engine in engines:
        tracker = Tracker(engine, policy)
        tracker.prompt(1, box=(5, 5, 40, 40))
        logits.append(np.stack([tracker.step(image_hwc).mask_logits_bhw for image_hwc in images]))
        held.append({m.step: m.pinned_at for m in tracker._objects[1].bank.memories})
    assert held[0] == held[1] == held[2] and (any(held[0].values()) or policy == "efp-confident")
    # The resize of a CUDA step rounds elsewhere, under every policy.
    assert np.allclose(logits[1], logits[0], atol=1e-5) and np.allclose(logits[2], logits[0], atol=5e-3)
