"""The verbs of a live feed: `rtseg demo`, `live`, `ctl` and `top`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.verb import Result, Verb, log_to_stderr, option, path, positive
from .control.commands import CTL


def _demo(args: argparse.Namespace) -> Result:
    from .demo import demo

    return demo(out=args.out, stay=args.stay)


def _live(args: argparse.Namespace) -> Result:
    from .profile import load_stream

    profile = load_stream(args.stream)
    from . import run_live

    log_to_stderr()
    if args.console is None:
        return run_live(profile, args.seconds)
    from .console_process import check_console

    check_console(profile)
    return run_live(profile, args.seconds, console=args.console)


def _top(args: argparse.Namespace) -> Result:
    from .watch.top import top

    return top(args.address, args.seconds, args.once)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a port, 1 to 65535")
    return int(text)


DEMO = Verb(
    "demo",
    "the whole pipeline for 20 s on a synthetic endoscope",
    example="rtseg demo",
    run=_demo,
    options=(
        option("--out", type=path, default=Path("out/demo"), help="folder for overlay.mp4 and poster.png"),
        option("--stay", action="store_true", help="go on playing, until Ctrl-C"),
    ),
)

LIVE = Verb(
    "live",
    "one feed: grab, segment, draw, publish",
    example="rtseg live streams/demo.toml",
    run=_live,
    options=(
        option("stream", type=path, metavar="STREAM.toml", help="a stream profile"),
        option("--seconds", type=positive, help="stop after so long; without it, at the end of the source"),
        option("--console", type=_port, metavar="PORT", help="show it in a browser: http://127.0.0.1:PORT"),
    ),
)

TOP = Verb(
    "top",
    "a running feed in figures, once a second",
    example="rtseg top 127.0.0.1:9464",
    run=_top,
    options=(
        option("address", nargs="?", default="127.0.0.1:9464", help="of the feed's [metrics]"),
        option("--seconds", type=positive, help="stop after so long; without it, at Ctrl-C"),
        option("--once", action="store_true", help="print it once"),
    ),
)

VERBS = (DEMO, LIVE, CTL, TOP)
