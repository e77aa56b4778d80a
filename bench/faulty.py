"""A feed with a network that fails on command: `python -m bench.faulty STREAM.toml STARTER`.

It runs what `rtseg live --json` runs, prints the same report, and ends with the process STARTER. A SIGUSR1 to its
`segment` worker makes the next step of the network raise.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

WORKER = (sys.executable, "-m", "bench.faulty")


def play(profile: str, starter: int) -> None:
    from rtseg.base.verb import log_to_stderr
    from rtseg.cli import stop_on_signals
    from rtseg.live import run_live
    from rtseg.live.profile import load_stream
    from rtseg.live.workers.lifecycle import end_with_parent

    end_with_parent(starter, signal.SIGTERM)  # the feed must not outlive a killed bench or a failed test
    stop_on_signals()
    log_to_stderr()
    report = run_live(load_stream(profile), worker=WORKER)
    print(json.dumps(report), flush=True)


def work(argument: str) -> None:
    from rtseg.live.__main__ import main

    if json.loads(argument)["role"] == "segment":
        arm()
    main(argument)


def arm() -> None:
    from rtseg.track import Tracker

    real, armed = Tracker.step, [False]

    def fail(*_: object) -> None:
        armed[0] = True

    def step(self: Any, frame: Any) -> Any:
        if armed[0]:
            raise RuntimeError("injected: CUDA error: an illegal memory access was encountered")
        return real(self, frame)

    signal.signal(signal.SIGUSR1, fail)
    Tracker.step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    work(sys.argv[1]) if sys.argv[1].startswith("{") else play(sys.argv[1], int(sys.argv[2]))
