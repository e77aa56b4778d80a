"""A part in a child process, with a time limit: one that crashes, or poisons the CUDA context, takes no other along.

Children are forked: torch is imported once for all, and CUDA is first touched in them, as it has to be.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LAST = 8  # lines of a part's output that are kept where it did not end well
POLL_S = 0.02

Note = Callable[[dict[str, Any]], None]


def run(work: Callable[[Note], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """How a part ended, and what it found: all of it ("done"), or what it had noted until then.

    "partial": it ended in time by leaving something out; "timeout": it was ended; "absent": its subject is not here.
    """
    with tempfile.TemporaryDirectory(prefix="rtseg-bench-") as folder:
        found, output = Path(folder) / "found.json", Path(folder) / "output.txt"
        start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(work, found, output)
        try:
            status = _wait(pid, start + seconds)
        except BaseException:  # Ctrl-C comes to this process alone: the child has a session of its own
            _end(pid)
            raise
        ended = {"status": "timeout"} if status is None else _ended(status)
        result = json.loads(found.read_text("utf-8")) if found.is_file() else None
        report = {**ended, "seconds": round(time.monotonic() - start, 1), "result": result}
        if ended["status"] != "done":
            report["last"] = last_lines(output.read_text("utf-8", "replace")) if output.is_file() else []
        elif result and "absent" in result:
            report["status"] = "absent"
        elif result and "unfinished" in result:
            report |= {"status": "timeout", "last": [result["unfinished"]]}
        elif result and result.get("left"):
            report |= {"status": "partial", "last": [f"left: {', '.join(result['left'])}"]}
        return report


def _child(work: Callable[[Note], dict[str, Any]], found: Path, output: Path) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()  # so that what it starts can be ended with it
        log = os.open(output, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)  # a crash flushes nothing
        faulthandler.enable(sys.stderr, all_threads=False)
        write_json(found, work(lambda report: write_json(found, report)))
        code = 0
    except BaseException:  # whatever it is: the parent goes on, and says what it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, until: float) -> int | None:
    """Its exit status; None where it had to be killed."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _kill_group(pid)
            return status
        if time.monotonic() > until:
            _end(pid)
            return None
        time.sleep(POLL_S)


def _end(pid: int) -> None:
    _kill_group(pid)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)  # where it was not the head of a group yet
        os.waitpid(pid, 0)


def _kill_group(pid: int) -> None:
    """What the child started and did not end."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def last_lines(output: str) -> list[str]:
    """The end of a part's output, and where in Python it was if it crashed."""
    before, fatal, stack = output.partition("Fatal Python error")
    lines = before.splitlines()[-LAST:]
    return [*lines, *(fatal + stack).splitlines()[: LAST + 2]] if fatal else lines


def _ended(status: int) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        return {"status": "crashed", "signal": signal.Signals(os.WTERMSIG(status)).name}
    code = os.WEXITSTATUS(status)
    return {"status": "done"} if code == 0 else {"status": "crashed", "exit": code}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all: who reads meanwhile, or goes on later, finds the last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(document, indent=1, allow_nan=False, default=str) + "\n", "utf-8")
    try:
        part.replace(path)
    except OSError:
        part.unlink()
        raise
