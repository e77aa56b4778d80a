"""One process of a feed, as its supervisor sees it: started, watched, ended, and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..base.errors import RtsegError
from ..base.hardware.cpu import cores
from ..base.types import now_ns
from .link import Link, Said
from .plan import environment
from .seat import Fds
from .vitals import Vitals

# What a process may be silent until its first message: where everything is slow, why one of the others cannot begin is
# worth waiting for. One that has said that it prepares may do nothing at all for so long.
BEGIN_S = {"segment": 120.0, "grab": 60.0, "publish": 60.0, "record": 60.0}
# What it may prepare for however much it does meanwhile: an image encoder that is compiled, and the graphs of many
# objects, take ten minutes on a slow machine; what goes on for longer, and be it with beats, turns in a circle.
PREPARES_S = 3600.0
# What it may be without a sign of life after that; the network's comes last where the processors are short.
SILENT_S = {"segment": 4.0, "grab": 2.0, "publish": 2.0, "record": 10.0}
EXIT_S = 0.5  # what a process may take to exit once it has let go of its link
STOP_S = 2.0  # what a process that was told to end may be without any sign of life
STEPS_OF_SILENCE = 10  # a network may be silent for so many of its steps,
SILENT_MOST_S = 20.0  # but not for longer than this beyond two of them
SIZING_S = 30.0  # while it prepares for pictures of a new size
LIVED_S = 1.0  # who worked for so long and then died is started again at once
TRIES = 3
_LONGEST_S = 8.0
_LOOK_S = 0.01
_LOOK_NS = 500_000_000  # at one that prepares
WORKER = (sys.executable, "-m", "rtseg.live")


def silence_s(role: str, step_ms: float) -> float:
    """How long a process may be silent whose steps take so long."""
    step_s = step_ms / 1e3
    return max(SILENT_S[role], min(STEPS_OF_SILENCE * step_s, SILENT_MOST_S + 2 * step_s))


def back_off_s(failures: int, chance: float) -> float:
    """Seconds to the next start after so many failures in a row: none, then doubling, with jitter by `chance` 0..1."""
    return 0.0 if failures <= 1 else min(_LONGEST_S, 0.25 * 2 ** (failures - 2)) * (0.75 + 0.5 * chance)


def _signal(number: int) -> str:
    """Its name; most real-time ones have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


class Child:
    """The process of one role. It is `up` once it has said that it works; `refused` is why it never will.

    `once`: a refusal is final, also after it has worked: a recording that is broken, a disk that is full.
    `finished` once it has said that all of its is in order; `last` is how the one before ended.
    """

    def __init__(self, role: str, fds: Fds, worker: Sequence[str] = WORKER, once: bool = False) -> None:
        self.role, self._fds, self._worker, self.once = role, fds, tuple(worker), once
        self.up, self.finished, self.last_fault, self.last = False, False, "", ""
        self.refused: RtsegError | None = None
        self.starts = 0
        self.silent_s = SILENT_S[role]
        self.preparing = ""  # what it does before it can work, as it said
        self._part_s, self._prepares_ns, self._look_ns = 0.0, 0, 0
        self._vitals: Vitals | None = None
        self._failures = 0
        self._worked, self._why_killed = False, ""
        self.error: RtsegError | None = None  # why it refused
        self._due_ns: float = float("inf")  # when to start it
        self._since_ns = self._closed_ns = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.link: Link | None = None

    @property
    def pid(self) -> int | None:
        process = self._process  # others ask, too
        return process.pid if process else None

    @property
    def hopeless(self) -> bool:
        """Whether it has never worked, although it was started several times."""
        return not self._worked and self.failing

    @property
    def failing(self) -> bool:
        """Whether it was started several times, and did not work for long since."""
        return self._failures >= TRIES

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def begin(self) -> None:
        """Have it started by the next `tick`."""
        self._due_ns = 0.0

    def rest(self) -> None:
        """Do not start it again."""
        self._due_ns = float("inf")

    def tick(self, config: Callable[[], dict[str, Any]]) -> str | None:
        """Start it if that is due: what came of it; None if it is not."""
        if self._process is not None or self.refused or now_ns() < self._due_ns:
            return None
        self.starts += 1
        self.up, self.finished, self._since_ns, self._closed_ns = False, False, now_ns(), 0
        self._why_killed, self.error, self.preparing = "", None, ""
        ours, theirs = Link.pair()
        seat = {"role": self.role, "supervisor": os.getpid(), "link": theirs.fileno(), "fds": asdict(self._fds)}
        try:
            # Not our process group: Ctrl-C is for the supervisor, which ends its processes in order.
            self._process = subprocess.Popen(
                [*self._worker, json.dumps(seat)], pass_fds=(theirs.fileno(), *self._fds.all()),
                stdin=subprocess.DEVNULL, process_group=0, env={**os.environ, **environment(self.role, cores())},
            )  # fmt: skip
        except OSError as e:  # no memory, no number for it: it is tried again
            ours.close()
            self._again()
            self.last = f"cannot be started ({e.strerror or e})"
            return f"{self.last}; it is tried again"
        finally:
            theirs.close()
        self.link = Link(ours)
        self.link.send("config", **config())
        return f"process {self._process.pid}"

    def worked(self) -> None:
        """It has said that it works."""
        self._worked = True
        self.up = True
        self.prepared()

    def prepares(self, what: str, part_s: float, beat_ns: int) -> None:
        """It has said that it begins to prepare, and that a part of that may take so long."""
        if not self.preparing:
            self._prepares_ns = now_ns()
        self.preparing, self._part_s, self._look_ns = what, part_s, now_ns()
        self._vitals = None if self._process is None else Vitals(self._process.pid, beat_ns, family=True)

    def prepared(self) -> None:
        """It is ready."""
        self.preparing, self._vitals, self._since_ns = "", None, now_ns()

    def say(self, say: str, fds: tuple[int, ...] = (), **facts: Any) -> bool:
        return self.link is not None and self.link.send(say, fds, **facts)

    def heard(self) -> list[Said]:
        return self.link.receive() if self.link is not None else []

    def hangs(self, beat_ns: int) -> str | None:
        """That there was no sign of life for too long, in words; None if there was, or it is being ended for that."""
        if self._process is None or self._why_killed:
            return None
        if self._vitals is not None:
            return self._stands_still(self._vitals, beat_ns)
        limit_s = self.silent_s if self.up else BEGIN_S[self.role]
        if now_ns() - max(beat_ns, self._since_ns) <= limit_s * 1e9:
            return None
        return f"no sign of life for {limit_s:g} s" if self.up else f"not ready within {limit_s:g} s"

    def _stands_still(self, vitals: Vitals, beat_ns: int) -> str | None:
        """That it prepares, and does not get on, in words: it is idle, or busy with nothing that shows."""
        now = now_ns()
        if now >= self._look_ns:
            self._look_ns = now + _LOOK_NS
            vitals.look(beat_ns)
        for since_ns, most_s, how in (
            (vitals.stirred_ns, BEGIN_S[self.role], "did nothing for"),
            (vitals.worked_ns, self._part_s, "did not get on for"),
            (self._prepares_ns, PREPARES_S, "not ready within"),
        ):
            if now - since_ns > most_s * 1e9:
                return f"{how} {most_s:g} s while {self.preparing}"
        return None

    def see_out(self) -> None:
        """Kill it if it has finished, or let go of its link, and yet does not exit: it is no use any more."""
        if self._process is not None and self.link is not None and (self.link.closed or self.finished):
            self._closed_ns = self._closed_ns or now_ns()
            if now_ns() - self._closed_ns > EXIT_S * 1e9:
                self._process.kill()

    def reap(self) -> str:
        """Of a process that has `ended`, all that it said being heard: how. It is started again after its back-off."""
        assert self._process is not None
        code = int(self._process.returncode)
        if self.up and now_ns() - self._since_ns > LIVED_S * 1e9:
            self._failures = 0
        self._again()
        if self.error is not None and (self.once or not self._worked):  # however long it then took to exit
            self.refused = self.error
        self.last = self._how(code)
        self.last_fault = ""
        self._forget()
        return self.last

    def _how(self, code: int) -> str:
        """How it ended: why it says that it did, if it does."""
        if self.error is not None:
            return str(self.error)
        how = f"signal {_signal(-code)}" if code < 0 else f"exit code {code}"
        how = f"{self._why_killed}; it was killed" if self._why_killed else how
        return f"{how}: {self.last_fault}" if self.last_fault else how

    @property
    def ended(self) -> bool:
        """Whether it has exited; what it said last can still be `heard`."""
        return self._process is not None and self._process.poll() is not None

    def _again(self) -> None:
        """It failed: start it again after its back-off, if it is to be started at all."""
        self._failures += 1
        if self._due_ns != float("inf"):
            self._due_ns = now_ns() + back_off_s(self._failures, random.random()) * 1e9

    def kill(self, why: str) -> None:
        """End it at once; `reap` tells."""
        if self._process is not None:
            self._process.kill()  # SIGKILL also ends one that is stopped
            self._why_killed = why

    def stop(self, beat: Callable[[], int], listen: Callable[[], None]) -> str:
        """Ask it to end, and see to it that it does: how it ended badly, "" if it did not.

        It has the time that it needs for as long as it gets on. `beat`: when it last went round its loop; `listen`:
        hears what it says meanwhile.
        """
        self.rest()
        if self._process is None:
            return self.last if self._failures else "it was not there at the end"
        loading = (not self.up or bool(self.preparing)) and self.role != "record"
        if loading:  # it has nothing to put in order; what was shown waits to be recorded
            self._process.kill()
        self.say("stop")
        vitals, start_ns, why = Vitals(self._process.pid, beat()), now_ns(), ""
        while self._process.poll() is None and not why:
            time.sleep(_LOOK_S)
            listen()
            vitals.look(beat())
            why = "" if self.finished else self._stuck(vitals, beat(), start_ns)
            self.see_out()
        if why:
            self.kill(why)
        with suppress(subprocess.TimeoutExpired):  # of one that waits for a disk, not even SIGKILL is the end
            self._process.wait(STOP_S)
        listen()
        how = self._ended_badly(loading, why)
        self._forget()
        return how

    def _stuck(self, vitals: Vitals, beat_ns: int, start_ns: int) -> str:
        """That it does not end, in words; "" while it may."""
        now, silent_s = now_ns(), self.silent_s
        idle = now - vitals.stirred_ns > STOP_S * 1e9
        circling = now - max(vitals.worked_ns, beat_ns, start_ns) > max(silent_s, STOP_S) * 1e9
        return f"did not end within {(now - start_ns) / 1e9:.1f} s" if idle or circling else ""

    def _ended_badly(self, loading: bool, why: str) -> str:
        assert self._process is not None
        code = self._process.returncode
        if loading:
            return f"{self.last}, and it was not back" if self._failures else "it was not ready at the end"
        if self.error is None and not why and self.finished:
            return ""
        return self._how(-int(signal.SIGKILL) if code is None else code)

    def leave(self) -> str:
        """Let go of it, killed if it still runs, and of its link: how it ended, "" if it had already."""
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
