"""The verb of reviews: `rtseg report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...base.errors import ConfigError, RtsegError
from ...base.verb import Result, Verb, option, path


def _report(args: argparse.Namespace) -> Result:
    from .listing import RUN, results_under
    from .making import write_index, write_report

    written: list[str] = []
    failed: list[str] = []
    for folder in args.result:
        several = not (folder / RUN).is_file()
        places = list(results_under(folder)) if several else [folder]
        if not places:
            failed.append(f"{folder}: no result in it; expected a folder that rtseg segment wrote, or one of such")
            continue
        for place in places:
            written += _made(write_report, place, failed)
        if several:
            written += _made(write_index, folder, failed)
    if not written:
        raise ConfigError("; ".join(failed))
    why = f"{len(failed)} failed: {'; '.join(failed)}" if failed else ""
    return {"ok": not failed, "written": written, **({"why": why} if failed else {})}


def _made(make: Callable[[Path], Path], folder: Path, failed: list[str]) -> list[str]:
    """The file that `make` writes for a folder; after an error of rtseg's none, and its line is kept and shown."""
    try:
        return [str(make(folder))]
    except RtsegError as e:
        failed.append(str(e))
        with suppress(OSError, ValueError, AttributeError):  # nobody may be listening on stderr
            print(f"rtseg report: {e}", file=sys.stderr, flush=True)
        return []


REPORT = Verb(
    "report",
    "a page to review a result: report.html; of a folder of results, an index, too",
    example="rtseg report out/clip",
    run=_report,
    options=(
        option(
            "result", nargs="+", type=path, metavar="RESULT",
            help="a folder that rtseg segment wrote, or a folder with many of them",
        ),
    ),
)  # fmt: skip

VERBS = (REPORT,)
