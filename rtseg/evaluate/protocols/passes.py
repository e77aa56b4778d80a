"""Protocols that prompt an object once or several times, and track it: forward, backward, or both ways and merged.

Each object gets the masks that it would have alone. So objects beyond the engine's `max_objects` are tracked in a
further pass, with the same masks. A pass reads each frame once, from its first prompt on, and keeps masks as RLE.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Frames

from ...base.rle import encode_rle
from ...base.types import Frame, Masks, now_ns
from ...data.dataset import Sequence
from ...track import Tracker
from ..prompting import Prompter, to_entry
from ..result import Prediction, Tracked
from .schedule import Schedule, passes, scheduled

OpenTracker = Callable[[], Tracker]
Times = dict[int, float]  # ms of each frame, over all passes


def follow(
    sequence: Sequence,
    schedule: Schedule,
    open_tracker: OpenTracker,
    prompter: Prompter,
    order: Frames[int] | None = None,
) -> Tracked:
    """Track each object from its first prompt to the end of `order` (default: forward). Later prompts correct it.

    Every prompted frame counts as given, whatever the prompt.
    """
    order = range(sequence.count) if order is None else order
    tracked, times = Tracked(), Times()
    for part in passes(schedule, order, limit_of(open_tracker)):
        tracker = open_tracker()
        for place, t in enumerate(order):
            prompted = prompt(tracker, sequence, t, part.get(t, ()), prompter, tracked)
            if tracker.ids:
                frame = Frame(sequence.image(t), seq=place)
                record(tracked, t, timed_step(tracker, frame, t, times))
            tracked.given |= {(t, i) for i in prompted}
    return in_order(tracked, times)


def both_ways(sequence: Sequence, schedule: Schedule, open_tracker: OpenTracker, prompter: Prompter) -> Tracked:
    """Track each object from its prompted slices to both ends, and merge the two by `merged`."""
    forward = follow(sequence, schedule, open_tracker, prompter)
    backward = follow(sequence, schedule, open_tracker, prompter, range(sequence.count)[::-1])
    return merged(forward, backward, schedule)


def merged(forward: Tracked, backward: Tracked, schedule: Schedule) -> Tracked:
    """Take each slice from the pass with the nearer prompt; from the forward pass if both are equally near.

    This is the backward pass before an object's first prompted slice, and the forward pass after the last. Between two
    prompts it is the forward pass up to the middle, and then the backward one. Masks are not blended, so that each is
    one of the network's.
    """
    tracked, times = Tracked(given=forward.given | backward.given, prompts=forward.prompts), Times()
    for one_way in (forward, backward):
        for t, ms in zip(sorted(one_way.masks), one_way.ms, strict=True):
            times[t] = times.get(t, 0.0) + ms
    for i, prompted in scheduled(schedule).items():
        for t in sorted(forward.masks.keys() | backward.masks.keys()):
            before, after = bisect_right(prompted, t) - 1, bisect_left(prompted, t)
            ahead = before >= 0 and (after == len(prompted) or t - prompted[before] <= prompted[after] - t)
            tracked.masks.setdefault(t, {})[i] = (forward if ahead else backward).masks[t][i]
    return in_order(tracked, times)


def limit_of(open_tracker: OpenTracker) -> int:
    """How many objects a tracker can track at once."""
    return open_tracker().engine.recipe.max_objects


def prompt(
    tracker: Tracker, sequence: Sequence, t: int, ids: Iterable[int], prompter: Prompter, tracked: Tracked
) -> tuple[int, ...]:
    """Prompt these objects on frame t and record the prompts. Returns the objects' ids."""
    targets = {target.id: target for target in sequence.targets}
    truth = (sequence.truth(t) or {}) if ids else {}
    for i in ids:
        given = prompter(targets[i], t, truth[i])
        tracker.give(given)
        tracked.prompts.append(to_entry(t, given))
    return tuple(ids)


def timed_step(tracker: Tracker, frame: Frame, t: int, times: Times) -> Masks:
    """One step, whose time is added to that of frame t, because a user waits for all steps of a frame."""
    start_ns = now_ns()
    masks = tracker.step(frame)
    times[t] = times.get(t, 0.0) + (now_ns() - start_ns) / 1e6
    return masks


def record(tracked: Tracked, t: int, masks: Masks, ids: Iterable[int] | None = None) -> None:
    """Record the masks of frame t, of all objects or only of `ids`."""
    for i in masks.ids if ids is None else ids:
        tracked.masks.setdefault(t, {})[i] = Prediction(encode_rle(masks.mask(i)), masks.score(i))


def in_order(tracked: Tracked, times: Times) -> Tracked:
    """Sort everything by frame, then object, and set the times, however many passes there were."""
    tracked.masks = {t: dict(sorted(masks.items())) for t, masks in sorted(tracked.masks.items())}
    tracked.ms = [ms for _, ms in sorted(times.items())]
    tracked.prompts.sort(key=lambda entry: (entry["frame"], entry["id"]))
    return tracked
