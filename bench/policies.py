"""What a memory policy is worth: every one over the same videos, taking turns, with paired intervals against the first.

    python -m bench.policies DATA... --ablate --json out/policies.json

One row a policy: J and F, what is drawn while the object is away and how often it is found again when it is back, the
time of a step, and how many masks are the first policy's to the pixel. `--ablate` adds a table in which one thing of
the recipe changes: its image size, how many memories and pointers it keeps, its precision. What has to be built before
it runs is named by its recipe, with `--beside`. Data sets are those that `rtseg evaluate` reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console

import rtseg
from rtseg.base.errors import EngineError, RtsegError, SourceError
from rtseg.data import open_dataset
from rtseg.data.dataset import Dataset
from rtseg.engine.recipe import PRECISIONS, Recipe, load_recipe
from rtseg.evaluate import bootstrap
from rtseg.evaluate.bootstrap import Figure, Values
from rtseg.evaluate.prompting import PROMPTS
from rtseg.evaluate.protocols import PROTOCOLS, survey
from rtseg.evaluate.result import Result
from rtseg.evaluate.run import evaluate, schedule
from rtseg.evaluate.settings import EvaluationSettings
from rtseg.evaluate.sheets import NAMES, Sheet, interval, number
from rtseg.evaluate.summary import by_group, difference, summarise
from rtseg.track import POLICIES

ENGINE = Path(__file__).parents[1] / "engines" / "nano-cpu.toml"
FIGURES = ("iou", "boundary", "false_area", "reacquired", "ms")
SPATIAL, POINTERS = (2, 3, 7), (0, 4)  # beside the recipe's
SIDES = (0.7, 0.8, 1.2)  # of the recipe's image size

Engines = Mapping[str, tuple[rtseg.Engine, str]]  # by the name of a row: what runs, and under which policy
Table = dict[str, dict[str, tuple[float, Figure | None]]]  # by row and figure: its value, and what changed


def ablations(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe as it is, and with one thing changed: a smaller image size, fewer memories, and so on."""
    plan, size = recipe.memory, recipe.image_size
    made = {f"{plan.policy}, {size} px, {plan.spatial} memories, {plan.pointers} pointers, {recipe.precision}": recipe}
    sizes = sorted({max(64, round(side * size / 32) * 32) for side in SIDES} - {size})
    made |= {f"{s} px": load_recipe(recipe, image_size=s) for s in sizes}
    for key, values in (("spatial", SPATIAL), ("pointers", POINTERS)):
        for value in sorted({*values} - {getattr(plan, key)}):
            unit = "memories" if key == "spatial" else key
            made[f"{value} {unit}"] = load_recipe(recipe, memory={**asdict(plan), key: value})
    others = [p for p in PRECISIONS if p not in ("auto", recipe.precision)]
    return made | {p: load_recipe(recipe, precision=p) for p in others}


def opened(recipes: Mapping[str, Recipe]) -> tuple[dict[str, tuple[rtseg.Engine, str]], dict[str, str]]:
    """The engines that can be had here, and why the others cannot; the first has to be there."""
    engines: dict[str, tuple[rtseg.Engine, str]] = {}
    absent: dict[str, str] = {}
    ready: dict[Recipe, rtseg.Engine] = {}
    for name, recipe in recipes.items():
        # On a CPU an engine is the same under every policy; elsewhere its shapes are made for one.
        shared = recipe.runtime in ("torch", "cpu")
        key = replace(recipe, memory=replace(recipe.memory, policy="efp")) if shared else recipe
        try:
            ready[key] = ready.get(key) or rtseg.open_engine(key)
            engines[name] = ready[key], recipe.memory.policy
        except EngineError as e:
            if not engines:
                raise
            absent[name] = str(e)
    return engines, absent


def taking_turns(dataset: Dataset, engines: Engines, settings: EvaluationSettings) -> dict[str, Result]:
    """A result for each row. On each sequence another one begins, so that a machine that slows down is fair to all."""
    results: dict[str, Result] = {}
    names, turn = list(engines), 0
    for sequence in dataset.sequences:
        if not schedule(survey(sequence), settings):
            continue  # it shows nothing that could be prompted
        for name in names[turn:] + names[:turn]:
            print(f"{dataset.name}: {sequence.name}, {name}", file=sys.stderr, flush=True)
            engine, policy = engines[name]
            one = evaluate(replace(dataset, sequences=(sequence,)), engine, replace(settings, policy=policy))
            merged = results.setdefault(name, Result(one.settings, one.made_by))
            merged.rows += one.rows
            merged.classes += one.classes
            merged.volumes += one.volumes
            merged.tracked |= one.tracked
        turn = (turn + 1) % len(names)
    if not results:
        raise SourceError(f"{dataset.name}: no sequence shows a target where it could be prompted; expected one")
    return {name: results[name] for name in names}


def compared(results: Mapping[str, Result]) -> Table:
    """Of each row its figures, each with its difference from the first row's; None for that row itself."""
    first, *_ = results
    table: Table = {}
    for name, result in results.items():
        own = {key: figure.value for key, figure in summarise(result).overall.items()}
        own["ms"] = fmean(value for values in step_ms(result).values() for value in values)
        changes: dict[str, Figure] = {}
        if name != first:
            changes = difference(results[first], result)
            slower = bootstrap.difference([step_ms(results[first])], [step_ms(result)])
            changes |= {"ms": slower} if slower else {}
        table[name] = {key: (own[key], changes.get(key)) for key in FIGURES if key in own}
        table[name]["same"] = same_masks(results[first], result), None
    return table


def same_masks(result: Result, other: Result) -> float:
    """The share of masks that are the same to the pixel: where it is 1, a policy never had an occasion to act."""
    return fmean(
        mask.counts == other.tracked[name].masks[t][i].counts
        for name, tracked in result.tracked.items()
        for t, masks in tracked.masks.items()
        for i, mask in masks.items()
    )


def step_ms(result: Result) -> Values:
    """The median time of a step, of each sequence, by group."""
    return by_group(
        [(name, median(tracked.ms)) for name, tracked in result.tracked.items() if tracked.ms], result.group
    )


def sheet(title: str, table: Table, absent: Mapping[str, str]) -> Sheet:
    """One line a row: each figure, and under `change` how much larger it is than the first's, with the interval."""
    shown = [key for key in FIGURES if any(key in row for row in table.values())]
    rows = []
    for name, row in table.items():
        cells = [name]
        for key in shown:
            value, change = row.get(key, (None, None))
            between = interval(key, change, "+") if change else ""
            cells += [number(key, value), f"{number(key, change.value, '+')} [{between or '-'}]" if change else ""]
        rows.append((*cells, f"{100 * row['same'][0]:.0f} %"))
    columns = ("", *(column for key in shown for column in (NAMES[key], "change")), "same masks")
    scopes = {change.scope for row in table.values() for _, change in row.values() if change and change.scope}
    notes = [f"intervals {' or '.join(sorted(scopes))}"] if scopes else []
    note = "\n".join([*notes, *(f"not here: {name}: {why}" for name, why in absent.items())])
    return Sheet(title, "l" + "rr" * len(shown) + "r", columns, tuple(rows), note)


def measure(given: argparse.Namespace) -> Iterator[tuple[Sheet, dict[str, Any]]]:
    """The tables, and what they hold, of every data set."""
    recipe = load_recipe(given.engine)
    groups = {"policies": {policy: load_recipe(recipe, policy=policy) for policy in given.policy}}
    if given.ablate:
        groups["ablation"] = ablations(recipe) | {path.stem: load_recipe(path) for path in given.beside}
    settings = EvaluationSettings(protocol=given.protocol, prompt=given.prompt)
    for group, recipes in groups.items():
        engines, absent = opened(recipes)
        for path in given.data:
            dataset = cut(open_dataset(path), given.frames)
            results = taking_turns(dataset, engines, settings)
            table = compared(results)
            title = f"{group}: {dataset.name}, {len(next(iter(results.values())).tracked)} sequences"
            values = {
                "group": group,
                "data": dataset.name,
                "rows": {n: {k: [v, d and asdict(d)] for k, (v, d) in row.items()} for n, row in table.items()},
                "made_by": {name: result.made_by for name, result in results.items()},
                "settings": asdict(settings),
                "absent": absent,
            }
            yield sheet(title, table, absent), values


def cut(dataset: Dataset, frames: int | None) -> Dataset:
    """The first `frames` of each sequence."""
    if frames is None:
        return dataset
    return replace(dataset, sequences=tuple(replace(s, count=min(s.count, frames)) for s in dataset.sequences))


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.policies`."""
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="data sets, in a layout that rtseg evaluate reads")
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/nano-cpu.toml)")
    parser.add_argument(
        "--policy", nargs="+", choices=tuple(POLICIES), default=tuple(POLICIES), help="the first is the baseline"
    )
    parser.add_argument("--ablate", action="store_true", help="also change one thing of the recipe at a time")
    parser.add_argument("--beside", type=Path, nargs="+", default=(), metavar="RECIPE", help="more rows of --ablate")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="video")
    parser.add_argument("--prompt", choices=PROMPTS, default="mask")
    parser.add_argument("--frames", type=int, help="at most so many frames a sequence (default: all)")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    given = parser.parse_args(arguments)
    found = []
    try:
        for table, values in measure(given):
            Console().print(table.for_terminal())
            print(table.note)
            found.append(values)
    except RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
