"""The state of a feed: what is true of it now, with the functions that change it."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import OutputError
from ..base.types import Frame, now_ns
from ..publish.looks import PLAIN, Looks
from .counters import CumulativeCounters
from .delay_monitor import DelayMonitor
from .ending import MINOR, Ending
from .ipc.board import Board
from .ipc.messages import DisplaySettings, RecordNote, SetLooks, Size
from .ipc.shared_memory import SharedMemory
from .object_looks import ObjectLooks
from .profile import StreamProfile
from .prompt_keeper import PromptKeeper, snapshot
from .segment_client import SegmentClient
from .source_state import SourceState
from .worker_process import WorkerProcess

log = logging.getLogger("rtseg.live")

SLOW_NS = 4_000_000_000  # longer than a network takes to make masks again
LOUD = ("died", "hung", "fault", "unanswered", "warning")  # events that are logged as warnings
_EVENTS = 20  # how many of the newest events the state holds
_HELD = 8  # frames that are held for people who point at them


@dataclass(slots=True)
class Conditions:
    """The conditions from which the phase of a feed follows.

    `source`: the phase of the source; `absent`: the segment worker is not up; `recovering`: objects are being restored;
    `failed`: a part of the feed has failed for good.
    """

    source: str = "opening"
    paused: bool = False
    absent: bool = False
    recovering: bool = False
    failed: bool = False
    over: bool = False


@dataclass(slots=True)
class Scene:
    """The present scene. `last_cut`: its first frame, if there was a cut; `lost`: objects lost since then."""

    last_cut: int | None = None
    lost: tuple[int, ...] = ()

    def plain(self) -> dict[str, Any]:
        """For the status."""
        return {"last": self.last_cut, "lost": list(self.lost)}


def phase_of(conditions: Conditions) -> str:
    """The phase of a feed. Of several problems the worst counts: a missing picture is worse than missing masks."""
    if conditions.over:
        return "ended"
    if conditions.source not in ("running", "ended"):
        return conditions.source
    if conditions.failed:
        return "failed"
    if conditions.absent:
        return "recovering"
    if conditions.paused:
        return "paused"
    return "recovering" if conditions.recovering else conditions.source


def has_recovered(board: Board, newest_ns: int, since_ns: int, budget_ms: float) -> bool:
    """Whether there are masks of a frame captured after `since_ns` that are fresh on the newest frame.

    If the network is too slow for fresh masks: whether there are masks of a frame captured a few seconds after
    `since_ns`. Each frame states the age of its masks.
    """
    masks_ns = board["masks captured_ns"]
    return masks_ns > since_ns and (newest_ns - masks_ns <= budget_ms * 1e6 or masks_ns - since_ns > SLOW_NS)


class FeedState:
    """The state of one feed. Only the supervisor's thread changes it."""

    shared: SharedMemory
    segmenter: SegmentClient
    delay: DelayMonitor

    def __init__(self, profile: StreamProfile) -> None:
        self.profile = profile
        self.settings = {"opacity": profile.opacity, "budget_ms": profile.mask_budget_ms}
        self.conditions, self.ending = Conditions(), Ending()
        self.source = SourceState(self.note)
        self.scene, self.publisher_counts = Scene(), CumulativeCounters()
        self.events: list[str] = []
        self.engine = self.endpoint = self.control = self.recording = ""
        self.recipe = self.larger_recipe = profile.engine  # now, and before the image size was lowered
        self.worst_lag: dict[str, Any] = {}  # for the report: the seconds with the fewest fresh masks
        self.first_prompts_given = not profile.objects
        self.stopping = False
        self.start_ns = self.began_ns = 0  # when the workers were started; when frames were first read
        self.status_due_ns = self._recovery_ns = 0
        self._held: deque[Frame] = deque(maxlen=_HELD)
        self.object_looks, self.looks_sent = ObjectLooks(profile.presets), PLAIN
        self.keeper: PromptKeeper | None = None
        self.workers: dict[str, WorkerProcess] = {}

    def attach(self, shared: SharedMemory, workers: dict[str, WorkerProcess]) -> None:
        """Give the feed its shared memory and its workers, which are not started yet."""
        self.shared, self.workers = shared, workers
        self.board, self.frames, self.masks = shared.board, shared.frames, shared.masks
        self.segmenter = SegmentClient(workers["segment"], self.profile.engine.max_objects)
        self.delay = DelayMonitor(self.board)
        if self.profile.keep is not None:
            self._restore_kept(PromptKeeper(self.profile.keep, self.profile.name), self.profile.keep)

    # What follows from the state.

    @property
    def phase(self) -> str:
        """One word for the state of the feed."""
        return phase_of(self.conditions)

    @property
    def faults(self) -> dict[str, str]:
        """The first fault of each part that has failed."""
        return self.ending.plain()

    @property
    def published(self) -> dict[str, Any]:
        """Messages sent and dropped, over all processes of the publish worker."""
        return self.publisher_counts.total

    @property
    def waits_for(self) -> str:
        """What a feed that has not begun waits for; "" once it has begun."""
        if self.began_ns:
            return ""
        if not self.workers["publish"].up:
            return "the publisher"
        return "the source" if not self.workers["grab"].up or self.workers["segment"].up else "the network"

    def frame(self, seq: int | None = None) -> Frame | None:
        """The frame `seq`, or the newest for None. Returns None if neither the ring nor `hold` has that frame."""
        for _ in range(3):  # in a tiny ring, the newest frame may be overwritten while it is read
            frame = self.frames.get(self.frames.head - 1 if seq is None else seq)
            if frame is not None:
                return frame
        return next((frame for frame in self._held if frame.seq == seq), None)

    def hold(self, frame: Frame) -> bool:
        """Keep a frame for prompts that come after the ring has dropped it; of those held, the latest few stay.

        Returns whether it was not held before.
        """
        is_new = all(held.seq != frame.seq for held in self._held)
        if is_new:
            self._held.append(frame)
        return is_new

    # Events and faults.

    def note(self, kind: str, role: str, text: str, who: str = "") -> None:
        """Note an event: in the log, the status and the recording. `who`: the person who caused it."""
        log.log(logging.WARNING if kind in LOUD else logging.INFO, "%s %s: %s", role, kind, text)
        self.events = [*self.events, f"{role} {kind}: {text}"][-_EVENTS:]
        self.record(kind, {"role": role, "text": text} | ({"who": who} if who else {}))
        self.status_due_ns = 0

    def record(self, kind: str, facts: dict[str, Any]) -> None:
        """Note an event in the recording alone."""
        if "record" in self.workers:
            self.workers["record"].send(RecordNote(kind, facts))

    def fault(self, part: str, text: str) -> None:
        """Something has failed for good: see `ending.py`."""
        if self.ending.add(part, text):
            self.note("fault", part, text)

    # Control requests.

    def stop(self) -> None:
        """End the feed soon; from any thread."""
        self.stopping = True

    def pause(self, on: bool) -> None:
        """Pause or resume the network."""
        self.segmenter.pause(on)
        self.note("paused" if on else "resumed", "segment", "by a control request")

    def change_settings(self, **changes: float) -> None:
        """Change how masks are drawn; `OutputError`, and no change, if the publisher does not listen."""
        settings, publish = {**self.settings, **changes}, self.workers["publish"]
        # A publisher that is starting gets the settings when it is bound.
        if publish.up and not publish.send(DisplaySettings(**settings)):
            raise OutputError("the publisher does not listen at the moment; try again")
        self.settings = settings

    # Kept prompts.

    def _restore_kept(self, keeper: PromptKeeper, path: Path) -> None:
        """Have the objects that the file keeps restored; they stand for those of the profile."""
        self.keeper, history = keeper, self.segmenter.history
        restored = keeper.restore(history, self.profile.engine.max_objects)
        if restored is not None:
            self.object_looks.choices, saved = restored
            self.first_prompts_given, self.conditions.recovering = True, bool(history.ids)
            self._recovery_ns = now_ns()
            ids = ", ".join(map(str, history.ids)) or "none"
            self.note("kept", "control", f"objects {ids}, as {path} kept them on {saved}")

    def keep_prompts(self) -> None:
        """Have accepted prompts kept, once in each round of the supervisor."""
        if self.keeper is not None:
            error = self.keeper.note(snapshot(self.segmenter.history, self.object_looks.choices))
            if error:
                self.note("warning", "control", f"prompts are not kept: {error}")

    def close_keeper(self) -> None:
        """Write what is left to be kept; a failure is a fault."""
        if self.keeper is not None:
            error = self.keeper.close()
            if error:
                self.fault("prompts", f"not kept: {error}")

    # How objects are drawn.

    @property
    def looks(self) -> Looks:
        """How the present objects are drawn."""
        history = self.segmenter.history
        return self.object_looks.of({i: history.label(i) for i in history.ids})

    def send_looks(self) -> None:
        """Tell the publisher how objects are drawn, if that has changed since it was told."""
        looks, publish = self.looks, self.workers["publish"]
        if publish.up and looks != self.looks_sent and publish.send(SetLooks(dict(looks.colors), tuple(looks.hidden))):
            self.looks_sent = looks

    # What happens to the workers.

    def set_size(self, size: Size) -> None:
        """Note the height and width of the pictures to come."""
        self.source.size = size
        self.segmenter.set_size(size)

    def lose_masks(self) -> None:
        """The segment worker has ended: its objects have to be restored."""
        self.scene.lost = ()
        self._recovery_ns = now_ns()
        self.conditions.recovering = bool(self.segmenter.history.ids) or not self.first_prompts_given
        discarded = self.segmenter.ended()
        if discarded is not None:
            self.fault("prompts", discarded)

    def reopen_engine(self, kind: str, text: str) -> None:
        """The segment worker opens its engine again: until it is ready, it counts as not up."""
        self.workers["segment"].up = False
        self._recovery_ns, self.conditions.recovering = now_ns(), bool(self.segmenter.history.ids)
        self.note(kind, "segment", text)

    # Once in each round of the supervisor.

    def update_conditions(self) -> None:
        """Derive the conditions from the workers and the source."""
        conditions = self.conditions
        conditions.paused, conditions.absent = self.segmenter.paused, not self.workers["segment"].up
        failing = {role for role, worker in self.workers.items() if not worker.up and worker.failing}
        conditions.failed = self.ending.failed or not failing <= set(MINOR)
        conditions.failed |= bool(self.began_ns) and not self.workers["publish"].up
        self.segmenter.proved(self.board["masks captured_ns"])
        conditions.source = self.source.state if self.began_ns else "opening"
        self.source.remind(self.waits_for)

    def check_recovery(self) -> None:
        """Note when the objects are restored."""
        conditions = self.conditions
        if not conditions.recovering or conditions.paused:
            return
        newest = self.frames.newest
        newest_ns = now_ns() if newest is None else newest.captured_ns
        if self.first_prompts_given and not self.segmenter.history.ids:
            conditions.recovering = False  # there is nothing to restore
        elif has_recovered(self.board, newest_ns, self._recovery_ns, self.settings["budget_ms"]):
            conditions.recovering = False
            self.note("recovered", "segment", f"after {(now_ns() - self._recovery_ns) / 1e9:.1f} s")
