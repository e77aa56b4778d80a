"""Whether a process makes progress although it sends no heartbeat: CPU time, bytes written, waiting for a disk."""

from __future__ import annotations

from contextlib import suppress

import psutil

from ..base.types import now_ns

_PROGRESS = tuple[int, int, frozenset[int]]  # heartbeat, bytes written, child processes


def cpu_seconds(pid: int) -> float | None:
    """The CPU time that a process has used; None if it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def memory_use(pid: int | None) -> dict[str, int]:
    """Resident bytes and open files of a process; empty if it is gone."""
    if pid is None:
        return {}
    try:
        process = psutil.Process(pid)
        return {"rss_bytes": int(process.memory_info().rss), "open_files": process.num_fds()}
    except psutil.Error:
        return {}


class ActivityMonitor:
    """Watches one process from now on. `active_ns`: when it last did anything; `progress_ns`: its last progress.

    A heartbeat, a write, and waiting for a disk are progress. CPU time alone is activity: it may be a long computation
    or an endless loop. With `children`, its descendants count, too, as do their start and their end.
    """

    def __init__(self, pid: int, beat_ns: int, children: bool = False) -> None:
        self._children = children
        self._process: psutil.Process | None = None
        with suppress(psutil.Error):
            self._process = psutil.Process(pid)
        self._seen = self._observe(beat_ns)
        self.active_ns = self.progress_ns = now_ns()

    def _observe(self, beat_ns: int) -> tuple[_PROGRESS, float]:
        """The values that show progress, and the CPU time."""
        family = [] if self._process is None else [self._process]
        if self._children and self._process is not None:
            with suppress(psutil.Error):
                family += self._process.children(recursive=True)
        written, cpu_s = 0, 0.0
        for process in family:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                cpu_s += times.user + times.system
                written += process.io_counters().write_chars
        return (beat_ns, written, frozenset(process.pid for process in family[1:])), cpu_s

    def _waits_for_disk(self) -> bool:
        with suppress(psutil.Error):
            return self._process is not None and self._process.status() == psutil.STATUS_DISK_SLEEP
        return False

    def look(self, beat_ns: int) -> None:
        """Observe the process and compare with the last observation; `beat_ns` is the newest heartbeat."""
        now, seen = now_ns(), self._observe(beat_ns)
        if seen[0] != self._seen[0] or self._waits_for_disk():
            self.progress_ns = self.active_ns = now
        elif seen != self._seen:
            self.active_ns = now
        self._seen = seen
