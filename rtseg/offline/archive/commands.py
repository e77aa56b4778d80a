"""The verb of archives: `rtseg archive`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ...base.verb import Result, Verb, option, path, path_or_uri, positive, whole
from ..commands import ENGINE, OF_EACH, recipe_of

QUIET_S = 30.0  # between lines of progress where stderr is not a terminal


def _archive(args: argparse.Namespace) -> Result:
    from ...base.terminal import status_line
    from .manifest import ManifestError
    from .options import NAMES
    from .run import Settings, archive

    settings = Settings(
        args.ray, args.gpus_per_worker, args.workers, args.retries, args.force, args.cache, int(args.cache_gb * 1e9),
        {name: getattr(args, name) for name in NAMES},
    )  # fmt: skip
    try:
        with status_line() as update:
            result = archive(
                args.manifest, args.out, recipe_of(args, _say), settings, say=_say, show=update or _now_and_then()
            )
    except ManifestError as e:
        for fault in e.faults[:100]:
            _say(fault)
        raise
    for failure in result["failures"]:
        _say(f"failed: line {failure['line']}, {failure['source']}: {failure['causes'][-1]}{_more(failure)}")
    return result


def _more(failure: dict[str, object]) -> str:
    attempts = failure["attempts"]
    return f" ({attempts} attempts)" if isinstance(attempts, int) and attempts > 1 else ""


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may be listening on stderr
        print(f"rtseg archive: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _now_and_then() -> Callable[[str], None]:
    last = [time.monotonic()]

    def show(line: str) -> None:
        if time.monotonic() - last[0] >= QUIET_S:
            last[0] = time.monotonic()
            _say(line)

    return show


def _share(text: str) -> float:
    value = 0.0 if text in ("0", "0.0") else positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 0 to 1: a worker uses one GPU")
    return value


ARCHIVE = Verb(
    "archive",
    "many videos, on the machines of a Ray cluster",
    example="rtseg archive videos.csv --out out/archive",
    run=_archive,
    options=(
        option(
            "manifest",
            type=path_or_uri,
            help="a .csv, .jsonl or .toml file with a row for each video: source, prompts, out, options",
        ),
        option("--out", type=path_or_uri, required=True, help="a folder, or a cloud's: s3://BUCKET/NAME, gs://..."),
        option("--ray", metavar="ADDRESS", help="an existing Ray cluster (default: one of this machine)"),
        option(
            "--gpus-per-worker",
            type=_share,
            metavar="X",
            help="0.5: two workers on a GPU; 0: on CPUs (default: 1 where there are GPUs)",
        ),
        option("--workers", type=whole(1), metavar="N", help="how many (default: one for each device)"),
        option(
            "--retries",
            type=whole(0, 100),
            default=3,
            metavar="N",
            help="repeated attempts of a video where a machine failed (default: 3)",
        ),
        option("--force", action="store_true", help="replace earlier results"),
        option("--cache", type=path, metavar="DIR", help="each machine's folder for fetched sources"),
        option("--cache-gb", type=positive, default=50.0, metavar="GB", help="the most it holds (default: 50)"),
        *OF_EACH,
        *ENGINE,
    ),
)

VERBS = (ARCHIVE,)
