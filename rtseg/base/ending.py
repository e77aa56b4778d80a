"""How a run ended: one list of its faults, which decides its exit code and its last line."""

from __future__ import annotations

FINE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes


class Ending:
    """The faults of a run, in the order in which they were noticed; an empty list for a run that went well.

    Every part of a run notes its faults here. Its exit code and last line come from this list alone.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.interrupted = False

    def wrong(self, fault: str) -> None:
        """Note a fault, in one line; a line that is listed already is not repeated."""
        line = " ".join(fault.split())
        if line not in self.faults:
            self.faults.append(line)

    def interrupt(self) -> None:
        """Note that the user, or a signal, ended the run early."""
        self.interrupted = True
        self.wrong("interrupted")

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def code(self) -> int:
        """The exit code: 0 without a fault, 130 if an interrupt is the only fault, else 1."""
        if self.ok:
            return FINE
        return INTERRUPTED if self.interrupted and len(self.faults) == 1 else FAILED

    @property
    def line(self) -> str:
        """The first three faults in one line, and how many more there are; "" without a fault."""
        more = f"; and {len(self.faults) - 3} more" if len(self.faults) > 3 else ""
        return "; ".join(self.faults[:3]) + more
