"""The verb `rtseg segment`: words of the command line in, a result out. Needs no heavy library until then."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, PromptError
from .settings import DECODERS, Reading

Result = dict[str, Any]
AddVerb = Callable[[Any, str, Callable[[argparse.Namespace], Result], str, str], argparse.ArgumentParser]
OVERRIDES = ("weights", "runtime", "precision", "device", "policy", "max_objects")  # of the recipe


def add_parser(verbs: Any, add_verb: AddVerb) -> None:
    """Add `segment` to the command line; `add_verb(verbs, name, run, text, example)` makes the parser."""
    example = "rtseg segment clip.mp4 --prompts p.json --out out/clip"
    parser = add_verb(verbs, "segment", run, "every frame of a video, in order", example)
    parser.add_argument(
        "source", nargs="+", help="a video file, a folder of images, synthetic:..., a pipe, or - for stdin"
    )
    parser.add_argument("--prompts", type=Path, required=True, help="what to follow: a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder for overlay.mp4, masks/, masks.json, run.json")
    parser.add_argument("--force", action="store_true", help="replace the folder if it holds an earlier result")
    parser.add_argument("--join", action="store_true", help="several files, in this order, are one recording")
    parser.add_argument(
        "--fps", type=_rate, help="of a folder of images, a bare stream (.h264), or a synthetic source (default: 25)"
    )
    parser.add_argument(
        "--deinterlace",
        choices=("off", "auto", "on"),
        help="make interlaced pictures whole: those marked as interlaced, or all (default: off)",
    )
    parser.add_argument(
        "--damaged",
        choices=("skip", "stop"),
        default="skip",
        help="frames that are damaged: leave them out, and say so (default), or end there and keep what is whole",
    )
    parser.add_argument(
        "--bits", type=_bits, help="that the values of 16-bit images use, as 12 (default: what they say)"
    )
    parser.add_argument(
        "--decoder",
        choices=DECODERS,
        default="cpu",
        help="nvdec: an NVIDIA GPU decodes, and pictures stay there until they are drawn; for runtime cuda or tensorrt."
        " It hides damage inside pictures, and has run on no GPU yet (default: cpu)",
    )
    parser.add_argument(
        "--frames",
        nargs="?",
        const="jpg",
        choices=("jpg", "png"),
        help="write the frames, too: frames/00000.jpg (default) or .png",
    )
    parser.add_argument(
        "--fine", action="store_true", help="edges of masks at the picture's resolution, not the network's; slower"
    )
    parser.add_argument("--engine", type=Path, metavar="RECIPE.toml", help="an engine recipe; else nano on the CPU")
    for key in OVERRIDES[:-1]:
        parser.add_argument(f"--{key}", help=f"instead of the recipe's {key}")
    parser.add_argument("--max-objects", type=_objects, metavar="N", help="instead of the recipe's max_objects")


def run(args: argparse.Namespace) -> Result:
    """Read the files that the words name, and segment."""
    if len(args.source) > 1 and not args.join:
        raise ConfigError(
            f"{len(args.source)} sources; if they are one recording, add --join; if not, run once for each"
        )
    from ..base.prompt_files import load_prompts
    from ..base.terminal import progress_bar
    from ..engine.recipe import load_recipe
    from . import segment

    if "-" in args.source and str(args.prompts) == "-":
        raise PromptError("prompts = '-': stdin is the recording already; expected a file, or a pipe: <(command)")
    given = {key: getattr(args, key) for key in OVERRIDES if getattr(args, key) is not None}
    recipe, prompts = load_recipe(args.engine, **given), load_prompts(args.prompts)
    reading = Reading(args.fps, args.deinterlace, args.damaged, args.bits, args.decoder)
    source = args.source if len(args.source) > 1 else args.source[0]
    with progress_bar("segment") as progress:
        return segment(
            source, prompts, args.out, recipe,
            reading=reading, frames=args.frames, fine=args.fine, force=args.force, progress=progress, say=_say,
        )  # fmt: skip


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


def _bits(text: str) -> int:
    return _whole(text, 1, 16)


def _objects(text: str) -> int:
    return _whole(text, 1, 255)


def _whole(text: str, least: int, most: int) -> int:
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from {least} to {most}")
    return value
