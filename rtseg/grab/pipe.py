"""Standard input and named pipes, as sources."""

from __future__ import annotations

import stat
from pathlib import Path

STDIN = "-"


def is_pipe(uri: str) -> bool:
    """Whether a uri is standard input, `-`, or a pipe that has a name."""
    if uri == STDIN:
        return True
    try:
        return stat.S_ISFIFO(Path(uri).stat().st_mode)
    except (OSError, ValueError):
        return False
