"""The verbs of measuring: `rtseg eval` and `compare` for masks, `rtseg bench` for time."""

from __future__ import annotations

import argparse
from typing import Any

from ..base.verb import (
    Result,
    UsageError,
    Verb,
    log_to_stderr,
    numbers,
    option,
    path,
    path_or_uri,
    positive,
    whole,
    words,
)

_SETTINGS = (
    "protocol",
    "prompt",
    "every",
    "clicks",
    "frames",
    "slices",
    "corruption",
    "level",
    "seed",
    "policy",
    "tolerance",
)


def _eval(args: argparse.Namespace) -> Result:
    from ..base.terminal import progress_bar
    from ..data import open_dataset
    from ..engine import open_engine
    from . import EvaluationSettings, evaluate
    from .report import table, write_report

    if args.out and args.force:
        from ..base.result_folder import check_apart

        check_apart([args.dataset], args.out)
    settings = EvaluationSettings(**{name: getattr(args, name) for name in _SETTINGS})
    dataset = open_dataset(args.dataset, args.layout, args.sequences)
    engine = open_engine(args.engine)

    def result() -> Any:
        with progress_bar("eval") as progress:
            return evaluate(dataset, engine, settings, progress)

    return write_report(result, dataset, args.out, args.force) if args.out else table(result(), dataset)


def _compare(args: argparse.Namespace) -> Result:
    from .compare import compare, comparison_table

    return comparison_table(compare(args.a, args.b))


def _bench(args: argparse.Namespace) -> Result:
    if args.loopback is not None:
        return _loopback(args)
    if not args.recipes:
        raise UsageError("no recipe; expected engine recipes, or --loopback; see rtseg bench --help")
    from ..base.terminal import clock_bar

    names = ("clip", "prompts", "objects", "frames", "rounds", "compare", "runtimes", "out")
    seconds = args.seconds or 140.0
    with clock_bar("bench") as progress:
        progress("importing", 0.0, seconds)  # which takes seconds
        from .speed.benchmark import bench

        given = {name: getattr(args, name) for name in names}
        return bench(args.recipes, **given, seconds=seconds, progress=progress)


def _loopback(args: argparse.Namespace) -> Result:
    from ..live.profile import load_stream
    from .speed.loopback import loopback

    log_to_stderr()
    return loopback(None if args.loopback == "" else load_stream(args.loopback), args.seconds or 20.0)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a list of whole numbers, as 10,40") from None


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(whole(1), text.split(",")))


def _finite(text: str) -> float:
    return numbers(1, "a number")(text)[0]


_DATA = (
    option("dataset", metavar="DATASET", help="a folder in one of the layouts of --layout, or synthetic:..."),
    option(
        "--layout",
        help="davis, endovis2017, endovis2018, isinet, cholecseg8k, sa-med2d, sa-v,\n"
        "nifti[:WINDOW][:MODALITIES], video (default: detected from the files)",
    ),
    option(
        "--sequences", type=words, default=(), metavar="NAME,...", help="of the data set, or its splits (default: all)"
    ),
    option(
        "--engine",
        type=path,
        metavar="RECIPE.toml",
        help="an engine recipe, or the name of published weights (default: the shipped network)",
    ),
)
_PROTOCOL = (
    option(
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
    ),
    option("--prompt", default="mask", help="mask (default), box, points-1, points-3 or points-5"),
    option("--every", type=int, metavar="FRAMES", help="between prompts, for --protocol every (default: 25)"),
    option("--clicks", type=int, help="on each corrected frame (interactive: 3), or after the prompt (image: 0)"),
    option("--frames", type=int, help="most frames that interactive prompts, for each object (default: 8)"),
    option("--slices", type=_whole_numbers, default=(), metavar="N,...", help="slices of a volume to prompt"),
    option("--corruption", help="smoke, blood, defocus, motion, specular, jpeg, dark or bright"),
    option("--level", type=int, help="of the corruption, 1 to 5 (default: 3)"),
    option("--seed", type=int, default=0, help="of points-3, points-5 and corruptions (default: 0)"),
    option("--policy", help="memory policy (default: the recipe's)"),
    option(
        "--tolerance",
        type=_finite,
        default=3.0,
        metavar="DISTANCE",
        help="of the surface Dice: in mm where the data knows its spacing (NIfTI), else in pixels (default: 3)",
    ),
)
_REPORT = (
    option("--out", type=path, metavar="FOLDER", help="for eval.json, masks, plots, worst frames (default: none)"),
    option("--force", action="store_true", help="replace an earlier report in --out"),
)

EVAL = Verb(
    "eval",
    "how good masks are on annotated data: figures, plots, worst frames",
    example="rtseg eval davis --sequences val --prompt points-1 --out out/davis",
    run=_eval,
    options=(*_DATA, *_PROTOCOL, *_REPORT),
)

COMPARE = Verb(
    "compare",
    "two evaluations of the same data, paired: what the second is worth beside the first",
    example="rtseg compare out/fifo out/efp",
    run=_compare,
    options=(
        option("a", type=path, metavar="A", help="a report's folder, or its eval.json"),
        option("b", type=path, metavar="B", help="another"),
    ),
)

BENCH = Verb(
    "bench",
    "how long a frame takes, engines side by side",
    example="rtseg bench engines/*.toml --compare policy --out out/bench",
    run=_bench,
    options=(
        option("recipes", type=path, nargs="*", metavar="RECIPE.toml", help="engine recipes; the first is 1x"),
        option(
            "--clip", type=path_or_uri, help="a video file, a folder of images, or synthetic:... (default: synthetic)"
        ),
        option("--prompts", type=path, help="what to follow from the first frame: a JSON file, as for segment"),
        option("--objects", type=_counts, metavar="N,N", help="numbers of objects to time (default: 1,2,4)"),
        option("--frames", type=whole(1), default=200, help="of each engine and number of objects, or more"),
        option("--rounds", type=whole(1), default=6, help="in so many blocks or more, engines taking turns"),
        option(
            "--compare",
            action="append",
            default=[],
            choices=("policy", "image_size"),
            help="add variants of each recipe: policy (those of the Surgical SAM 2 paper) or image_size (whole, half)",
        ),
        option(
            "--runtimes",
            type=words,
            default=(),
            metavar="all|NAME,NAME",
            help="instead of the recipes as they are: all that runs here, or names; each precision and instruction set",
        ),
        option("--out", type=path, metavar="FOLDER", help="for bench.json and the plots"),
        option(
            "--loopback",
            nargs="?",
            const="",
            type=path_or_uri,
            metavar="STREAM.toml",
            help="instead: numbered pictures through a live feed, from the capture to the number read at a subscriber",
        ),
        option(
            "--seconds",
            type=positive,
            help="how long it takes at most (default: 140); how long a loopback runs (default: 20)",
        ),
    ),
)

VERBS = (EVAL, COMPARE, BENCH)
