"""The libraries that an evaluation needs beside rtseg's own, checked before the work starts."""

from __future__ import annotations

from importlib import import_module

from ..base.errors import ConfigError

PARTS = ("scipy.spatial", "scipy.special")  # not scipy.stats, whose import alone takes seconds


def require() -> None:
    """Raise `ConfigError` if scipy is missing. Call this before hours of work, not after."""
    for part in PARTS:
        try:
            import_module(part)
        except ImportError as e:
            raise ConfigError("scipy is not installed, and judges masks: pip install 'rtseg[eval]'") from e
