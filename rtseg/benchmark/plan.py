"""Which engines a benchmark measures, and which of them it compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Recipe, load_recipe
from ..errors import ConfigError

COMPARE = ("policy", "image_size")
OBJECTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine to be measured: a recipe, perhaps with another policy or image size, under a name for people."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Question:
    """Which engines are to be compared, `names[0]` with each of the others, and what differs between them."""

    about: str
    names: tuple[str, ...]


def plan(recipes: Sequence[str | Path], compare: Sequence[str]) -> tuple[list[Entry], list[Question]]:
    """Every engine to be measured, each once, and what is to be compared. Raises `ConfigError`."""
    entries: dict[Recipe, Entry] = {}

    def name_of(name: str, recipe: Recipe) -> str:
        return entries.setdefault(recipe, Entry(name, recipe)).name

    stems = [Path(path).stem for path in recipes]
    given = [
        (stem if stems.count(stem) == 1 else str(path), load_recipe(path))
        for path, stem in zip(recipes, stems, strict=True)
    ]
    own = [name_of(name, recipe) for name, recipe in given]
    questions = [Question("recipe", tuple(dict.fromkeys(own)))]
    for about in compare:
        for name, recipe in given:
            variants = _variants(about, recipe)
            names = tuple(name_of(f"{name} {about}={value}", variant) for value, variant in variants.items())
            questions.append(Question(f"{about} of {name}: {' / '.join(variants)}", names))
    return list(entries.values()), [q for q in questions if len(q.names) > 1]


def _variants(about: str, recipe: Recipe) -> dict[str, Recipe]:
    """A recipe with one thing changed, the baseline first; all else is equal, so that the gain is that thing's own."""
    if about == "policy":
        return {policy: load_recipe(recipe, policy=policy) for policy in ("fifo", "efp-window", "efp")}
    half = recipe.image_size // 64 * 32  # as near as an image size may be
    if half < 64:
        size = f"{recipe.path or 'the recipe'} has {recipe.image_size} px"
        raise ConfigError(f"--compare image_size: {size}, and half of that is below 64; leave it out")
    sizes = (recipe.image_size, half)
    return {str(size): load_recipe(recipe, image_size=size) for size in sizes}


def choose_objects(wanted: Sequence[int] | None, entries: Sequence[Entry]) -> tuple[int, ...]:
    """The numbers of objects to measure with, least first; `ConfigError` where a recipe does not allow so many."""
    least = min(entries, key=lambda entry: entry.recipe.max_objects)
    limit = least.recipe.max_objects
    if wanted is None:
        return tuple(n for n in OBJECTS if n <= limit)
    if max(wanted) > limit:
        where = least.recipe.path or least.name
        raise ConfigError(f"--objects {max(wanted)}: {where} says max_objects = {limit}; ask for fewer, or raise it")
    return tuple(sorted(set(wanted)))
