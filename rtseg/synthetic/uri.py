"""The values in the uri of a drawn source: `synthetic:laparoscopy?width=640&fps=25`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from urllib.parse import parse_qsl

from ..base.errors import SourceError, did_you_mean

_WHOLE = ("seed", "width", "height")


def read_numbers(
    uri: str,
    given: Mapping[str, str],
    defaults: Mapping[str, str],
    limits: Mapping[str, tuple[int, int]],
    known: Iterable[str],
) -> dict[str, Fraction]:
    """The given values, checked, with defaults; `SourceError` in one line.

    `known`: keys to suggest for a misspelt one.
    """
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


HELD_OUT_SEED = 10_000  # scenes from this seed on are for evaluation; training uses lower seeds
SCENES = ("laparoscopy",)
SCENE = {"seconds": "60", "seed": "0", "width": "1280", "height": "720", "fps": "25"}
LIMITS = {"seconds": (0, 10**6), "seed": (0, 2**32), "width": (64, 7680), "height": (64, 7680), "fps": (0, 1000)}


def read_scene(uri: str) -> dict[str, Fraction]:
    """The values in `synthetic:SCENE?key=value&...`, checked, with defaults; `SourceError` if they are invalid."""
    scene, _, query = uri.removeprefix("synthetic:").partition("?")
    if scene not in SCENES:
        raise SourceError(f"{uri}: no synthetic scene {scene!r}; {did_you_mean(scene, SCENES)}")
    return read_numbers(uri, dict(parse_qsl(query, keep_blank_values=True)), SCENE, LIMITS, SCENE)
