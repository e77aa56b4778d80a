"""The frames on which each object is prompted, as pure functions of where the truth shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Frames

from ...data.dataset import Sequence

Areas = Mapping[int, Mapping[int, int]]  # object to annotated frame that shows it to pixels; frames ascend
Schedule = dict[int, tuple[int, ...]]  # frame to the objects that are prompted on it


def survey(sequence: Sequence) -> dict[int, dict[int, int]]:
    """The frames on which each target is visible, with its area. A target that never is has no entry.

    Reads every truth once.
    """
    areas: dict[int, dict[int, int]] = {}
    known = {target.id for target in sequence.targets}
    for t in range(sequence.count):
        for i, truth_hw in (sequence.truth(t) or {}).items():
            if i in known:
                areas.setdefault(i, {})[t] = int(truth_hw.sum())
    return areas


def on_first_frame(areas: Areas) -> Schedule:
    """Prompt once, on the first annotated frame that shows any target; objects that appear later are not tracked."""
    first = min((min(frames) for frames in areas.values()), default=-1)
    return _by_frame({i: [first] for i, frames in areas.items() if first in frames})


def on_entry(areas: Areas) -> Schedule:
    """Prompt each object once, on the first annotated frame that shows it."""
    return _by_frame({i: [min(frames)] for i, frames in areas.items()})


def every(areas: Areas, k: int) -> Schedule:
    """Prompt each object when it enters, and again k frames after its latest prompt, or when it is next visible."""
    chosen: dict[int, list[int]] = {}
    for i, frames in areas.items():
        for t in sorted(frames):
            if i not in chosen or t - chosen[i][-1] >= k:
                chosen.setdefault(i, []).append(t)
    return _by_frame(chosen)


def on_all(areas: Areas) -> Schedule:
    """Prompt each object on every annotated frame that shows it."""
    return _by_frame({i: list(frames) for i, frames in areas.items()})


def on_slices(areas: Areas, slices: Iterable[int] = ()) -> Schedule:
    """Prompt each object on those slices that show it; without `slices`, on the first slice on which it is largest.

    An object that none of the slices shows is not prompted.
    """
    slices = sorted(set(slices))
    if not slices:
        return _by_frame({i: [max(frames, key=lambda t: (frames[t], -t))] for i, frames in areas.items()})
    return _by_frame({i: [t for t in slices if t in frames] for i, frames in areas.items()})


def scheduled(schedule: Schedule) -> dict[int, list[int]]:
    """The frames on which each object is prompted, ascending."""
    frames: dict[int, list[int]] = {}
    for t, ids in sorted(schedule.items()):
        for i in ids:
            frames.setdefault(i, []).append(t)
    return frames


def passes(schedule: Schedule, order: Frames[int], limit: int) -> list[Schedule]:
    """Split the schedule into parts of at most `limit` objects, which one tracker can track at once.

    Objects that are prompted early in `order` are together, so that the later parts have fewer frames to track.
    """
    place = {t: position for position, t in enumerate(order)}
    frames = scheduled(schedule)
    ids = sorted(frames, key=lambda i: (min(place[t] for t in frames[i]), i))
    chunks = [ids[start : start + limit] for start in range(0, len(ids), limit)]
    return [_by_frame({i: frames[i] for i in chunk}) for chunk in chunks]


def _by_frame(frames_by_object: Mapping[int, Iterable[int]]) -> Schedule:
    schedule: dict[int, list[int]] = {}
    for i, frames in sorted(frames_by_object.items()):
        for t in frames:
            schedule.setdefault(t, []).append(i)
    return {t: tuple(ids) for t, ids in sorted(schedule.items())}
