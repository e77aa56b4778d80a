"""The process of one worker, as its supervisor sees it: started, watched, stopped, and restarted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..base.errors import RtsegError
from ..base.hardware.cpu import cores
from ..base.types import now_ns
from .activity import ActivityMonitor
from .core_allocation import environment
from .ipc.link import Link, Received
from .ipc.messages import Config, Message, Stop
from .ipc.shared_memory import Descriptors
from .worker_limits import EXIT_S, PREPARE_S, SILENT_S, START_S, STOP_S, WORKED_S, back_off_s
from .workers.lifecycle import command_line_argument

TRIES = 3  # failures in a row that make it `failing`
_POLL_S = 0.01
_LOOK_NS = 500_000_000  # between two looks at a worker that prepares
WORKER = (sys.executable, "-m", "rtseg.live")


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


class WorkerProcess:
    """The process of one role.

    `up`: it works. `error`: why it refused to work. `refused`: the error that makes a restart pointless.
    `refusal_is_final`: a refusal is also final after it has worked, such as that of a recorder on a full disk.
    `finished`: it has closed all its files and connections. `preparing`: what it does before it can work, or "".
    `last_end`: how the previous process ended.
    """

    def __init__(
        self, role: str, fds: Descriptors, command: Sequence[str] = WORKER, refusal_is_final: bool = False
    ) -> None:
        """`command` starts a process; the argument of `workers/lifecycle.py` is added to it."""
        self.role, self._fds, self._command = role, fds, tuple(command)
        self.refusal_is_final = refusal_is_final
        self.up, self.finished, self.last_fault, self.last_end = False, False, "", ""
        self.refused: RtsegError | None = None
        self.error: RtsegError | None = None
        self.starts = 0
        self.silent_s = SILENT_S[role]
        self.preparing = ""
        self._part_s, self._prepares_ns, self._look_ns = 0.0, 0, 0
        self._monitor: ActivityMonitor | None = None
        self._failures = 0
        self._worked, self._why_killed = False, ""
        self._due_ns: float = float("inf")  # when to start it
        self._since_ns = self._closed_ns = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.link: Link | None = None

    @property
    def pid(self) -> int | None:
        process = self._process  # another thread may set it to None
        return process.pid if process else None

    @property
    def failing(self) -> bool:
        """Whether it failed several times in a row."""
        return self._failures >= TRIES

    @property
    def never_worked(self) -> bool:
        """Whether it failed several times, and has never worked."""
        return not self._worked and self.failing

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    # Its start and its messages.

    def start_soon(self) -> None:
        """Have it started by the next `start_if_due`."""
        self._due_ns = 0.0

    def do_not_restart(self) -> None:
        self._due_ns = float("inf")

    def start_if_due(self, config: Callable[[], Config]) -> str | None:
        """Start it if that is due. Returns the outcome in words, or None if no start is due."""
        if self._process is not None or self.refused or now_ns() < self._due_ns:
            return None
        self.starts += 1
        self.up, self.finished, self._since_ns, self._closed_ns = False, False, now_ns(), 0
        self._why_killed, self.error, self.preparing = "", None, ""
        ours, theirs = Link.pair()
        argument = command_line_argument(self.role, theirs.fileno(), self._fds)
        try:
            # Not in our process group: Ctrl-C is for the supervisor, which ends its workers in order.
            self._process = subprocess.Popen(
                [*self._command, argument], pass_fds=(theirs.fileno(), *self._fds.all()),
                stdin=subprocess.DEVNULL, process_group=0, env={**os.environ, **environment(self.role, cores())},
            )  # fmt: skip
        except OSError as e:  # out of memory or of process numbers: try again later
            ours.close()
            self._schedule_restart()
            self.last_end = f"cannot be started ({e.strerror or e})"
            return f"{self.last_end}; it is tried again"
        finally:
            theirs.close()
        self.link = Link(ours)
        self.link.send(config())
        return f"process {self._process.pid}"

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """Send a message. Returns whether that worked: the process may be gone, or slow to read."""
        return self.link is not None and self.link.send(message, fds)

    def receive(self) -> list[Received]:
        """The messages that it has sent."""
        return self.link.receive() if self.link is not None else []

    def is_up(self) -> None:
        """Note that it works now."""
        self._worked = True
        self.up = True
        self.is_prepared()

    def prepares(self, what: str, part_s: float, beat_ns: int) -> None:
        """Note that it begins to prepare, and that one part of the preparation may take `part_s` seconds."""
        if not self.preparing:
            self._prepares_ns = now_ns()
        self.preparing, self._part_s, self._look_ns = what, part_s, now_ns()
        self._monitor = None if self._process is None else ActivityMonitor(self._process.pid, beat_ns, children=True)

    def is_prepared(self) -> None:
        """Note that it is ready."""
        self.preparing, self._monitor, self._since_ns = "", None, now_ns()

    # Its health.

    def why_hung(self, beat_ns: int) -> str | None:
        """Why it counts as hung, in words, or None. `beat_ns` is its last heartbeat."""
        if self._process is None or self._why_killed:
            return None
        if self._monitor is not None:
            return self._why_stuck_preparing(self._monitor, beat_ns)
        limit_s = self.silent_s if self.up else START_S[self.role]
        if now_ns() - max(beat_ns, self._since_ns) <= limit_s * 1e9:
            return None
        return f"no heartbeat for {limit_s:g} s" if self.up else f"not ready within {limit_s:g} s"

    def _why_stuck_preparing(self, monitor: ActivityMonitor, beat_ns: int) -> str | None:
        now = now_ns()
        if now >= self._look_ns:
            self._look_ns = now + _LOOK_NS
            monitor.look(beat_ns)
        for since_ns, most_s, how in (
            (monitor.active_ns, START_S[self.role], "did nothing for"),
            (monitor.progress_ns, self._part_s, "made no progress for"),
            (self._prepares_ns, PREPARE_S, "not ready within"),
        ):
            if now - since_ns > most_s * 1e9:
                return f"{how} {most_s:g} s while {self.preparing}"
        return None

    @property
    def ended(self) -> bool:
        """Whether the process has exited; its last messages can still be received."""
        return self._process is not None and self._process.poll() is not None

    def reap(self) -> str:
        """Note the end of a process that has `ended` and whose last messages were received; returns how it ended.

        The worker is restarted after its back-off.
        """
        assert self._process is not None
        code = int(self._process.returncode)
        if self.up and now_ns() - self._since_ns > WORKED_S * 1e9:
            self._failures = 0
        self._schedule_restart()
        if self.error is not None and (self.refusal_is_final or not self._worked):  # however long it took to exit
            self.refused = self.error
        self.last_end = self._how(code)
        self.last_fault = ""
        self._forget()
        return self.last_end

    def _how(self, code: int) -> str:
        """How it ended: with its own reason, if it gave one."""
        if self.error is not None:
            return str(self.error)
        how = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        how = f"{self._why_killed}; it was killed" if self._why_killed else how
        return f"{how}: {self.last_fault}" if self.last_fault else how

    def _schedule_restart(self) -> None:
        """Count a failure, and schedule a restart after the back-off, if restarts are allowed."""
        self._failures += 1
        if self._due_ns != float("inf"):
            self._due_ns = now_ns() + back_off_s(self._failures, random.random()) * 1e9

    # Its end.

    def kill(self, why: str) -> None:
        """End it at once; `reap` then returns how it ended."""
        if self._process is not None:
            self._process.kill()  # SIGKILL also ends a stopped process
            self._why_killed = why

    def kill_if_it_does_not_exit(self) -> None:
        """Kill it if it has finished or closed its link, and still does not exit."""
        if self._process is not None and self.link is not None and (self.link.closed or self.finished):
            self._closed_ns = self._closed_ns or now_ns()
            if now_ns() - self._closed_ns > EXIT_S * 1e9:
                self._process.kill()

    def stop(self, beat: Callable[[], int], receive: Callable[[], None]) -> str:
        """Ask it to end, and make sure that it does. Returns what went wrong, or "".

        It has as much time as it needs while it makes progress. `beat` is its last heartbeat; `receive` takes its
        messages meanwhile.
        """
        self.do_not_restart()
        if self._process is None:
            return self.last_end if self._failures else "it was not running when the feed ended"
        loading = (not self.up or bool(self.preparing)) and self.role != "record"
        if loading:  # it has no open files yet; a recorder, however, may still have frames to write
            self._process.kill()
        self.send(Stop())
        monitor, start_ns, why = ActivityMonitor(self._process.pid, beat()), now_ns(), ""
        while self._process.poll() is None and not why:
            time.sleep(_POLL_S)
            receive()
            monitor.look(beat())
            why = "" if self.finished else self._why_stuck(monitor, beat(), start_ns)
            self.kill_if_it_does_not_exit()
        if why:
            self.kill(why)
        with suppress(subprocess.TimeoutExpired):  # a process that waits for a disk survives even SIGKILL
            self._process.wait(STOP_S)
        receive()
        how = self._ended_badly(loading, why)
        self._forget()
        return how

    def _why_stuck(self, monitor: ActivityMonitor, beat_ns: int, start_ns: int) -> str:
        """Why it counts as stuck at its end, in words; "" while it still has time."""
        now, silent_s = now_ns(), self.silent_s
        inactive = now - monitor.active_ns > STOP_S * 1e9
        looping = now - max(monitor.progress_ns, beat_ns, start_ns) > max(silent_s, STOP_S) * 1e9
        return f"did not end within {(now - start_ns) / 1e9:.1f} s" if inactive or looping else ""

    def _ended_badly(self, loading: bool, why: str) -> str:
        assert self._process is not None
        code = self._process.returncode
        if loading:
            return (
                f"{self.last_end}, and it had not restarted when the feed ended"
                if self._failures
                else "it was not ready when the feed ended"
            )
        if self.error is None and not why and self.finished:
            return ""
        return self._how(-int(signal.SIGKILL) if code is None else code)

    def abandon(self) -> str:
        """Kill it if it still runs, and close its link. Returns how it ended, or "" if it had ended before."""
        if self._process is None:
            return ""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        code = self._process.returncode
        self._forget()
        return self._how(-int(signal.SIGKILL) if code is None else code)

    def _forget(self) -> None:
        self._process, self.up = None, False
        if self.link is not None:
            self.link.close()
            self.link = None
