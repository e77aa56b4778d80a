"""What a feed says of itself: to its displays (status), to Prometheus (snapshot), to the person who ran it (report)."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.hardware.cpu import cores
from ..base.types import now_ns
from ..engine.recipe import Recipe
from ..grab.redact import redact
from .board import MASK_STATES, Board
from .child import Child
from .parcels import frame_of
from .plan import Shares
from .ring import Ring

if TYPE_CHECKING:
    from .supervisor import Feed


def plain_config(role: str, feed: Feed) -> dict[str, Any]:
    """What a process is told first: the part of the profile that it needs, as plain values."""
    profile = feed.profile
    if role == "grab":
        # What can never work is found at once, and the first picture of a recording waits for the network.
        hold = not feed.began_ns
        return {"hold": hold, **{name: getattr(profile, name) for name in ("source", "pace", "deinterlace", "crop")}}
    if role == "segment":
        return {"recipe": recipe_plain(feed.remedy.recipe), "overlay": profile.overlay, "size": feed.size}
    if role == "publish":
        names = ("name", "target_fps", "overlay", "carry", "opacity", "mask_budget_ms")
        return {
            **{name: getattr(profile, name) for name in names},
            "bind": feed.endpoint or profile.publish.bind,  # after a restart: the port that its subscribers know
            "topics": profile.publish.topics,
            "keys": None if profile.keys is None else str(profile.keys),
            "record": profile.record is not None,
            "recovering": feed.facts.recovering or feed.facts.absent,
            "engine": feed.engine,
        }
    return {
        "folder": str(profile.record), "stream": profile.name, "engine": feed.engine, "fps": profile.target_fps,
        "config_hash": sha256_of({**asdict(profile), "source": redact(profile.source)}),
        "recipe_hash": sha256_of(recipe_plain(profile.engine)), "resume": feed.recording or None,
    }  # fmt: skip


def recipe_plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a plain map."""
    return {**asdict(recipe), "path": None if recipe.path is None else str(recipe.path)}


def sha256_of(plain: dict[str, Any]) -> str:
    """Of a configuration as canonical JSON; the source's URI in it must be free of credentials."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=_canonical).encode()).hexdigest()


def _canonical(value: object) -> str | dict[str, Any]:
    """What JSON has no word for: a path, and a mask by its own hash, for numpy's text leaves most of it out."""
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).tobytes()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "sha256": hashlib.sha256(flat).hexdigest()}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} in a configuration has no hash")


class Counts:
    """Reads the board."""

    def __init__(self, board: Board, frames: Ring) -> None:
        self._board, self._frames = board, frames
        self._start_ns, self._shares = now_ns(), Shares(cores())
        self._before = (self._start_ns, 0, 0, 0)
        self._rating = threading.Lock()  # the exporter's threads ask, and the supervisor's
        self._rates = {"in": 0.0, "shown": 0.0, "segmented": 0.0}

    def frames(self, feed: Feed) -> dict[str, Any]:
        """Where every frame went: in = shown + dropped. Of those shown, `unwatched` had nobody to see them."""
        return {
            "in": self._frames.head,
            "shown": self._board["shown"],
            "dropped": {cause: n for cause, n in self._board.drops().items() if n},
            "unwatched": feed.published.get("overlay", {}).get("dropped", {}).get("unwatched", 0),
        }

    def stages(self) -> dict[str, dict[str, float]]:
        return {name: stage.summary() for name, stage in self._board.stages.items() if stage.counts.any()}

    def mask_states(self) -> dict[str, int]:
        return {state: self._board[f"masks {state}"] for state in MASK_STATES}

    def rates(self) -> dict[str, float]:
        """Per second, since the last call that was at least half a second ago."""
        with self._rating:
            now = now_ns(), self._frames.head, self._board["shown"], self._board["segmented"]
            seconds = (now[0] - self._before[0]) / 1e9
            if seconds >= 0.5:
                counts = zip(self._rates, now[1:], self._before[1:], strict=True)
                self._rates = {name: round((n - before) / seconds, 2) for name, n, before in counts}
                self._before = now
            return self._rates

    def ages(self) -> dict[str, float | None]:
        """Of the newest frame, and of the newest masks on it, in ms."""
        meta = self._frames.meta(self._frames.head - 1)
        if meta is None:
            return {"frame_ms": None, "mask_ms": None}
        captured_ns, masks_ns = frame_of(0, meta).captured_ns, self._board["masks captured_ns"]
        return {
            "frame_ms": (now_ns() - captured_ns) / 1e6,
            "mask_ms": (captured_ns - masks_ns) / 1e6 if masks_ns else None,
        }

    def status(self, feed: Feed) -> dict[str, Any]:
        """For the displays."""
        self._shares.look({role: child.pid for role, child in feed.children.items()})
        return {
            "state": feed.state,
            "faults": dict(feed.faults),
            "source": feed.source,
            "account": feed.input.account,
            "engine": feed.engine,
            "preparing": feed.children["segment"].preparing,
            "frames": self.frames(feed),
            "segmented": self._board["segmented"],
            "unanswered": self._board["unanswered"],
            "cuts": {"count": self._board["cuts"], **feed.scene},
            "behind": feed.remedy.plain(),
            "objects": [{"id": i, "label": feed.network.keep.label(i)} for i in feed.network.keep.ids],
            "mask_states": self.mask_states(),
            "settings": feed.settings,
            "paused": feed.network.paused,
            "processes": {role: _process(child) | self._shares.of(role) for role, child in feed.children.items()},
            "recording": feed.recording if not feed.faults.get("record") else "",
            "fps": self.rates(),
            "stages_ms": self.stages(),
            "events": feed.events[-5:],
        }

    def snapshot(self, feed: Feed) -> dict[str, Any]:
        """For Prometheus."""
        beats = {role: (now_ns() - self._board[f"beat {role}"]) / 1e6 for role in feed.children}
        stages = {name: stage for name, stage in self._board.stages.items() if name not in ("jitter", "mask age")}
        return {
            "stream": feed.profile.name,
            "engine": feed.engine,
            "state": feed.state,
            "source": {"state": feed.source["state"], "counts": feed.source["counts"]},
            "processes": {
                role: {**_process(child), "beat_age_ms": beats[role], **_memory(child.pid)}
                for role, child in feed.children.items()
            },
            "frames": {**self.frames(feed), "segmented": self._board["segmented"]},
            "mask_states": self.mask_states(),
            "published": feed.published,
            "stages": stages,
            "jitter": self._board.stages["jitter"],
            "mask_age": self._board.stages["mask age"],
            "ages": self.ages(),
            "queues": {"publish": self._frames.head - self._board.decided()},
            "objects": len(feed.network.keep.ids),
            "fps": self.rates(),
        }

    def report(self, feed: Feed) -> dict[str, Any]:
        """For the person who ran it."""
        seconds = max(1e-3, (now_ns() - (feed.began_ns or now_ns())) / 1e9)
        frames = self.frames(feed)
        fps = {"in": frames["in"] / seconds, "shown": frames["shown"] / seconds}
        return {
            "ok": feed.ending.ok,
            "stream": feed.profile.name,
            "source": feed.source["uri"],
            **({} if feed.input.state in ("running", "ended") else {"source_state": feed.input.words}),
            "engine": feed.engine,
            "endpoint": feed.endpoint,
            "restarts": {role: child.restarts for role, child in feed.children.items() if child.restarts},
            "seconds": round(seconds, 2),
            "fps": {**fps, "segmented": self._board["segmented"] / seconds},
            "frames": frames,
            "mask_states": self.mask_states(),
            **{name: self._board[name] for name in ("cuts", "unanswered") if self._board[name]},
            **feed.remedy.report(),
            "published": {kind: counts["sent"] for kind, counts in feed.published.items()},
            "source_counts": {name: n for name, n in feed.source["counts"].items() if n},
            **({"source_account": "; ".join(feed.input.account["lines"])} if feed.input.account else {}),
            **({"recording": self._recording(feed)} if feed.recording else {}),
            "cores": self._shares.report(seconds),
            "stages_ms": self.stages(),
            "faults": dict(feed.faults),
            **({"why": feed.ending.line} if feed.faults else {}),
        }

    def _recording(self, feed: Feed) -> dict[str, Any]:
        return {"folder": feed.recording, "frames": self._board["recorded"], "missed": self._board["missed"]}


def _process(child: Child) -> dict[str, Any]:
    return {"up": child.up, "restarts": child.restarts, "pid": child.pid}


def _memory(pid: int | None) -> dict[str, int]:
    """What a process holds; nothing of one that is not there."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return {
            "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "open_files": sum(1 for _ in (folder / "fd").iterdir()),
        }
    except (OSError, IndexError):
        return {}
