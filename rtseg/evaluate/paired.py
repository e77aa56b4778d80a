"""What two evaluations have in common: the same objects on the same frames, without masks given in one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..base.errors import ConfigError
from .result import ClassRow, Result, Row

Key = tuple[str, int, int]  # sequence, object and frame
Place = tuple[str, int, str]  # sequence, frame and class


def paired(before: Result, after: Result) -> tuple[Result, Result]:
    """Both evaluations, reduced to rows that both have, and to classes of the same objects. It is idempotent.

    A mask given in one of them counts as given in both, and its class on that frame counts in neither. HD95 is kept if
    both have it; otherwise a run with an empty mask on its worst frame would have the better mean (`missed` is the
    share of such frames). Distances of a volume are kept if the same slices were given in both. Raises `ConfigError` if
    they have no frame of an object in common.
    """
    given = _given_in_either(before.rows, after.rows)
    if not given:
        raise ConfigError("the two evaluations have no frame of an object in common; expected two of one data set")
    near = _with_distance(before.rows) & _with_distance(after.rows)
    places = _comparable(before, after)
    alike = _given_by_object(before).items() & _given_by_object(after).items()
    whole = {object_ for object_, _ in alike}
    first, second = (
        replace(
            result,
            volumes=[row for row in result.volumes if (row.sequence, row.object) in whole],
            rows=[
                replace(row, given=given[_key(row)], hd95=row.hd95 if _key(row) in near else None)
                for row in result.rows
                if _key(row) in given
            ],
            classes=[row for row in result.classes if _place(row) in places],
        )
        for result in (before, after)
    )
    return first, second


def _given_by_object(result: Result) -> dict[tuple[str, int], frozenset[tuple[int, bool]]]:
    """The frames of each object, and whether their masks were given."""
    frames: dict[tuple[str, int], set[tuple[int, bool]]] = {}
    for row in result.rows:
        frames.setdefault((row.sequence, row.object), set()).add((row.frame, row.given))
    return {object_: frozenset(its) for object_, its in frames.items()}


def _key(row: Row) -> Key:
    return row.sequence, row.object, row.frame


def _place(row: Row | ClassRow) -> Place:
    return row.sequence, row.frame, row.category


def _given_in_either(rows: Iterable[Row], others: Iterable[Row]) -> dict[Key, bool]:
    """Whether the mask was given in one of two evaluations, for each row that both have."""
    given = {_key(row): row.given for row in rows}
    return {_key(row): row.given or given[_key(row)] for row in others if _key(row) in given}


def _with_distance(rows: Iterable[Row]) -> set[Key]:
    """The keys of rows with HD95: truth and mask both show the object."""
    return {_key(row) for row in rows if row.hd95 is not None}


def _comparable(before: Result, after: Result) -> set[Place]:
    """The places where both evaluations track the same objects of a class, or none, and neither was given a mask."""
    members: tuple[dict[Place, set[int]], ...] = ({}, {})
    given: set[Place] = set()
    for ids, result in zip(members, (before, after), strict=True):
        for row in result.rows:
            ids.setdefault(_place(row), set()).add(row.object)
            if row.given:
                given.add(_place(row))
    first, second = members
    drawn = {_place(row) for row in (*before.classes, *after.classes)}
    return {place for place in drawn if first.get(place) == second.get(place)} - given
