"""The colour of an object, by its id.

The first eight are colours that tissue does not have: no red, orange, brown or warm yellow. They were chosen greedily:
each has the largest CIELAB distance to those before it, for normal, protan, deutan and tritan vision. So the first
four, enough for most scenes, are the most distinct. Sixteen more are for crowded scenes: their distance from each other
and from the eight is at least 25 for normal vision, and 13 for the others. Tests hold the distances.
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

PALETTE: tuple[Rgb, ...] = (
    (0, 230, 255),
    (160, 80, 255),
    (230, 255, 0),
    (80, 160, 0),
    (200, 80, 200),
    (160, 230, 160),
    (160, 200, 0),
    (120, 160, 255),
)
MORE: tuple[Rgb, ...] = (
    (255, 0, 140),
    (20, 100, 100),
    (100, 100, 0),
    (100, 120, 80),
    (80, 80, 200),
    (255, 120, 140),
    (140, 255, 140),
    (120, 20, 255),
    (80, 200, 180),
    (180, 140, 200),
    (200, 200, 80),
    (120, 160, 80),
    (140, 60, 140),
    (180, 0, 100),
    (180, 255, 255),
    (0, 120, 180),
)
COLORS = PALETTE + MORE


def color_of(object_id: int) -> Rgb:
    """RGB of an object; ids count from 1. From the 25th on the colours repeat, and the labels differ."""
    return COLORS[(object_id - 1) % len(COLORS)]
