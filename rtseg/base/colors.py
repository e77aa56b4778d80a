"""The colour of an object, by its id.

Eight colours that no tissue has (no red, orange, brown or warm yellow), chosen greedily so that each is, in CIELAB,
as far as can be from those before it, as seen by normal, protan, deutan and tritan eyes: the first four, which is
what a scene usually holds, are the most distinct. Sixteen more follow, for crowded scenes: at least 25 from each other
and from the eight to normal eyes, and 13 to the others. The tests hold the distances.
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
    """RGB of an object; ids from 1, and from the 25th on the colours repeat (the label tells them apart)."""
    return COLORS[(object_id - 1) % len(COLORS)]
