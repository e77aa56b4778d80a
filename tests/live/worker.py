"""A worker with faults in it, as `python tests/live/worker.py ARGUMENT`; RTSEG_TEST_FAULTS (JSON) says which.

fake: true      a network of no weight, which imports no torch: an object's mask is the box it was prompted with
slow: s         each step takes so many seconds more; with `slow_above`, only at image sizes above that;
                with `slow_warm`, also when it warms up
raise_at: n     the n-th step of the first process raises; with `always`, that of every process;
                with `engine`, an EngineError
hang_at: n      the n-th step of the first process does not return
ink: true       every overlay raises
refuse: text    the engine cannot be opened
gate: path      the engine cannot be opened before this file is there
readies: path   the engine prepares for a size of pictures, and what it sees is written to this file;
                with `ready_s`, that takes so many seconds, in ten parts; with `hangs`, one of them never ends
close: how      a recording is closed after a second of work (`work`) or never (`hang`), or cannot be (`full`)
crash: role     this process fails with a bug before it says that it works
linger: s       `segment` takes so many seconds to exit, without its link
break_at: n     the synthetic source breaks at frame n
account: how    it has a gap before frame 20 (`gap`), or is cut off there (`ended`)
die: n          the first n processes are killed before they are ready (with `life`)
life: path      a file that counts the starts of `segment`
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
import types
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rtseg.base.errors import AnswerError, EngineError, OutputError, PromptError, SourceError
from rtseg.base.types import Frame, Masks, Prompt, now_ns
from rtseg.engine.recipe import Recipe
from rtseg.live.__main__ import main

FAULTS: dict[str, Any] = json.loads(os.environ.get("RTSEG_TEST_FAULTS", "{}"))


class FakeTracker:
    """Follows nothing: what was prompted stays where it was."""

    def __init__(self, engine: Any, policy: str | None = None) -> None:
        self.engine, self.policy = engine, "none"
        self.objects: dict[int, Prompt] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(self.objects))

    def prompt(self, object_id: int, **_: Any) -> None:
        self.objects[object_id] = Prompt(object_id, box=(0.0, 0.0, 1.0, 1.0))

    def give(self, prompt: Prompt) -> None:
        if prompt.label == "impossible":
            raise PromptError(f"object {prompt.id}: impossible")
        before = self.objects.get(prompt.id)
        self.objects[prompt.id] = prompt if prompt.box or before is None else replace(before, label=prompt.label)

    def rename(self, object_id: int, label: str) -> None:
        self.objects[object_id] = replace(self.objects[object_id], label=label)

    def remove(self, object_id: int) -> None:
        del self.objects[object_id]

    def banks(self) -> dict[int, Any]:
        held = {"seq": 3, "conditioning": True, "pinned": False, "score": 0.9, "iou": 0.8, "similarity": 1.0}
        report = {"memories": [held], "dropped": [{"seq": 2, "why": "too old"}], "pointers": 1}
        return {i: types.SimpleNamespace(plain=lambda: report) for i in self.ids}

    def fork(self, ids: list[int], seq: int) -> FakeTracker:
        fork = FakeTracker(self.engine)
        fork.objects = {i: self.objects[i] for i in ids if i in self.objects}
        return fork

    def adopt(self, fork: FakeTracker) -> None:
        self.objects |= fork.objects

    def step(self, frame: Frame | Any) -> Masks:
        frame = frame if isinstance(frame, Frame) else Frame(frame, 0)
        logits = np.full((len(self.objects), 16, 16), -5, np.float32)
        for row, i in enumerate(self.ids):
            x0, y0, x1, y1 = self.objects[i].box or (0, 0, frame.width, frame.height)
            across, down = 16 / frame.width, 16 / frame.height
            logits[row, int(y0 * down) : int(y1 * down), int(x0 * across) : int(x1 * across)] = 5
        labels, ones = tuple(self.objects[i].label or "" for i in self.ids), (1.0,) * len(self.ids)
        who = frame.seq, frame.session, frame.captured_ns, now_ns(), frame.height, frame.width
        boxes = {i: self.objects[i].box for i in self.ids}
        small = tuple(f"object {i}: too small" for i, box in boxes.items() if box and box[2] - box[0] < 2)
        return Masks(*who, self.ids, labels, ones, ones, logits, small)


class FakeProposals:
    def prepare(self, tracker: FakeTracker, frame: Frame) -> None:
        pass

    def propose(self, tracker: FakeTracker, prompts: list[Prompt], frame: Frame) -> Masks:
        fork = tracker.fork([prompts[0].id], frame.seq)
        for prompt in prompts:
            fork.give(prompt)
        return fork.step(frame)


def pretend() -> None:
    """Put a network of no weight where the real one is imported from."""
    from contextlib import nullcontext

    class Engine:
        image_size, description = 64, "fake"

        def __init__(self, recipe: Recipe) -> None:
            self.recipe = recipe

    class ReadyEngine(Engine):
        device = "cuda:0"

        def ready(self, height: int, width: int, beat: Any) -> None:
            seen(f"ready {width}x{height}")
            for _ in range(10):
                time.sleep(3600 if "hangs" in FAULTS else FAULTS.get("ready_s", 0.0) / 10)
                beat()
            seen(f"made {now_ns()}")

    @runtime_checkable
    class Readies(Protocol):
        def ready(self, height: int, width: int, beat: Any) -> None: ...

    engine, track = types.ModuleType("rtseg.engine"), types.ModuleType("rtseg.track")
    runtimes = types.ModuleType("rtseg.engine.runtimes")
    runtimes.ONNX_GPU = ()  # type: ignore[attr-defined]
    runtimes.best_runtime = lambda recipe: "fake"  # type: ignore[attr-defined]
    engine.Engine = engine.open_engine = ReadyEngine if "readies" in FAULTS else Engine  # type: ignore[attr-defined]
    engine.Readies = Readies  # type: ignore[attr-defined]
    engine.spare_core = nullcontext  # type: ignore[attr-defined]
    track.Tracker, track.Proposals = FakeTracker, FakeProposals  # type: ignore[attr-defined]
    sys.modules |= {"rtseg.engine": engine, "rtseg.engine.runtimes": runtimes, "rtseg.track": track}


def seen(what: str) -> None:
    with Path(FAULTS["readies"]).open("a") as file:
        file.write(what + "\n")


def break_network() -> None:
    from rtseg.live.workers import segment

    first = True
    if "life" in FAULTS:
        path = Path(FAULTS["life"])
        path.write_text(path.read_text() + "*" if path.exists() else "*")
        first = len(path.read_text()) == 1
        if len(path.read_text()) <= FAULTS.get("die", 0):
            os.kill(os.getpid(), signal.SIGKILL)
    steps, real, open_engine = [0], segment.Tracker.step, segment.open_engine

    def step(self: Any, frame: Any) -> Masks:
        if "slow_warm" in FAULTS and not isinstance(frame, Frame) and self.engine.recipe.image_size > 64:
            time.sleep(FAULTS["slow"])
        if "readies" in FAULTS:
            is_one = isinstance(frame, Frame)
            height, width = (frame.height, frame.width) if is_one else frame.shape[:2]
            seen(f"{'step' if is_one else 'warm'} {width}x{height}" + (f" {frame.seq}" if is_one else ""))
        if isinstance(frame, Frame):  # not when it warms up
            steps[0] += 1
            if self.engine.recipe.image_size > FAULTS.get("slow_above", 0):
                time.sleep(FAULTS.get("slow", 0.0))
            if steps[0] == FAULTS.get("raise_at") and (first or FAULTS.get("always")):
                raise (EngineError if FAULTS.get("engine") else RuntimeError)("out of memory")
            if steps[0] == FAULTS.get("hang_at") and first:
                time.sleep(3600)
            if steps[0] in FAULTS.get("unanswered", ()) and first:
                raise AnswerError(f"frame {frame.seq}: the network's masks are not numbers")
        masks: Masks = real(self, frame)
        since, until = FAULTS.get("lost", (0, 0))
        if isinstance(frame, Frame) and since <= steps[0] < until:
            masks = replace(masks, cut=steps[0] == since, lost=masks.ids)
        return masks

    def refuse(recipe: Recipe) -> Any:
        while "gate" in FAULTS and not Path(FAULTS["gate"]).exists():
            time.sleep(0.01)
        if "refuse" in FAULTS:
            raise EngineError(FAULTS["refuse"])
        return open_engine(recipe)

    segment.Tracker.step = step  # type: ignore[method-assign]
    segment.open_engine = refuse


def break_overlay() -> None:
    from rtseg.live.workers import overlay

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    if FAULTS.get("ink"):
        overlay.draw_overlay = fail  # type: ignore[assignment]


def break_source() -> None:
    from rtseg.base.account import Gap
    from rtseg.synthetic import EndoscopeSource

    real = EndoscopeSource.frame

    def frame(self: EndoscopeSource, seq: int) -> Frame:
        if seq == FAULTS.get("break_at"):
            raise SourceError("frame 20: cable pulled")
        if seq == 20 and FAULTS.get("account") == "gap":
            self.account.gap(Gap(20, 0.4, 3, "its data is damaged"))
        if seq == 20 and FAULTS.get("account") == "ended":
            self.account.ended = "cut off 1 s before the end it declares"
            self.close()
        return real(self, seq)

    EndoscopeSource.frame = frame  # type: ignore[method-assign]


def break_recorder() -> None:
    from rtseg.publish import recording

    real = recording.Recording.close

    def close(self: recording.Recording) -> None:
        until = time.monotonic() + {"work": 1.0, "hang": 3600.0}.get(FAULTS["close"], 0.0)
        while time.monotonic() < until:
            if FAULTS["close"] == "hang":
                time.sleep(1.0)
        if FAULTS["close"] == "full":
            raise OutputError("events.jsonl: cannot be written (no space left on device)")
        real(self)

    if "close" in FAULTS:
        recording.Recording.close = close  # type: ignore[method-assign]


def crash() -> None:
    raise RuntimeError("a bug")


def linger() -> None:
    """A large process on a slow machine lets go of all it holds long before it is gone."""

    def wait() -> None:
        for fd in range(3, 100):
            with suppress(OSError):
                os.close(fd)
        time.sleep(FAULTS["linger"])

    if "linger" in FAULTS:
        atexit.register(wait)


if __name__ == "__main__":
    if FAULTS.get("fake"):
        pretend()
    role = json.loads(sys.argv[1])["role"]
    if role == "segment":
        linger()
    {"segment": break_network, "publish": break_overlay, "grab": break_source, "record": break_recorder}[role]()
    if FAULTS.get("crash") == role:
        sys.modules[f"rtseg.live.workers.{role}"] = types.SimpleNamespace(work=lambda context: crash())  # type: ignore[assignment]
    main(sys.argv[1])
