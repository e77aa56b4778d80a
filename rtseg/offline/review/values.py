"""Values of JSON files that anyone may have edited: what is not of the expected type counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any


def as_map(value: object) -> dict[str, Any]:
    """A map, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def as_lines(value: object) -> list[str]:
    """The texts of a list."""
    return [each for each in as_list(value) if isinstance(each, str)]


def as_number(value: object) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e18 and isfinite(value) else None


def as_whole(value: object) -> int | None:
    """A whole number from 0, or None."""
    return value if isinstance(value, int) and 0 <= value < 1e18 else None


def total(values: Mapping[str, Any]) -> int:
    """The sum of a map's whole numbers."""
    return sum(as_whole(value) or 0 for value in values.values())


def ended_of(run: Mapping[str, Any]) -> str:
    """Why a run ended early, by its run.json; "" if it did not."""
    return "" if run.get("complete") is True else " ".join(str(run.get("ended") or "the run did not finish").split())
