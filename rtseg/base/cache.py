"""The folder in which rtseg keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The user's cache folder: $RTSEG_CACHE, else $XDG_CACHE_HOME/rtseg, else ~/.cache/rtseg. It may not exist yet."""
    if given := os.environ.get("RTSEG_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtseg"
