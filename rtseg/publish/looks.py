"""How objects are drawn: the colours that people chose, and the objects that they hid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base.colors import Rgb, color_of


@dataclass(frozen=True, slots=True)
class Looks:
    """Of the objects with these ids: `colors`, where one was chosen, and those that are `hidden`."""

    colors: Mapping[int, Rgb] = field(default_factory=dict)
    hidden: frozenset[int] = frozenset()

    def color(self, object_id: int) -> Rgb:
        """The object's colour: the chosen one, or that of its id."""
        return self.colors.get(object_id) or color_of(object_id)


PLAIN = Looks()  # every object in the colour of its id
