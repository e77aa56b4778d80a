"""A worker of a feed, as the supervisor starts it."""

from __future__ import annotations

import atexit
import gc
import sys

from .workers.lifecycle import connect, run


def main(argument: str) -> None:
    """Run the worker that the argument describes; see `workers/lifecycle.py`."""
    atexit.register(gc.freeze)  # as in cli.py: a process with torch takes 0.35 s less to end
    run(connect(argument))


if __name__ == "__main__":
    main(sys.argv[1])
