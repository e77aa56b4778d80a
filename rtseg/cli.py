"""`rtseg VERB`: reads arguments, calls one function of a room, and shows what it returned.

Exit codes: 0 done; 2 a mistake of the user's (one line on stderr says which); 1 a failure, of ours or of what was read;
130 Ctrl-C. The last line on stderr says why it is not 0.
With `--json` the last line of stdout is one JSON document, also for an error. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from . import __version__
from .base.descriptors import fill_standard
from .base.documents import as_path, is_there
from .base.errors import IncompleteError, OutputError, RtsegError

Result = dict[str, Any]
N = TypeVar("N", int, float)
MAYBE_PATHS = {"source", "clip", "loopback", "weights", "server_key"}  # words that are a path, or something else


class _UsageError(RtsegError):
    """The words of the command line make no sense."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise _UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    fill_standard()
    argv = [_not_option(word) for word in (sys.argv[1:] if argv is None else argv)]
    as_json = "--json" in argv
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: its threads share cores with our others
    fail = partial(_fail, " ".join(["rtseg", *argv[:1]]), as_json)
    _end_gently()
    atexit.register(gc.freeze)  # to look for garbage among all of torch's objects takes a process that ends 0.35 s
    try:
        args = _at_home(_parser().parse_args(argv))
        result = args.run(args)
        _show(result, as_json)
        if result.get("ok") is False and result.get("why"):  # the last line, as of what was refused
            return fail(None, str(result["why"]), 1)
    except IncompleteError as e:
        if os.environ.get("RTSEG_DEBUG") and not isinstance(e.__cause__, (RtsegError, KeyboardInterrupt, type(None))):
            raise
        return fail(e, str(e), e.code, e.report)
    except RtsegError as e:
        return fail(e, str(e), 2)
    except KeyboardInterrupt as e:
        return fail(e, "interrupted", 130)
    except Exception as e:
        if isinstance(e, ModuleNotFoundError) and e.name == "torch":
            return fail(e, "needs torch, which is not installed: pip install 'rtseg[torch]'", 2)
        if os.environ.get("RTSEG_DEBUG"):
            raise
        return fail(e, f"{type(e).__name__}: {e} (a bug, or this machine; RTSEG_DEBUG=1 shows where)", 1)
    return 1 if result.get("ok") is False else 0


def _not_option(word: str) -> str:
    """A file called `-a.mp4` as what no parser takes for an option."""
    return f"./{word}" if word.startswith("-") and "." in word and is_there(Path(word)) else word


def _at_home(args: argparse.Namespace) -> argparse.Namespace:
    """The words with `~` made the home folder in every path: a shell does not do so in --out=~/x, nor in quotes."""

    def at_home(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [at_home(name, one) for one in value]
        if isinstance(value, str) and name in MAYBE_PATHS and value.startswith("~"):
            return str(as_path(value))
        return as_path(value) if isinstance(value, Path) else value

    said = {name: at_home(name, value) for name, value in vars(args).items()}
    return argparse.Namespace(**said)


def _end_gently() -> None:
    """A service manager's way to stop us is Ctrl-C's: what is half done is cleaned up."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)


def _show(result: Result, as_json: bool) -> None:
    from .base.terminal import show

    try:
        show(result, to_stderr=as_json)
        if not as_json:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        if not as_json:
            raise OutputError(f"what came out of it cannot be printed ({e.strerror}); the work itself is done") from e
    if as_json:
        print(json.dumps(result, default=str, allow_nan=False), flush=True)


def _fail(
    name: str, as_json: bool, error: BaseException | None, text: str, code: int, report: Result | None = None
) -> int:
    line = " ".join(text.split())
    with suppress(OSError, AttributeError):  # nobody may be listening on stderr
        print(f"{name}: {line}", file=sys.stderr)
    if as_json and error is not None:
        with suppress(OSError):
            line = getattr(error, "public", line)  # some advice is for the terminal alone: a password is in it
            said = {**(report or {}), "ok": False, "error": line, "kind": type(error).__name__.lstrip("_")}
            print(json.dumps(said, default=str), flush=True)
    return code


def _demo(args: argparse.Namespace) -> Result:
    from .live.demo import demo

    return demo(out=args.out)


def _live(args: argparse.Namespace) -> Result:
    from .live.profile import load_stream

    profile = load_stream(args.stream)
    from .live import run_live

    _log_to_stderr()
    return run_live(profile, args.seconds)


def _view(args: argparse.Namespace) -> Result:
    from .publish.viewer import view

    names = ("headless", "save", "seconds", "frames", "keys", "server_key")
    return view(args.address, **{name: getattr(args, name) for name in names})


def _top(args: argparse.Namespace) -> Result:
    from .live.watch.top import top

    return top(args.address, args.seconds, args.once)


def _verify(args: argparse.Namespace) -> Result:
    from .publish.verify import verify

    return verify(args.folder)


def _build(args: argparse.Namespace) -> Result:
    from .base.terminal import progress_bar
    from .build.build import build_all

    options = {name: getattr(args, name) for name in ("clip", "prompts", "force")}
    with progress_bar("frames proved") as progress:
        return build_all(args.recipes, **options, note=partial(print, file=sys.stderr), progress=progress)


def _bench(args: argparse.Namespace) -> Result:
    if args.loopback is not None:
        return _loopback(args)
    if not args.recipes:
        raise _UsageError("no recipe; expected engine recipes, or --loopback; see rtseg bench --help")
    from .base.terminal import clock_bar

    names = ("clip", "prompts", "objects", "frames", "rounds", "compare", "runtimes", "out")
    seconds = args.seconds or 140.0
    with clock_bar("bench") as progress:
        progress("importing", 0.0, seconds)  # which takes seconds
        from .evaluate.speed.run import bench

        given = {name: getattr(args, name) for name in names}
        return bench(args.recipes, **given, seconds=seconds, progress=progress)


def _loopback(args: argparse.Namespace) -> Result:
    from .evaluate.speed.loopback import loopback
    from .live.profile import load_stream

    _log_to_stderr()
    return loopback(None if args.loopback == "" else load_stream(args.loopback), args.seconds or 20.0)


def _log_to_stderr() -> None:
    """What happens to a feed while it runs: every start, end and fault of its processes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def _doctor(args: argparse.Namespace) -> Result:
    from dataclasses import asdict

    from .build.doctor import examine
    from .build.doctor.memory import plan

    if args.memory is not None:
        return plan(args.memory)
    findings = examine()
    return {"ok": all(f.ok is not False for f in findings), "findings": [asdict(f) for f in findings]}


def _parser() -> argparse.ArgumentParser:
    from .adapt.commands import add_parsers as add_training
    from .evaluate.commands import add_parsers as add_evaluation
    from .live.control.commands import add_parsers as add_control
    from .offline.commands import add_parser as add_offline

    parser = _Parser(
        prog="rtseg",
        description="SAM 2 masks on surgical video, live and offline. For research only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"rtseg {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    demo = _verb(verbs, "demo", _demo, "the whole pipeline for 20 s on a synthetic endoscope", "rtseg demo")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for overlay.mp4 and poster.png")

    live = _verb(verbs, "live", _live, "one feed: grab, segment, draw, publish", "rtseg live streams/demo.toml")
    live.add_argument("stream", type=Path, metavar="STREAM.toml", help="a stream profile")
    live.add_argument("--seconds", type=_positive, help="stop after so long; without it, at the end of the source")

    add_offline(verbs, _verb)

    view = _verb(verbs, "view", _view, "a display: the overlay of a feed", "rtseg view tcp://127.0.0.1:5555")
    view.add_argument("address", nargs="?", default="tcp://127.0.0.1:5555", help="where the feed is published")
    view.add_argument("--headless", action="store_true", help="no window: count, and say what came")
    view.add_argument("--save", type=Path, metavar="FOLDER", help="write each picture as a PNG")
    view.add_argument("--seconds", type=_positive, help="stop after so long; without it, at Esc, q or Ctrl-C")
    view.add_argument("--frames", type=_count, help="stop after so many pictures")
    view.add_argument("--keys", type=Path, help="our key, for a feed that asks for one: a folder, or a .key_secret")
    view.add_argument("--server-key", metavar="KEY", help="the feed's public key, or its file; else server.key")

    for add_verbs in (add_control, add_evaluation, add_training):
        add_verbs(verbs, _verb)

    top = _verb(verbs, "top", _top, "a running feed in figures, once a second", "rtseg top 127.0.0.1:9464")
    top.add_argument("address", nargs="?", default="127.0.0.1:9464", help="of the feed's [metrics]")
    top.add_argument("--seconds", type=_positive, help="stop after so long; without it, at Ctrl-C")
    top.add_argument("--once", action="store_true", help="print it once")

    text = "prove that nobody changed a recording: its log, and its pictures"
    verify = _verb(verbs, "verify", _verify, text, "rtseg verify recordings/room1-20260101-090000")
    verify.add_argument("folder", type=Path, help="of one run")

    example = "rtseg build engines/nano-cpu.toml"
    text = "compile an engine, prove that its masks are the reference's, install it in built/ beside the recipe"
    build = _verb(verbs, "build", _build, text, example)
    build.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE.toml", help="engine recipes")
    build.add_argument("--clip", help="prove it on this too: a video file, a folder of images, or synthetic:...")
    build.add_argument("--prompts", type=Path, help="what to follow in the clip: a JSON file, as for segment")
    build.add_argument("--force", action="store_true", help="build again what is there and fits")

    example = "rtseg bench engines/*.toml --compare policy --out out/bench"
    bench = _verb(verbs, "bench", _bench, "how long a frame takes, engines side by side", example)
    bench.add_argument("recipes", type=Path, nargs="*", metavar="RECIPE.toml", help="engine recipes; the first is 1x")
    bench.add_argument("--clip", help="a video file, a folder of images, or synthetic:... (default: synthetic)")
    bench.add_argument("--prompts", type=Path, help="what to follow from the first frame: a JSON file, as for segment")
    bench.add_argument("--objects", type=_counts, metavar="N,N", help="with how many objects (default: 1,2,4)")
    bench.add_argument("--frames", type=_count, default=200, help="of each engine and number of objects, or more")
    bench.add_argument("--rounds", type=_count, default=6, help="in so many blocks or more, engines taking turns")
    compare = "add variants of each recipe: policy (fifo, efp-window, efp) or image_size (whole, half)"
    bench.add_argument("--compare", action="append", default=[], choices=("policy", "image_size"), help=compare)
    runtimes = "instead of the recipes as they are: all that runs here, or names; each precision and instruction set"
    bench.add_argument("--runtimes", type=_names, default=(), metavar="all|NAME,NAME", help=runtimes)
    bench.add_argument("--out", type=Path, metavar="FOLDER", help="for bench.json and the plots")
    loop = "instead: numbered pictures through a live feed, from the capture to the number read at a subscriber"
    bench.add_argument("--loopback", nargs="?", const="", metavar="STREAM.toml", help=loop)
    long = "how long it takes at most (default: 140); how long a loopback runs (default: 20)"
    bench.add_argument("--seconds", type=_positive, help=long)

    text = "what this machine has, and what to do about what it has not"
    doctor = _verb(verbs, "doctor", _doctor, text, "rtseg doctor")
    memory = "instead: how much memory engines take, for each size and number of objects (no PRESET: of all)"
    doctor.add_argument("--memory", nargs="*", metavar="PRESET", help=memory)
    return parser


def _positive(text: str) -> float:
    return _number(float, text, "a number above 0", lambda value: math.isfinite(value) and value > 0)


def _count(text: str) -> int:
    return _number(int, text, "a whole number from 1", lambda value: value >= 1)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(word) for word in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _whole(text: str) -> int:
    return _number(int, text, "a whole number from 0", lambda value: value >= 0)


def _number(kind: Callable[[str], N], text: str, expected: str, fits: Callable[[N], bool]) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
    return value


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], Result], text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text, epilog=f"example: {example}", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    parser.set_defaults(run=run)
    return parser
