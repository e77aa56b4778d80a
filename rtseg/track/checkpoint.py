"""The whole state of a tracker as plain values and arrays, and back: who goes on from it gives the same masks.

It holds the objects with their banks (memories, pointers, what the policy chose), where they are, since when they are
lost and what would recognise their scene; the overlaps, the cut detector, waiting prompts, and the count of steps.
Settings (engine, policy, `cuts`) are not part of it: they have to be the same, and that is checked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np

from ..base.errors import ConfigError
from ..base.state import State
from ..base.types import Prompt
from ..engine import Array, Engine, Remembered
from ..engine.policy import BankSize, Choice, MaskQuality, Memory, MemoryPolicy
from ..engine.saved_arrays import from_saved, to_saved
from .bank import Bank
from .bank_report import Dropped
from .cut_detector import CutDetector, SmallPicture
from .location import Location
from .objects import Object
from .overlaps import Overlaps
from .reidentify import Lost, SceneMatcher

VERSION = 1
_PICTURE = ("small_hwc", "shape_hw", "valid_hw", "extreme_hw")
Plain = dict[str, Any]


class Saved(Protocol):
    """What a tracker consists of. (`Tracker` uses this file, so its type cannot be named here.)"""

    engine: Engine
    policy: str
    cuts: bool
    across_cuts: bool
    _policy: MemoryPolicy
    _size: BankSize
    _objects: dict[int, Object]
    _prompts: dict[int, Prompt]
    _steps: int
    _seqs: deque[int]
    _cut_at: deque[int]
    _overlaps: Overlaps
    _cut_detector: CutDetector


def state_of(tracker: Saved) -> State:
    """The state of a tracker between two steps. On a CPU its arrays are those of the tracker, which never change."""
    out = _Out()
    objects = [_object(out, tracker._objects[i]) for i in sorted(tracker._objects)]
    detector, overlaps = tracker._cut_detector, tracker._overlaps
    plain = {
        "made_by": made_by(tracker),
        "objects": objects,
        "prompts": [_prompt(out, prompt) for prompt in tracker._prompts.values()],
        "steps": tracker._steps,
        "seqs": list(tracker._seqs),
        "cut_at": list(tracker._cut_at),
        "overlaps": {
            "masks": {str(i): out.put(mask_hw) for i, mask_hw in overlaps.masks.items()},
            "allowed": sorted(sorted(pair) for pair in overlaps.allowed),
            "joined": sorted(overlaps.joined),
            "sure": sorted(overlaps.sure),
        },
        "cut_detector": {
            "picture": detector.picture and [out.put(getattr(detector.picture, name)) for name in _PICTURE],
            "usual": detector.usual,
            "waited": detector.waited,
        },
        "arrays": out.how,
    }
    return State(plain, out.arrays)


def restore(tracker: Saved, state: State) -> None:
    """Give a tracker the state of another one. Raises `ConfigError` if that had another engine or other settings."""
    plain, ours = state.plain, made_by(tracker)
    other = [key for key in ours if plain["made_by"].get(key) != ours[key]]
    if other:
        was, now = plain["made_by"].get(other[0]), ours[other[0]]
        raise ConfigError(f"checkpoint: made with {other[0]} = {was}, now it is {now}; begin again with --force")
    arrays = _In(plain["arrays"], state, str(getattr(tracker.engine, "device", "cpu")))
    objects = [_restored_object(arrays, one, tracker) for one in plain["objects"]]
    overlaps, detector = plain["overlaps"], plain["cut_detector"]
    tracker._objects = {o.id: o for o in objects}
    tracker._prompts = {one["id"]: _restored_prompt(arrays, one) for one in plain["prompts"]}
    tracker._steps = plain["steps"]
    tracker._seqs = deque(plain["seqs"], tracker._seqs.maxlen)
    tracker._cut_at = deque(plain["cut_at"], tracker._cut_at.maxlen)
    tracker._overlaps = Overlaps(
        {int(i): arrays.take(mask) for i, mask in overlaps["masks"].items()},
        frozenset(frozenset(pair) for pair in overlaps["allowed"]),
        frozenset(overlaps["joined"]),
        frozenset(overlaps["sure"]),
    )
    picture = detector["picture"] and SmallPicture(*map(arrays.take, detector["picture"]))
    tracker._cut_detector = CutDetector(picture, detector["usual"], detector["waited"])


def made_by(tracker: Saved) -> Plain:
    """What has to be the same for a state to mean the same."""
    engine = tracker.engine
    return {
        "version": VERSION,
        "weights": engine.weights_hash,
        "engine": engine.description,
        "image_size": engine.image_size,
        "memory": asdict(replace(engine.recipe.memory, policy=tracker.policy)),
        "cuts": tracker.cuts,
        "across_cuts": tracker.across_cuts,
    }


class _Out:
    """Arrays on their way out. One that several owners share is kept once."""

    def __init__(self) -> None:
        self.how: list[Plain] = []
        self.arrays: dict[str, Any] = {}
        self._known: dict[int, tuple[int, Array]] = {}  # the array, too: an id may be used again once it is gone

    def put(self, x: Array | None) -> int | None:
        if x is None:
            return None
        if id(x) not in self._known:
            how, numbers = to_saved(x)
            self._known[id(x)] = len(self.how), x
            self.arrays[str(len(self.how))] = numbers
            self.how.append(how)
        return self._known[id(x)][0]


class _In:
    """Arrays on their way back."""

    def __init__(self, how: list[Plain], state: State, device: str) -> None:
        self._made = [from_saved(one, state.arrays[str(i)], device) for i, one in enumerate(how)]

    def take(self, number: int | None) -> Any:
        return None if number is None else self._made[number]


def _object(out: _Out, o: Object) -> Plain:
    return {
        "id": o.id,
        "label": o.label,
        "bank": _bank(out, o.bank),
        "lost": o.lost and {"since": o.lost.since, "matcher": o.lost.matcher and _matcher(out, o.lost.matcher)},
        "location": o.location and {"box": list(o.location.box), "unseen": o.location.unseen},
    }


def _restored_object(arrays: _In, plain: Plain, tracker: Saved) -> Object:
    lost, location = plain["lost"], plain["location"]
    return Object(
        plain["id"],
        plain["label"],
        _restored_bank(arrays, plain["bank"], tracker),
        lost and Lost(lost["since"], lost["matcher"] and _restored_matcher(arrays, lost["matcher"])),
        location and Location(tuple(location["box"]), location["unseen"]),
    )


def _bank(out: _Out, bank: Bank) -> Plain:
    return {
        "memories": [_memory(out, memory) for memory in bank._memories],
        "keep": list(bank._choice.keep),
        "attend": [list(pair) for pair in bank._choice.attend],
        "pin": list(bank._choice.pin),
        "recent": [[seq, step, out.put(pointer_c)] for seq, step, pointer_c in bank._recent],
        "dropped": [[one.seq, one.why] for one in bank._dropped],
    }


def _restored_bank(arrays: _In, plain: Plain, tracker: Saved) -> Bank:
    bank = Bank(tracker._policy, tracker._size, tracker.engine.recipe.memory.pointers)
    bank._memories = [_restored_memory(arrays, memory) for memory in plain["memories"]]
    attend = tuple((index, slot) for index, slot in plain["attend"])
    bank._choice = Choice(tuple(plain["keep"]), attend, tuple(plain["pin"]))
    bank._recent.extend((seq, step, arrays.take(pointer)) for seq, step, pointer in plain["recent"])
    bank._dropped.extend(Dropped(seq, why) for seq, why in plain["dropped"])
    return bank


def _memory(out: _Out, memory: Memory) -> Plain:
    written = memory.written
    alike = memory.similarities
    return {
        "step": memory.step,
        "written": [out.put(x) for x in (written.map_chw, written.keys_lnd, written.cells_cgg)],
        "pointer": out.put(memory.pointer_c),
        "conditioning": memory.conditioning,
        "seq": memory.seq,
        "quality": asdict(memory.quality),
        "pinned_at": memory.pinned_at,
        "similarities": alike if alike is None else [[step, value] for step, value in alike.items()],
    }


def _restored_memory(arrays: _In, plain: Plain) -> Memory:
    alike = plain["similarities"]
    return Memory(
        plain["step"],
        Remembered(*map(arrays.take, plain["written"])),
        arrays.take(plain["pointer"]),
        plain["conditioning"],
        plain["seq"],
        MaskQuality(**plain["quality"]),
        plain["pinned_at"],
        None if alike is None else dict(alike),
    )


def _matcher(out: _Out, matcher: SceneMatcher) -> Plain:
    fitted = not matcher.pending
    return {
        "long_known": matcher._long_known,
        "pending": [out.put(map_chw) for map_chw in matcher.pending],
        "fitted": [out.put(matcher._mean_m1), out.put(matcher._known_tm), matcher.threshold] if fitted else None,
    }


def _restored_matcher(arrays: _In, plain: Plain) -> SceneMatcher:
    matcher = SceneMatcher.__new__(SceneMatcher)  # its memories are gone from the bank by now
    matcher._long_known, matcher.pending = plain["long_known"], [arrays.take(i) for i in plain["pending"]]
    if plain["fitted"]:
        mean, known, matcher.threshold = plain["fitted"]
        matcher._mean_m1, matcher._known_tm = arrays.take(mean), arrays.take(known)
    return matcher


def _prompt(out: _Out, prompt: Prompt) -> Plain:
    return {
        "id": prompt.id,
        "points": [list(point) for point in prompt.points],
        "box": prompt.box and list(prompt.box),
        "mask": out.put(None if prompt.mask is None else np.asarray(prompt.mask)),
        "label": prompt.label,
    }


def _restored_prompt(arrays: _In, plain: Plain) -> Prompt:
    return Prompt(plain["id"], plain["points"], plain["box"], arrays.take(plain["mask"]), plain["label"])
