"""The verb of recordings: `rtseg segment`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..base.errors import ConfigError, PromptError
from ..base.verb import Result, Verb, option, path, path_or_uri, whole
from .settings import DECODERS, Reading

if TYPE_CHECKING:
    from ..engine.recipe import Recipe

OVERRIDES = ("weights", "runtime", "precision", "device", "policy", "max_objects")  # options that override the recipe


def _segment(args: argparse.Namespace) -> Result:
    if len(args.source) > 1 and not args.join:
        raise ConfigError(
            f"{len(args.source)} sources; if they are one recording, add --join; if not, run once for each"
        )
    from ..base.prompt_files import load_prompts
    from ..base.terminal import progress_bar
    from . import segment

    if "-" in args.source and str(args.prompts) == "-":
        raise PromptError("prompts = '-': stdin is the recording already; expected a file, or a pipe: <(command)")
    recipe, prompts = recipe_of(args, _say), load_prompts(args.prompts)
    reading = Reading(args.fps, args.deinterlace, args.damaged, args.bits, args.decoder)
    source = args.source if len(args.source) > 1 else args.source[0]
    with progress_bar("segment") as progress:
        return segment(
            source, prompts, args.out, recipe,
            reading=reading, frames=args.frames, force=args.force, progress=progress, say=_say,
        )  # fmt: skip


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
        help="a video file, a folder of images, synthetic:..., a pipe, or - for stdin",
    ),
    option("--prompts", type=path, required=True, help="what to follow: a JSON file"),
    option("--out", type=path, required=True, help="folder for overlay.mp4, masks/, masks.json, run.json"),
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
        "--decoder",
        choices=DECODERS,
        default="cpu",
        help="nvdec: an NVIDIA GPU decodes, and pictures stay there until they are drawn; for runtime cuda or tensorrt."
        " It hides damage inside pictures, and has run on no GPU yet (default: cpu)",
    ),
)
_WRITING = (
    option(
        "--frames",
        nargs="?",
        const="jpg",
        choices=("jpg", "png"),
        help="write the frames, too: frames/00000.jpg (default) or .png",
    ),
)
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
    options=(*_READING, *_WRITING, *ENGINE),
)

VERBS = (SEGMENT,)
