"""A tracker that goes on from a checkpoint, through a file, gives the same masks to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtseg import Frame, Tracker, open_engine
from rtseg.base.errors import ConfigError, OutputError
from rtseg.base.state import State, read_state, write_state
from rtseg.base.types import Masks
from rtseg.engine import Engine
from rtseg.engine.cpu.isa import available_isas
from rtseg.engine.recipe import load_recipe
from rtseg.engine.reference import TorchEngine
from rtseg.grab import open_source

TORCH = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
RUNTIMES = {
    "torch": TORCH,
    "torch-bf16": replace(TORCH, precision="bf16"),
    "cpu": replace(TORCH, runtime="cpu", precision="fp32"),
    "cpu-int16": replace(TORCH, runtime="cpu", precision="int16"),
    "cpu-int8": replace(TORCH, runtime="cpu", precision="int8"),
    "onnx": replace(TORCH, runtime="onnx"),
    "nano-cpu": load_recipe(image_size=128, runtime="cpu"),  # its network compares frames with a prompted one
}
if "avx512bf16" in available_isas():
    RUNTIMES["cpu-bf16"] = replace(TORCH, runtime="cpu", precision="bf16")
TRUTH_AT, ANOTHER, PROMPTED = 0, 2, 5


def clip() -> Iterator[tuple[Frame, dict[int, Any]]]:
    """Frames with prompts; see `drawn`. Each time new arrays, as from a decoder."""
    for frame, prompts in drawn():
        yield Frame(frame.image_hwc.copy(), frame.seq), prompts


@lru_cache
def drawn(count: int = 18) -> list[tuple[Frame, dict[int, Any]]]:
    """Frames with prompts: two objects, a correction, a pan away and back, a cut to another scene and back."""
    frames = list(open_source("synthetic:laparoscopy?width=160&height=120&seconds=1&seed=7"))
    other = list(open_source("synthetic:laparoscopy?width=160&height=120&seconds=1&seed=90"))
    out = []
    for seq in range(count):
        image_hwc = other[seq].image_hwc if 8 <= seq < 11 else frames[seq].image_hwc
        if 11 < seq < 15:
            image_hwc = np.roll(image_hwc, 20 * (seq - 11), axis=1)
        truth_hw = frames[seq].truth_hw
        assert truth_hw is not None
        ids = [int(i) for i in np.unique(truth_hw) if i]
        prompts: dict[int, Any] = {}
        if seq == TRUTH_AT:
            prompts[1] = {"mask": truth_hw == ids[0], "label": "grasper"}
        if seq == ANOTHER:
            prompts[2] = {"box": (10.0, 20.0, 80.0, 90.0)}
        if seq == PROMPTED:
            prompts[1] = {"points": [(60.0, 60.0, 1)]}
        out.append((Frame(np.ascontiguousarray(image_hwc), seq), prompts))
    return out


def followed(
    engine: Engine, saved_after: tuple[int, ...], path: Path, policy: str | None = None, change: Any = None
) -> list[Masks]:
    """The masks of the clip, by trackers each of which goes on from the file of the one before it."""
    tracker, out = Tracker(engine, policy), []
    for frame, prompts in clip():
        for object_id, prompt in prompts.items():
            tracker.prompt(object_id, **prompt)
        out.append(tracker.step(frame))
        if frame.seq in saved_after:
            state = tracker.state()
            write_state(path, change(state) if change else state)
            del tracker, state
            tracker = Tracker(engine, policy)
            tracker.restore(read_state(path))
    return out


def same(one: list[Masks], other: list[Masks]) -> bool:
    told = ("seq", "ids", "labels", "scores", "ious", "cut", "lost", "warnings")
    return all(
        all(getattr(a, name) == getattr(b, name) for name in told)
        and np.array_equal(a.mask_logits_bhw, b.mask_logits_bhw)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_goes_on_with_the_same_masks(runtime: str, tmp_path: Path) -> None:
    """Saved on ordinary frames, right after prompts, while a scene is gone, and after the camera has turned away."""
    engine = open_engine(RUNTIMES[runtime])
    whole = followed(engine, (), tmp_path / "x.npz")
    assert any(masks.cut for masks in whole) and any(masks.lost for masks in whole)
    assert same(whole, followed(engine, (0, 2, 5, 8, 9, 12, 15), tmp_path / "x.npz"))
    assert not same(whole, followed(engine, (4,), tmp_path / "x.npz", change=without_newest))  # the negative control


def without_newest(state: State) -> State:
    """A state that lacks the newest memory of one bank."""
    bank = state.plain["objects"][0]["bank"]
    gone = len(bank["memories"]) - 1
    emptied = {
        **bank, "memories": bank["memories"][:gone], "keep": bank["keep"][:gone],
        "attend": [pair for pair in bank["attend"] if pair[0] < gone],
    }  # fmt: skip
    objects = [{**state.plain["objects"][0], "bank": emptied}, *state.plain["objects"][1:]]
    return State({**state.plain, "objects": objects}, state.arrays)


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("fifo", "efp-window", "confident", "anchor", "efp")]


@pytest.mark.parametrize("policy", ["diverse", "distractor", *SLOWLY])
def test_every_policy_goes_on_with_the_same_choices(policy: str, tmp_path: Path, small_engine: TorchEngine) -> None:
    whole = followed(small_engine, (), tmp_path / "x.npz", policy)
    assert same(whole, followed(small_engine, tuple(range(0, 18, 3)), tmp_path / "x.npz", policy))


def emptied_of(*names: str) -> Any:
    def change(state: State) -> State:
        plain = dict(state.plain)
        for name in names:
            if name == "cut_detector":
                plain[name] = {"picture": None, "usual": 0.0, "waited": 0}
            elif name in ("pointers", "lost"):
                kept = [dict(one) for one in plain["objects"]]
                for one in kept:
                    one |= {"bank": {**one["bank"], "recent": []}} if name == "pointers" else {"lost": None}
                plain["objects"] = kept
            elif name == "steps":
                plain[name] += 3
        return State(plain, state.arrays)

    return change


@pytest.mark.parametrize(("part", "after"), [("cut_detector", 7), ("pointers", 6), ("lost", 9), ("steps", 6)], ids=str)
def test_each_part_of_a_state_counts(part: str, after: int, tmp_path: Path) -> None:
    """The negative controls: a state that lacks one part gives other masks."""
    engine = open_engine(TORCH)
    whole = followed(engine, (), tmp_path / "x.npz")
    assert not same(whole, followed(engine, (after,), tmp_path / "x.npz", change=emptied_of(part)))


def test_waiting_prompts_are_part_of_a_state(tmp_path: Path, small_engine: TorchEngine) -> None:
    frame, _ = next(clip())
    mask_hw = cv2.circle(np.zeros((120, 160), np.uint8), (70, 60), 30, 1, -1).astype(bool)
    tracker = Tracker(small_engine)
    tracker.prompt(3, mask=mask_hw, label="hook")
    tracker.prompt(4, points=[(30, 30, 1)])
    write_state(tmp_path / "x.npz", tracker.state())
    other = Tracker(small_engine)
    other.restore(read_state(tmp_path / "x.npz"))
    assert same([tracker.step(frame)], [other.step(frame)]) and other.ids == (3, 4)


def test_a_state_of_other_settings_is_refused(small_engine: TorchEngine) -> None:
    state = Tracker(small_engine, "fifo").state()
    with pytest.raises(ConfigError, match=r"made with memory = .*fifo.*now it is .*; begin again"):
        Tracker(small_engine, "efp").restore(state)
    Tracker(small_engine, "fifo").restore(state)


def test_a_damaged_file_is_no_checkpoint(tmp_path: Path, small_engine: TorchEngine) -> None:
    path = tmp_path / "x.npz"
    write_state(path, Tracker(small_engine).state())
    read_state(path)
    whole = path.read_bytes()
    for bad in (whole[:-40], whole[:80] + b"\xff" * 9 + whole[89:], b"", b"{}"):
        path.write_bytes(bad)
        with pytest.raises(OutputError, match="is no checkpoint that can be read"):
            read_state(path)
    with pytest.raises(OutputError, match="no such file|No such file"):
        read_state(tmp_path / "none.npz")
