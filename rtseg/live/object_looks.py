"""How the objects of a feed are drawn: what people chose, and else the colours of the profile's presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.colors import Rgb
from ..publish.looks import Looks


@dataclass(frozen=True, slots=True)
class Preset:
    """A class of objects: its label, and the colour of all objects that have this label."""

    label: str
    color: Rgb


@dataclass(frozen=True, slots=True)
class Choice:
    """What people chose for one object. None: no colour was chosen."""

    color: Rgb | None = None
    hidden: bool = False


class ObjectLooks:
    """The choices of people, by object. `choices` may be set."""

    def __init__(self, presets: Sequence[Preset] = ()) -> None:
        self._presets = {preset.label: preset.color for preset in presets}
        self.choices: dict[int, Choice] = {}

    def choose(self, object_id: int, color: Rgb | None, hidden: bool | None) -> None:
        """Change how an object is drawn; None leaves a value as it is."""
        choice = self.choices.get(object_id, Choice())
        self.choices[object_id] = replace(
            choice,
            color=choice.color if color is None else color,
            hidden=choice.hidden if hidden is None else hidden,
        )

    def forget(self, object_id: int) -> None:
        """Draw an object as if nothing had been chosen for it: it is a new one."""
        self.choices.pop(object_id, None)

    def of(self, labels: Mapping[int, str | None]) -> Looks:
        """How objects with these labels are drawn."""
        colors = {i: self._color(i, label) for i, label in labels.items()}
        hidden = frozenset(i for i in labels if self.choices.get(i, Choice()).hidden)
        return Looks({i: color for i, color in colors.items() if color is not None}, hidden)

    def _color(self, object_id: int, label: str | None) -> Rgb | None:
        return self.choices.get(object_id, Choice()).color or self._presets.get(label or "")
