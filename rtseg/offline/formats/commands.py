"""The verb `rtseg export`, and the option that does the same at the end of `rtseg segment`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from ...base.verb import Result, Verb, option, path
from .registry import FORMATS, write_formats

_LIST = "\n".join(f"{name}: {each.about}" for name, each in FORMATS.items())
ALSO = option("--also", nargs="+", metavar="FORMAT", default=[], help=f"write other formats, too: {', '.join(FORMATS)}")


def _export(args: argparse.Namespace) -> Result:
    from ...base.terminal import progress_bar

    notes: list[str] = []

    def say(line: str) -> None:
        notes.append(line)
        with suppress(OSError, ValueError, AttributeError):  # nobody may be listening on stderr
            print(f"rtseg export: {' '.join(line.split())}", file=sys.stderr, flush=True)

    with progress_bar("export") as progress:
        paths = write_formats(args.result, args.to, incomplete=args.incomplete, progress=progress, say=say)
    return {"result": str(args.result), "formats": {path.name: str(path) for path in paths}, "notes": notes}


EXPORT = Verb(
    "export",
    "a result in the formats of other programs",
    example="rtseg export out/clip --to yolo cvat",
    run=_export,
    options=(
        option("result", type=path, help="the folder that rtseg segment wrote"),
        option("--to", nargs="+", required=True, metavar="FORMAT", help=_LIST),
        option("--incomplete", action="store_true", help="also of a result that ended early: its whole frames"),
    ),
)
