"""A feed that can be run: its state, and the supervisor that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ..base.standard_streams import open_standard_streams
from ..base.types import now_ns
from .profile import StreamProfile
from .state import FeedState
from .supervisor import Supervisor
from .worker_process import WORKER


class Feed:
    """A stream profile that is played. `on_ready` may be set; see `run_live`. `state` is the state of the feed."""

    def __init__(self, profile: StreamProfile, worker: Sequence[str] = WORKER) -> None:
        """`worker` is the command that starts a worker; tests inject faults with it."""
        self.state = FeedState(profile)
        self.on_ready: Callable[[Feed, str], None] = lambda feed, endpoint: None
        self._supervisor = Supervisor(self.state, worker, lambda: self.on_ready(self, self.state.endpoint))

    def stop(self) -> None:
        """End the feed; from any thread."""
        self.state.stop()

    def snapshot(self) -> dict[str, Any]:
        """Figures for Prometheus; from any thread, while the feed runs."""
        return self._supervisor.snapshot()

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Play the feed until its source ends, `stop` is called, or `seconds` have passed since it began.

        Returns what happened to every frame, and how long each stage took. Raises an `RtsegError` if the feed cannot be
        played.
        """
        open_standard_streams()  # before shared memory is made, which would get these numbers
        state = self.state
        with ExitStack() as stack:
            self._supervisor.open(stack)
            until_ns = float("inf")
            try:
                while not state.stopping and now_ns() < until_ns:
                    self._supervisor.turn()
                    if seconds is not None and state.began_ns and until_ns == float("inf"):
                        until_ns = state.began_ns + seconds * 1e9
            except KeyboardInterrupt:  # the usual end of a live feed
                pass
            finally:
                self._supervisor.close()
            if state.ending.refusal is not None:
                raise state.ending.refusal
            return self._supervisor.report()
