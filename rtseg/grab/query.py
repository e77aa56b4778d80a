"""The numbers in the query of a drawn source's uri: `synthetic:...?width=640&fps=25`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from ..errors import SourceError, did_you_mean

_WHOLE = ("seed", "width", "height")


def read_numbers(
    uri: str,
    given: Mapping[str, str],
    defaults: Mapping[str, str],
    limits: Mapping[str, tuple[int, int]],
    known: Iterable[str],
) -> dict[str, Fraction]:
    """What is given, checked, with the defaults; `SourceError` in one line. `known` are the keys to suggest."""
    settings = {}
    for key, text in {**defaults, **given}.items():
        if key not in defaults:
            raise SourceError(f"{uri}: unknown key {key!r}; {did_you_mean(key, known)}")
        low, high = limits[key]
        whole = key in _WHOLE
        expected = f"a {'whole ' if whole else ''}number from {low} to {high}{'' if whole else ', above 0'}"
        try:
            value = Fraction(text)
        except (ValueError, ZeroDivisionError) as e:
            raise SourceError(f"{uri}: {key}={text!r}; expected {expected}") from e
        if not low <= value <= high or (value.denominator != 1 if whole else value == 0):
            raise SourceError(f"{uri}: {key}={text}; expected {expected}")
        settings[key] = value
    return settings
