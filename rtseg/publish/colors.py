"""The colour of an object, by its id.

Eight colours that no tissue has (no red, orange, brown or warm yellow), chosen greedily so that each is, in CIELAB,
as far as can be from those before it, as seen by normal, protan, deutan and tritan eyes: the first four, which is
what a scene usually holds, are the most distinct. The tests hold the distances.
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


def color_of(object_id: int) -> Rgb:
    """RGB of an object; ids from 1, and from the ninth on the colours repeat (the label tells them apart)."""
    return PALETTE[(object_id - 1) % len(PALETTE)]
