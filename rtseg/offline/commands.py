"""The verbs of recordings: `rtseg segment`; `rtseg report` and `rtseg export` of what it wrote."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import PromptError
from ..base.verb import Result, Verb, option, path, path_or_uri, whole
from .formats.commands import ALSO, EXPORT
from .review.commands import REPORT
from .settings import DECODERS, WAYS, Reading, Uri

if TYPE_CHECKING:
    from ..engine import Engine
    from ..engine.recipe import Recipe
    from .check import PromptsByFrame

OVERRIDES = ("weights", "runtime", "precision", "device", "policy", "max_objects")  # options that override the recipe


def _segment(args: argparse.Namespace) -> Result:
    from ..grab.url_list import expanded

    args.source = expanded(args.source)
    from ..base.prompt_files import load_prompts
    from ..base.terminal import progress_bar
    from . import segment

    if "-" in args.source and str(args.prompts) == "-":
        raise PromptError("prompts = '-': stdin is the recording already; expected a file, or a pipe: <(command)")
    recipe = recipe_of(args, _say)
    reading = Reading(args.fps, args.deinterlace, args.damaged, args.bits, args.window, args.plane, args.decoder)
    with progress_bar("segment") as progress:

        def one(source: Uri | Sequence[Uri], prompts: PromptsByFrame, out: Path, engine: Recipe | Engine) -> Result:
            return segment(
                source, prompts, out, engine,
                reading=reading, direction=args.direction, across_cuts=args.across_cuts, slices=args.slices,
                frames=args.frames, deidentify=args.deidentify, also=args.also, force=args.force,
                progress=progress, say=_say,
            )  # fmt: skip

        if len(args.source) > 1 and not args.join:
            from .several import segment_each

            return segment_each(args.source, args.prompts, args.out, recipe, one, _say)
        source = args.source if len(args.source) > 1 else args.source[0]
        return one(source, load_prompts(args.prompts), args.out, recipe)


def recipe_of(args: argparse.Namespace, say: Callable[[str], None]) -> Recipe:
    """The recipe that the options of `ENGINE` give; fetches its weights if they say so."""
    from ..engine.recipe import load_recipe

    given = {key: getattr(args, key) for key in OVERRIDES if getattr(args, key) is not None}
    recipe = load_recipe(args.engine, **given)
    if args.fetch:
        from ..base.terminal import bytes_bar
        from ..engine.weights import fetch_weights

        with bytes_bar(recipe.weights) as fetched:
            fetch_weights(recipe.weights, say, fetched)
    return recipe


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may be listening on stderr
        print(f"rtseg segment: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.01 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 0.01 to 1000")
    return value


_READING = (
    option(
        "source",
        nargs="+",
        type=path_or_uri,
        help="video files or uris, a .txt that lists some, folders of images, DICOM, NIfTI, synthetic:..., a pipe, -",
    ),
    option(
        "--prompts",
        type=path,
        required=True,
        help="what to follow: a JSON file, or of several videos a folder of NAME.json",
    ),
    option("--out", type=path, required=True, help="folder for the result, or of several videos for theirs"),
    option("--force", action="store_true", help="replace the folder if it holds an earlier result"),
    option("--join", action="store_true", help="several files, in this order, are one recording"),
    option(
        "--fps", type=_rate, help="of a folder of images, a bare stream (.h264), or a synthetic source (default: 25)"
    ),
    option(
        "--deinterlace",
        choices=("off", "auto", "on"),
        help="make interlaced pictures whole: those marked as interlaced, or all (default: off)",
    ),
    option(
        "--damaged",
        choices=("skip", "stop"),
        default="skip",
        help="frames that are damaged: leave them out, and say so (default), or end there and keep what is whole",
    ),
    option("--bits", type=whole(1, 16), help="that the values of 16-bit images use, as 12 (default: what they say)"),
    option(
        "--window", metavar="W", help="of DICOM and NIfTI: lung, percentile, ..., or WIDTH/LEVEL (default: its own)"
    ),
    option("--plane", choices=("axial", "coronal", "sagittal"), help="of the slices of a NIfTI volume"),
    option(
        "--decoder",
        choices=DECODERS,
        default="cpu",
        help="nvdec: an NVIDIA GPU decodes, and pictures stay there until they are drawn; for runtime cuda or tensorrt."
        " It hides damage inside pictures, and has run on no GPU yet (default: cpu)",
    ),
)
_TRACKING = (
    option(
        "--direction",
        choices=WAYS,
        default="forward",
        help="from the prompted frames on (default), back, or both ways, merged by confidence",
    ),
    option("--across-cuts", action="store_true", help="track objects across cuts to other scenes, too"),
    option("--slices", action="store_true", help="the pictures are slices of a volume: no cuts, no motion"),
)
_WRITING = (
    option(
        "--frames",
        nargs="?",
        const="jpg",
        choices=("jpg", "png"),
        help="write the frames, too: frames/00000.jpg (default) or .png",
    ),
    option(
        "--deidentify",
        nargs="+",
        choices=("out-of-body", "text"),
        default=(),
        help="blur frames from outside the body, or mask burned-in text, in all that is written, and leave out names;"
        " a heuristic that does not replace a person's check",
    ),
    ALSO,
)
OF_EACH = (*_READING[5:], *_TRACKING, *_WRITING)  # what `rtseg archive` takes, too, for all of its videos
ENGINE = (
    option(
        "--engine",
        type=path,
        metavar="RECIPE.toml",
        help="an engine recipe, or the name of published weights (rtseg weights list); else nano on the CPU",
    ),
    option("--fetch", action="store_true", help="fetch published weights that are not on this machine yet"),
    option("--weights", type=path_or_uri, help="instead of the recipe's weights"),
    *(option(f"--{key}", help=f"instead of the recipe's {key}") for key in OVERRIDES[1:-1]),
    option("--max-objects", type=whole(1, 255), metavar="N", help="instead of the recipe's max_objects"),
)

SEGMENT = Verb(
    "segment",
    "every frame of a video, in order",
    example="rtseg segment clip.mp4 --prompts p.json --out out/clip",
    run=_segment,
    options=(*_READING, *_TRACKING, *_WRITING, *ENGINE),
)

VERBS = (SEGMENT, EXPORT, REPORT)
