"""The verbs `rtseg eval` and `rtseg compare`: words of the command line in, a result out. Needs no torch until then."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
AddVerb = Callable[[Any, str, Callable[[argparse.Namespace], Result], str, str], argparse.ArgumentParser]
SETTINGS = (
    "protocol", "prompt", "every", "clicks", "frames", "slices", "corruption", "level", "seed", "policy", "tolerance",
)  # fmt: skip


def add_parsers(verbs: Any, add_verb: AddVerb) -> None:
    """Add `eval` and `compare` to the command line; `add_verb(verbs, name, run, text, example)` makes each parser."""
    _add_eval(verbs, add_verb)
    example = "rtseg compare out/fifo out/efp"
    text = "two evaluations of the same data, paired: what the second is worth beside the first"
    parser = add_verb(verbs, "compare", _compare, text, example)
    parser.add_argument("a", type=Path, metavar="A", help="a report's folder, or its eval.json")
    parser.add_argument("b", type=Path, metavar="B", help="another")


def _add_eval(verbs: Any, add_verb: AddVerb) -> None:
    example = "rtseg eval davis --sequences val --prompt points-1 --out out/davis"
    parser = add_verb(
        verbs, "eval", _eval, "how good masks are on annotated data: figures, plots, worst frames", example
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="a folder in one of the layouts of --layout, or synthetic:..."
    )
    parser.add_argument(
        "--layout",
        help="davis, endovis2017, endovis2018, isinet, cholecseg8k, sa-med2d, sa-v,\n"
        "nifti[:WINDOW][:MODALITIES], video (default: what lies there)",
    )
    parser.add_argument(
        "--sequences", type=_words, default=(), metavar="NAME,...", help="of the data set, or its splits (default: all)"
    )
    parser.add_argument(
        "--engine", type=Path, metavar="RECIPE.toml", help="an engine recipe (default: the shipped network)"
    )
    parser.add_argument(
        "--protocol",
        default="video",
        help=(
            "video        prompted on the first frame (default)\n"
            "enter        each object where it first appears\n"
            "every        again and again, every --every frames\n"
            "interactive  and corrected with clicks where the mask is bad\n"
            "image        each frame alone\n"
            "forward, backward, both: volumes, from --slices or the largest one"
        ),
    )
    parser.add_argument("--prompt", default="mask", help="mask (default), box, points-1, points-3 or points-5")
    parser.add_argument(
        "--every", type=int, metavar="FRAMES", help="between prompts, for --protocol every (default: 25)"
    )
    parser.add_argument(
        "--clicks", type=int, help="on each corrected frame (interactive: 3), or after the prompt (image: 0)"
    )
    parser.add_argument("--frames", type=int, help="that interactive prompts at most, for each object (default: 8)")
    parser.add_argument("--slices", type=_numbers, default=(), metavar="N,...", help="of a volume that are prompted")
    parser.add_argument("--corruption", help="smoke, blood, defocus, motion, specular, jpeg, dark or bright")
    parser.add_argument("--level", type=int, help="of the corruption, 1 to 5 (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of points-3, points-5 and corruptions (default: 0)")
    parser.add_argument("--policy", help="memory policy (default: the recipe's)")
    parser.add_argument(
        "--tolerance",
        type=_finite,
        default=3.0,
        metavar="DISTANCE",
        help="of the surface Dice: in mm where the data knows its spacing (NIfTI), else in pixels (default: 3)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for eval.json, masks, plots, worst frames (default: none)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier report in --out")


def _eval(args: argparse.Namespace) -> Result:
    from ..base.terminal import progress_bar
    from ..data import open_dataset
    from ..engine import open_engine
    from . import Settings, evaluate
    from .report import table, write_report

    if args.out and args.force:
        from ..base.result_folder import check_apart

        check_apart([args.dataset], args.out)
    settings = Settings(**{name: getattr(args, name) for name in SETTINGS})
    dataset = open_dataset(args.dataset, args.layout, args.sequences)
    engine = open_engine(args.engine)

    def result() -> Any:
        with progress_bar("eval") as progress:
            return evaluate(dataset, engine, settings, progress)

    return write_report(result, dataset, args.out, args.force) if args.out else table(result(), dataset)


def _compare(args: argparse.Namespace) -> Result:
    from .compare import compare, comparison_table

    return comparison_table(compare(args.a, args.b))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a list of whole numbers, as 10,40") from None


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number")
    return value
