"""How a run ended: one list of what went wrong, from which its exit code and its last line follow."""

from __future__ import annotations

FINE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes


class Ending:
    """What went wrong in a run, in the order in which it came to light; nothing, if it went well.

    Whoever notices something says so here, once, and nobody works out an exit code or a last line from anything else.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.interrupted = False

    def wrong(self, fault: str) -> None:
        """Note a fault, in one line; the same one twice counts once."""
        line = " ".join(fault.split())
        if line not in self.faults:
            self.faults.append(line)

    def interrupt(self) -> None:
        """Somebody asked for an early end."""
        self.interrupted = True
        self.wrong("interrupted")

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def code(self) -> int:
        """0 for a run without a fault; 130 for one that was stopped and has no other; else 1."""
        if self.ok:
            return FINE
        return INTERRUPTED if self.interrupted and len(self.faults) == 1 else FAILED

    @property
    def line(self) -> str:
        """The faults in one line, "" if there are none; of many the first three, and how many more there are."""
        more = f"; and {len(self.faults) - 3} more" if len(self.faults) > 3 else ""
        return "; ".join(self.faults[:3]) + more
