"""What a policy declares of its sizes is true, and settings that make it another policy are said, and no others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.engine import Remembered, recipe
from rtseg.engine.policy import (
    MAX_CONDITIONING,
    POLICIES,
    BankSize,
    Choice,
    MaskQuality,
    Memory,
    get_policy,
    register_policy,
    registry,
)  # fmt: skip
from rtseg.engine.recipe import MemorySettings, load_recipe
from rtseg.sam2 import get_preset
from rtseg.track import Bank, Tracker

SPATIAL = (1, 2, 3, 4, 5, 6, 7, 8, 12)
WINDOWS = (2, 3, 7)
EFP = ("efp-window", "efp", "efp-confident")
STEPS = 32
Trace = tuple[tuple[tuple[int, int], ...], ...]


def life(seed: int, sign: int = 1, prompts: bool = True, confident: bool = False) -> Iterator[Memory]:
    """Memories of one object, with similarities as they would be measured on a GPU; `sign` -1 turns these round."""
    rng = np.random.default_rng(seed)
    similar_tt = rng.uniform(-1, 1, (STEPS, STEPS))
    for step in range(STEPS):
        score, iou = rng.choice((0.3, 0.99), p=(0.15, 0.85)), rng.choice((0.4, 0.75, 0.97), p=(0.2, 0.2, 0.6))
        area, rival = int(rng.integers(95, 106)), float(rng.choice((0.5, 0.9)))
        quality = MaskQuality(*((0.99, 0.97) if confident else (score, iou)), area, rival)
        conditioning = step == 0 or bool(prompts and rng.random() < 0.1)
        similarities = {earlier: sign * similar_tt[step, earlier] for earlier in range(step)}
        written = Remembered(np.empty(0))
        yield Memory(step, written, np.zeros(4), conditioning, step, quality, similarities=similarities)


@cache
def attended(name: str, size: BankSize, sign: int = 1) -> list[Trace]:
    """Steps and slots that are attended to after each memory, over whole lives."""
    traces = []
    for seed in range(4):
        bank, trace = Bank(POLICIES[name], size), []
        for memory in life(seed, sign):
            bank.add(memory)
            trace.append(tuple((bank.memories[i].step, slot) for i, slot in bank._choice.attend))
        traces.append(tuple(trace))
    return traces


def test_a_policy_whose_comparisons_never_matter_says_so_and_no_other() -> None:
    found = set()
    for name in (*EFP, "diverse"):
        for size in (BankSize(window, spatial) for window in WINDOWS for spatial in SPATIAL):
            compares = attended(name, size) != attended(name, size, sign=-1)
            if name != "diverse" or size.window > 2:
                assert compares != bool(POLICIES[name].warning(size)), (name, size)
            found.add((name, compares))
    assert {(name, True) for name in (*EFP, "diverse")} | {(name, False) for name in EFP} <= found


@pytest.mark.parametrize("window", WINDOWS)
def test_of_two_policies_that_choose_alike_one_says_so(window: int) -> None:
    alike = set()
    for spatial in SPATIAL:
        size = BankSize(window, spatial)
        traces = {name: attended(name, size if name in EFP else BankSize(window)) for name in POLICIES}
        for one, other in combinations(POLICIES, 2):
            if traces[one] == traces[other]:
                assert POLICIES[one].warning(size) or POLICIES[other].warning(size), (one, other, size)
                alike.add((one, other, spatial))
    for name in {*POLICIES} - {*EFP}:  # which do not read `spatial`
        assert attended(name, BankSize(window, 2)) == attended(name, BankSize(window))
    if window == 7:  # what SAM 2 was trained with
        fifos = {("fifo", "efp-window", spatial) for spatial in SPATIAL if spatial >= 7}
        newest_only = {(*two, spatial) for two in combinations(EFP, 2) for spatial in (1, 2)}
        assert alike == fifos | newest_only


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_sizes_that_a_policy_declares_are_those_of_its_banks(name: str) -> None:
    policy = POLICIES[name]
    for size in (BankSize(7, spatial) for spatial in SPATIAL[:-1]):
        for seed in range(4):
            bank, reprompted = Bank(policy.choose, size), Bank(policy.choose, size)
            for memory, other in zip(life(seed, prompts=False, confident=True), life(seed), strict=True):
                bank.add(memory)
                reprompted.add(other)
                assert len(reprompted._choice.attend) <= policy.most(size), size
        if name != "distractor":  # it looks at every fifth frame, and so takes longer
            assert len(bank._choice.attend) == policy.full_bank(size), size


def test_every_bank_that_is_larger_than_declared_is_noticed() -> None:
    """Negative control, and the other promises: each broken one is an error that names the policy."""
    memories = [*life(0, prompts=False)][:9]
    sound = tuple((i, 6 if m.conditioning else 0) for i, m in enumerate(memories))
    everything, last = tuple(range(9)), len(memories) - 1
    for choice, most, expected in (
        (Choice(everything, sound), 8, "attends to 9 memories, and declares that 8 are the most"),
        (Choice(everything[:-1], sound[:-1]), 99, "the newest memory, or a conditioning one, is not in keep"),
        (Choice(everything[1:], sound[1:]), 99, "the newest memory, or a conditioning one, is not in keep"),
        (Choice((0, last), sound), 99, "attend or pin names a memory that is not in keep"),
        (Choice((0, last), (sound[0],), pin=(3,)), 99, "attend or pin names a memory that is not in keep"),
        (Choice(everything[::-1], sound), 99, "expected indices from 0 to 8, each once, in ascending order"),
        (Choice((*everything, 9), sound), 99, "expected indices from 0 to 8"),
        (Choice(everything, ((0, 7),)), 99, "expected slots from 0 to 6"),
    ):
        policy = registry.MemoryPolicy("mine", lambda m, s, choice=choice: choice, most=lambda s, most=most: most)
        with pytest.raises(ConfigError, match="memory policy 'mine': ") as caught:
            policy(memories, BankSize())
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    fine = registry.MemoryPolicy("mine", lambda m, s: Choice(everything, sound))
    assert fine(memories, BankSize()).keep == everything


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of a process that has not warned of anything yet."""
    monkeypatch.setattr(recipe, "_warned", set())
    return caplog


def test_a_recipe_whose_policy_is_another_one_is_warned_of_once(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.toml"
    path.write_text('memory = { policy = "efp-window", spatial = 7 }\n')
    for _ in range(3):
        load_recipe(path)
    expected = "it prunes nothing and is 'fifo'; expected spatial from 3 to 6, or policy 'fifo'"
    line = f"memory: policy = 'efp-window' with spatial = 7 and a window of 7 memories: {expected}"
    assert log.messages == [f"rtseg: {path}: {line}"]
    load_recipe(path, policy="efp-confident", memory=MemorySettings(spatial=2))
    assert len(log.messages) == 2
    assert "'efp-confident' with spatial = 2" in log.messages[1] and "compares none" in log.messages[1]
    Tracker(SimpleNamespace(recipe=load_recipe(path, policy="fifo"), preset=get_preset("nano")), "efp-window")  # type: ignore[arg-type]
    assert len(log.messages) == 2  # the same settings of the same recipe, by another way
    Tracker(SimpleNamespace(recipe=load_recipe(), preset=get_preset("nano")), "fifo")  # type: ignore[arg-type]


def test_no_other_settings_are_warned_of(log: pytest.LogCaptureFixture) -> None:
    """Negative control: all shipped recipes, and all policies with sizes that they were made for."""
    for path in (Path(__file__).parents[2] / "engines").glob("*.toml"):
        load_recipe(path)
    for policy in POLICIES:
        for spatial in (3, 5, 6):
            load_recipe(memory={"policy": policy, "spatial": spatial})
    load_recipe(memory={"policy": "fifo", "spatial": 7})
    load_recipe(memory={"policy": "efp", "spatial": 7})  # its bank reaches back further than the last six frames
    load_recipe(model="not-there", memory={"policy": "efp", "spatial": 1})  # its window is not known
    assert log.messages == []


@pytest.mark.parametrize(("spatial", "count"), [(7, 1), (5, 0)])
def test_who_uses_the_command_line_reads_the_warning_on_stderr(tmp_path: Path, spatial: int, count: int) -> None:
    path = tmp_path / "e.toml"
    path.write_text(f'memory = {{ policy = "efp-window", spatial = {spatial} }}\n')
    words = ["segment", str(tmp_path / "no.mp4"), "--prompts", str(tmp_path / "p.json"), "--out", str(tmp_path / "o")]
    command = [sys.executable, "-m", "rtseg", *words, "--engine", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert sum("it prunes nothing and is 'fifo'" in line for line in done.stderr.splitlines()) == count, done.stderr
    assert not done.stdout


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies that a test registers are forgotten after it."""
    before = dict(POLICIES)
    yield
    registry._registered.clear()
    registry._registered.update(before)


def only_newest(memories: list[Memory], size: BankSize) -> Choice:
    keep = tuple(i for i, m in enumerate(memories) if m.conditioning or m is memories[-1])
    return Choice(keep, tuple((i, size.window - 1 if memories[i].conditioning else 0) for i in keep))


@pytest.mark.usefixtures("unregistered")
def test_an_own_policy_is_one_like_any_other() -> None:
    with pytest.raises(ConfigError, match="policy = 'only-newest'; expected one of: fifo, efp-window"):
        load_recipe(policy="only-newest")
    for _ in range(2):  # a cell of a notebook may run twice
        register_policy(
            "only-newest", full_bank=lambda size: 2, most=lambda size: MAX_CONDITIONING + 1, compared=True,
            warning=lambda size: "too wide" if size.spatial > 9 else "",
        )(only_newest)  # fmt: skip
    settings = load_recipe(policy="only-newest").memory
    assert (settings.full_bank(7), settings.most_slots(7)) == (2, 5)
    assert MemorySettings("only-newest", spatial=10).warning(7).endswith(": too wide")
    assert get_policy("only-newest").choose is only_newest
    bank = Bank(get_policy("only-newest"), BankSize())
    for memory in life(0, prompts=False):
        bank.add(memory)
    assert [m.step for m in bank.memories] == [0, STEPS - 1]
    with pytest.raises(ConfigError, match="memory policy 'only-newest': the name is taken"):
        register_policy("only-newest")(lambda memories, size: Choice((), ()))
    for name in ("Only Newest", "", "a-", 5):
        with pytest.raises(ConfigError, match="expected a name of lower-case letters, digits and hyphens"):
            register_policy(name)  # type: ignore[arg-type]
