"""The verbs about engines, weights and this machine: `rtseg build`, `weights` and `doctor`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..base.verb import Result, Verb, option, path, path_or_uri


def _build(args: argparse.Namespace) -> Result:
    from ..base.terminal import progress_bar
    from .build import build_all

    options = {name: getattr(args, name) for name in ("clip", "prompts", "force")}
    with progress_bar("frames checked") as progress:
        return build_all(args.recipes, **options, note=partial(print, file=sys.stderr), progress=progress)


def _doctor(args: argparse.Namespace) -> Result:
    from dataclasses import asdict

    from .doctor import examine
    from .doctor.memory import memory_table

    if args.memory is not None:
        return memory_table(args.memory)
    findings = examine()
    return {"ok": all(f.ok is not False for f in findings), "findings": [asdict(f) for f in findings]}


def _list_weights(args: argparse.Namespace) -> Result:
    from .weights import list_weights

    return list_weights()


def _get_weights(args: argparse.Namespace) -> Result:
    from .weights import get_weights

    return get_weights(args.name, args.source, args.accept_licence or "", args.force)


def _check_weights(args: argparse.Namespace) -> Result:
    from .weights import check_weights

    return check_weights(args.file)


BUILD = Verb(
    "build",
    "compile an engine, check its masks against the reference, install it in built/ beside the recipe",
    example="rtseg build engines/nano-cpu.toml",
    run=_build,
    options=(
        option("recipes", type=path, nargs="+", metavar="RECIPE.toml", help="engine recipes"),
        option(
            "--clip",
            type=path_or_uri,
            help="check it on this clip too: a video file, a folder of images, or synthetic:...",
        ),
        option("--prompts", type=path, help="what to follow in the clip: a JSON file, as for segment"),
        option("--force", action="store_true", help="rebuild even if a fitting engine is installed"),
    ),
)

DOCTOR = Verb(
    "doctor",
    "what works on this machine, and remedies for what does not",
    example="rtseg doctor",
    run=_doctor,
    options=(
        option(
            "--memory",
            nargs="*",
            metavar="PRESET",
            help="instead: how much memory engines take, for each size and number of objects (no PRESET: of all)",
        ),
    ),
)

WEIGHTS = Verb(
    "weights",
    "published weights: what there is, fetching them, and what a file of weights is",
    example="rtseg weights get edgetam",
    run=_list_weights,
    requests=(
        Verb("list", "the published weights, and which of them are here", "rtseg weights list", _list_weights),
        Verb(
            "get",
            "fetch weights into the cache; what was cut goes on where it ended",
            example="rtseg weights get edgetam",
            run=_get_weights,
            options=(
                option("name", metavar="NAME", help="as rtseg weights list has it"),
                option("--accept-licence", metavar="LICENCE", help="the licence that you accept, where one has to be"),
                option("--from", dest="source", type=path, metavar="FILE", help="take this file, fetched elsewhere"),
                option("--force", action="store_true", help="fetch it again although it is here"),
            ),
        ),
        Verb(
            "check",
            "what network a file of weights is of, and whether it is whole",
            example="rtseg weights check edgetam.pt",
            run=_check_weights,
            options=(option("file", type=path, metavar="FILE", help="a .pt or .safetensors, or a name of weights"),),
        ),
    ),
)

VERBS = (BUILD, WEIGHTS, DOCTOR)
