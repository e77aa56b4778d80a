"""A network before its judges: every held-out group, from a mask, a box and a point; what is asked; its model card.

    python -m bench.judge engines/training/nano-second.toml --data DATA --engine engines/nano-cpu.toml \\
        --out out/judge/nano --log out/nano-second --card rtseg/sam2/shipped/nano.md

Groups are what the training's file keeps for validation, and synthetic scenes of held-out seeds. Of stills, each
picture stands alone and is prompted with a box and a point; F is at the pictures' own resolution. The engine is any
recipe's. Each evaluation is a folder that `rtseg compare` reads; one that is there already is not run again. The card
is made of these, of the training's log, and of the notes beside its file (`nano.md` by `nano.toml`) on data and limits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import rtseg
from rtseg.adapt.config import TrainConfig, read_config
from rtseg.adapt.validate import groups
from rtseg.base.hardware.facts import facts
from rtseg.data import open_dataset
from rtseg.data.dataset import Dataset
from rtseg.engine.recipe import SHIPPED
from rtseg.evaluate import EvaluationSettings, evaluate, store
from rtseg.evaluate.bootstrap import OVER, Figure
from rtseg.evaluate.summary import Summary, summarise
from rtseg.sam2 import get_preset
from rtseg.synthetic import HELD_OUT_SEED

PROMPTS = ("mask", "box", "points-1")
SCENES = f"synthetic:laparoscopy?seed={HELD_OUT_SEED}-{HELD_OUT_SEED + 9}&seconds=12&fps=12.5&width=640&height=480"
FIGURES = {"iou": "J", "boundary": "F", "jf": "J&F", "false_area": "false area", "reacquired": "re-acquired"}


# What is asked of a default network: (group, prompt, figure) and the least of it, or for the false area the most.
ASKED = {
    ("davis-subset", "mask", "jf"): 0.74,
    ("davis-subset", "mask", "boundary"): 0.72,
    ("robotic-tools", "mask", "iou"): 0.88,
    ("robotic-tools", "mask", "boundary"): 0.87,
    ("endovis15-stills", "box", "iou"): 0.85,
    ("endovis15-stills", "points-1", "iou"): 0.75,
    ("synthetic", "mask", "iou"): 0.85,
    ("synthetic", "mask", "false_area"): 0.001,
    ("synthetic", "mask", "reacquired"): 1.0,
}
Summaries = dict[tuple[str, str], Summary]  # by group and prompt


def evaluations(
    config: TrainConfig, data: Path, prompts: Sequence[str]
) -> Iterator[tuple[str, Dataset, EvaluationSettings]]:
    """(group, data set, settings) of all that judges."""
    for name, group in groups(config, data).items():
        stills = all(settings.protocol == "image" for settings in group.settings)
        of_video = (EvaluationSettings(prompt=prompt) for prompt in prompts)
        for settings in group.settings if stills else of_video:
            yield name, group.dataset, settings
    for prompt in prompts:  # tools come when they like
        yield "synthetic", open_dataset(SCENES), EvaluationSettings(protocol="enter", prompt=prompt)


def judged(engine: rtseg.Engine, name: str, dataset: Dataset, settings: EvaluationSettings, out: Path) -> Summary:
    """One evaluation, from its folder if it is there."""
    folder = out / f"{name}-{settings.prompt}"
    if not (folder / store.FILE).is_file():
        print(f"{name}, {settings.prompt}", file=sys.stderr, flush=True)
        result = evaluate(dataset, engine, settings)
        folder.mkdir(parents=True, exist_ok=True)
        store.write(folder, result, summarise(result).to_json())
    return summarise(store.read(folder, masks=False))


def cell(name: str, figures: dict[str, Figure]) -> str:
    """A figure, with its interval where there is one."""
    if name not in figures:
        return "-"
    figure = figures[name]
    percent = name in ("false_area", "reacquired")
    text = f"{figure.value:.2%}" if percent else f"{figure.value:.3f}"
    if figure.low is None or figure.high is None or figure.scope != OVER:
        return text  # what holds within a few videos alone has no place in a card
    ends = (f"{v:.2%}" if percent else f"{v:.3f}" for v in (figure.low, figure.high))
    return f"{text} ({' to '.join(ends)})"


def rows(summaries: Summaries) -> list[tuple[str, ...]]:
    """A row a group and prompt, and one a sequence where a group has several."""
    made = []
    for (group, prompt), summary in summaries.items():
        made.append((group, prompt, *(cell(name, summary.overall) for name in FIGURES)))
        if prompt == "mask" and 1 < len(summary.sequences) < 8:
            for name, figures in summary.sequences.items():
                made.append((f"- {name}", prompt, *(cell(key, figures) for key in FIGURES)))
    return made


def met(summaries: Summaries) -> list[tuple[str, ...]]:
    """A row for each figure that is asked and was measured: group, prompt, figure, found, asked, and whether it is."""
    made = []
    for (group, prompt, name), asked in ASKED.items():
        figures = summaries[group, prompt].overall if (group, prompt) in summaries else {}
        if name not in figures:
            continue
        value, most = figures[name].value, name == "false_area"
        found = cell(name, {name: replace(figures[name], low=None, high=None)})
        limit = cell(name, {name: Figure(asked, None, None, 1)})
        enough = value <= asked if most else value >= asked
        made.append(
            (group, prompt, FIGURES[name], found, f"{'<=' if most else '>='} {limit}", "yes" if enough else "no")
        )
    return made


def training_facts(folder: Path | None) -> dict[str, Any]:
    """Steps, minutes and frames of a training, from its log."""
    log = folder / "log.jsonl" if folder else None
    if log is None or not log.is_file():
        return {}
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    return {"steps": steps[-1]["step"], "minutes": steps[-1]["minutes"]} if steps else {}


def card(engine: rtseg.Engine, training: Path, log: dict[str, Any], found: list[tuple[str, ...]]) -> str:
    """The model card, Markdown."""
    config = read_config(training)
    preset = get_preset(config.preset)
    numbers = ", ".join(
        f"{key} {value}"
        for key, value in asdict(preset).items()
        if key != "name" and (value is False or value not in (0, (), (0, 0, 0, 0)))
    )
    weights, ran = SHIPPED / f"{preset.name}.safetensors", engine.description.partition(" (not proved")[0]
    columns = ("group", "prompt", *FIGURES.values())
    lines = [
        f"# {preset.name}: model card",
        "Made by `python -m bench.judge`; for research only.",
        "",
        "| | |",
        "|---|---|",
        f"| file | `{weights.name}`, {weights.stat().st_size / 1e6:.1f} MB (fp16), SHA-256 `{engine.weights_hash}` |",
        f"| image size | {engine.image_size} px |",
        f"| architecture | SAM 2.1; {numbers} |",
        f"| training | `rtseg train engines/training/{training.name} --data DATA --out OUT`"
        + (f": {log['steps']} steps, {log['minutes']:.0f} minutes on {facts()['cpu']}" if log else "")
        + " |",
        f"| judged with | {ran}, memory policy {engine.recipe.memory.policy} |",
        "",
        "## On what it has never seen",
        "Means over objects; re-acquired within 10 frames; 95 % intervals over sequences, where there are five.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in found),
        "",
    ]
    notes = training.with_suffix(".md")
    return "\n".join(lines) + (notes.read_text("utf-8") if notes.is_file() else "")


def show(columns: Sequence[str], found: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in found:
        table.add_row(*row)
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.judge`."""
    parser = argparse.ArgumentParser(prog="python -m bench.judge", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("training", type=Path, metavar="TRAINING.toml", help="what it was trained by")
    parser.add_argument("--data", type=Path, required=True, help="what the paths in it are relative to")
    parser.add_argument("--engine", type=Path, required=True, metavar="RECIPE.toml")
    parser.add_argument("--weights", help="a weights file (default: the recipe's)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the evaluations")
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="of the training, for its log")
    parser.add_argument("--card", type=Path, metavar="FILE.md", help="write the model card")
    parser.add_argument(
        "--prompt", nargs="+", choices=PROMPTS, default=PROMPTS, help="of videos; stills have their own"
    )
    parser.add_argument("--group", nargs="+", metavar="NAME", help="only these groups")
    given = parser.parse_args(arguments)
    try:
        config = read_config(given.training)
        engine = rtseg.open_engine(given.engine, **({"weights": given.weights} if given.weights else {}))
        summaries = {
            (name, settings.prompt): judged(engine, name, dataset, settings, given.out)
            for name, dataset, settings in evaluations(config, given.data, given.prompt)
            if not given.group or name in given.group
        }
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    found = rows(summaries)
    show(("group", "prompt", *FIGURES.values()), found)
    show(("group", "prompt", "figure", "found", "asked", "met"), met(summaries))
    if given.card:
        given.card.write_text(card(engine, given.training, training_facts(given.log), found), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
