"""Describes a feed: to subscribers (status), to Prometheus (snapshot), to the person who ran it (report)."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from ..base.hardware.cpu import cores
from ..base.types import now_ns
from .activity import memory_use
from .core_allocation import CoreUse
from .delay_control import lag_report, lag_status
from .ipc.board import MASK_STATES
from .state import FeedState
from .worker_process import WorkerProcess


class Statement:
    """Describes the state of one feed."""

    def __init__(self, state: FeedState) -> None:
        self._state, self._board, self._frames = state, state.board, state.frames
        self._start_ns, self._cores = now_ns(), CoreUse(cores())
        self._before = (self._start_ns, 0, 0, 0)
        self._rating = threading.Lock()  # called by the threads of the exporter and by the supervisor's
        self._rates = {"in": 0.0, "shown": 0.0, "segmented": 0.0}

    def frames(self) -> dict[str, Any]:
        """What became of every frame: in = shown + dropped. `unwatched`: shown frames without a subscriber."""
        return {
            "in": self._frames.head,
            "shown": self._board["shown"],
            "dropped": {cause: n for cause, n in self._board.drops().items() if n},
            "unwatched": self._state.published.get("overlay", {}).get("dropped", {}).get("unwatched", 0),
        }

    def stages(self) -> dict[str, dict[str, float]]:
        """Durations of each stage."""
        return {name: stage.summary() for name, stage in self._board.stages.items() if stage.counts.any()}

    def mask_states(self) -> dict[str, int]:
        """Drawn frames, by the state of their masks."""
        return {state: self._board[f"masks {state}"] for state in MASK_STATES}

    def rates(self) -> dict[str, float]:
        """Frames per second, measured between calls that are at least half a second apart."""
        with self._rating:
            now = now_ns(), self._frames.head, self._board["shown"], self._board["segmented"]
            seconds = (now[0] - self._before[0]) / 1e9
            if seconds >= 0.5:
                counts = zip(self._rates, now[1:], self._before[1:], strict=True)
                self._rates = {name: round((n - before) / seconds, 2) for name, n, before in counts}
                self._before = now
            return self._rates

    def ages(self) -> dict[str, float | None]:
        """The age of the newest frame, and that of the newest masks on it, in ms."""
        newest = self._frames.newest
        if newest is None:
            return {"frame_ms": None, "mask_ms": None}
        masks_ns = self._board["masks captured_ns"]
        return {
            "frame_ms": (now_ns() - newest.captured_ns) / 1e6,
            "mask_ms": (newest.captured_ns - masks_ns) / 1e6 if masks_ns else None,
        }

    def status(self) -> dict[str, Any]:
        """The status for subscribers."""
        state, workers, history = self._state, self._state.workers, self._state.segmenter.history
        self._cores.look({role: worker.pid for role, worker in workers.items()})
        looks = state.looks
        return {
            "state": state.phase,
            "faults": dict(state.faults),
            "source": state.source.facts,
            "account": state.source.account,
            "engine": state.engine,
            "memory": asdict(state.recipe.memory),
            "preparing": workers["segment"].preparing,
            "frames": self.frames(),
            "segmented": self._board["segmented"],
            "unanswered": self._board["unanswered"],
            "cuts": {"count": self._board["cuts"], **state.scene.plain()},
            "behind": lag_status(state),
            "objects": [
                {"id": i, "label": history.label(i), "color": list(looks.color(i)), "hidden": i in looks.hidden}
                for i in history.ids
            ],
            "presets": [{"label": preset.label, "color": list(preset.color)} for preset in state.profile.presets],
            "changes": state.segmenter.changes.plain(),
            "mask_states": self.mask_states(),
            "settings": state.settings,
            "paused": state.segmenter.paused,
            "processes": {role: _process(worker) | self._cores.status(role) for role, worker in workers.items()},
            "recording": state.recording if not state.faults.get("record") else "",
            "fps": self.rates(),
            # With the sum of all durations a reader has the mean of the last seconds: of the two last statuses.
            "stages_ms": {n: {**ms, "total": round(self._board.stages[n].total, 3)} for n, ms in self.stages().items()},
            "events": state.events[-5:],
        }

    def snapshot(self) -> dict[str, Any]:
        """The figures for Prometheus."""
        state, workers = self._state, self._state.workers
        beats_ms = {role: (now_ns() - self._board[f"beat {role}"]) / 1e6 for role in workers}
        stages = {name: stage for name, stage in self._board.stages.items() if name not in ("jitter", "mask age")}
        return {
            "stream": state.profile.name,
            "engine": state.engine,
            "state": state.phase,
            "source": {"state": state.source.state, "counts": state.source.counts},
            "processes": {
                role: {**_process(worker), "beat_age_ms": beats_ms[role], **memory_use(worker.pid)}
                for role, worker in workers.items()
            },
            "frames": {**self.frames(), "segmented": self._board["segmented"]},
            "mask_states": self.mask_states(),
            "published": state.published,
            "stages": stages,
            "jitter": self._board.stages["jitter"],
            "mask_age": self._board.stages["mask age"],
            "ages": self.ages(),
            "queues": {"publish": self._frames.head - self._board.decided()},
            "objects": len(state.segmenter.history.ids),
            "fps": self.rates(),
        }

    def report(self) -> dict[str, Any]:
        """The report for the person who ran the feed."""
        state = self._state
        seconds = max(1e-3, (now_ns() - (state.began_ns or now_ns())) / 1e9)
        frames, source = self.frames(), state.source
        fps = {"in": frames["in"] / seconds, "shown": frames["shown"] / seconds}
        return {
            "ok": state.ending.ok,
            "stream": state.profile.name,
            "source": source.facts["uri"],
            **({} if source.state in ("running", "ended") else {"source_state": source.description}),
            "engine": state.engine,
            "endpoint": state.endpoint,
            "restarts": {role: worker.restarts for role, worker in state.workers.items() if worker.restarts},
            "seconds": round(seconds, 2),
            "fps": {**fps, "segmented": self._board["segmented"] / seconds},
            "frames": frames,
            "mask_states": self.mask_states(),
            **{name: self._board[name] for name in ("cuts", "unanswered") if self._board[name]},
            **lag_report(state),
            "published": {kind: counts["sent"] for kind, counts in state.published.items()},
            "source_counts": {name: n for name, n in source.counts.items() if n},
            **({"source_account": "; ".join(source.account["lines"])} if source.account else {}),
            **({"recording": self._recording()} if state.recording else {}),
            "cores": self._cores.report(seconds),
            "stages_ms": self.stages(),
            "faults": dict(state.faults),
            **({"why": state.ending.line} if state.faults else {}),
        }

    def _recording(self) -> dict[str, Any]:
        counts = {"frames": self._board["recorded"], "missed": self._board["missed"]}
        return {"folder": self._state.recording, **counts}


def _process(worker: WorkerProcess) -> dict[str, Any]:
    return {"up": worker.up, "restarts": worker.restarts, "pid": worker.pid}
