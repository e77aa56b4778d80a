"""What judging masks needs beside rtseg itself, looked for before the work starts."""

from __future__ import annotations

from importlib import import_module

from ..base.errors import ConfigError

PARTS = ("scipy.spatial", "scipy.special")  # of scipy.stats the import alone takes seconds


def require() -> None:
    """`ConfigError` in one line where scipy is missing: to be called before hours of work, not after."""
    for part in PARTS:
        try:
            import_module(part)
        except ImportError as e:
            raise ConfigError("scipy is not installed, and judges masks: pip install 'rtseg[eval]'") from e
