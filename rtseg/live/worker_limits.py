"""The time limits of a worker, and its back-off before a restart."""

from __future__ import annotations

# How long a worker may take until its first message. On a slow machine there is then time for the error of another
# worker that cannot start. A worker that prepares may be inactive for as long.
START_S = {"segment": 120.0, "grab": 60.0, "publish": 60.0, "record": 60.0}
# How long it may prepare in all. Compiling an image encoder, and the graphs of many objects, takes ten minutes on a
# slow machine; a worker that takes longer than this, even with heartbeats, is in an endless loop.
PREPARE_S = 3600.0
# How long it may then go without a heartbeat. `segment` gets longer than the workers of the picture, because it runs
# last if there are too few processors.
SILENT_S = {"segment": 4.0, "grab": 2.0, "publish": 2.0, "record": 10.0}
EXIT_S = 0.5  # how long a worker may take to exit after it has closed its link
STOP_S = 2.0  # how long a worker may be inactive after `Stop`
STEPS_OF_SILENCE = 10  # steps of the network that may pass without a heartbeat,
SILENT_MOST_S = 20.0  # but at most the time of two steps plus this
NEW_SIZE_S = 30.0  # without a heartbeat, while it prepares for pictures of a new size
WORKED_S = 1.0  # a worker that worked for this time and then died is restarted at once
LONGEST_BACK_OFF_S = 8.0


def silence_s(role: str, step_ms: float) -> float:
    """How long a worker may go without a heartbeat when its steps take `step_ms`."""
    step_s = step_ms / 1e3
    return max(SILENT_S[role], min(STEPS_OF_SILENCE * step_s, SILENT_MOST_S + 2 * step_s))


def back_off_s(failures: int, chance: float) -> float:
    """Seconds to the next start after failures in a row: 0, then doubling, with jitter by `chance` from 0 to 1."""
    return 0.0 if failures <= 1 else min(LONGEST_BACK_OFF_S, 0.25 * 2 ** (failures - 2)) * (0.75 + 0.5 * chance)
