"""`rtseg VERB`: parses the command line, runs the verb's function, and shows the result.

Each package with verbs lists them in its `commands.py` as `base.verb.Verb` values, with help, options, example and
function together. This file only collects them, and gives every run an exit code and a last line: 0 success; 2 a
mistake of the user (one line on stderr names it); 1 a failure of rtseg or of the input; 130 Ctrl-C. With `--json` the
last line of stdout is one JSON document, also for an error. Progress goes to stderr.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from . import __version__
from .adapt import commands as adapt
from .base.documents import is_there
from .base.errors import IncompleteError, OutputError, RtsegError
from .base.standard_streams import open_standard_streams
from .base.verb import Parser, Result
from .build import commands as build
from .console import commands as console
from .evaluate import commands as evaluate
from .live import commands as live
from .offline import commands as offline
from .offline.archive import commands as archive
from .publish import commands as publish

VERBS = (
    *live.VERBS, *offline.VERBS, *archive.VERBS, *publish.VERBS,
    *console.VERBS, *build.VERBS, *evaluate.VERBS, *adapt.VERBS,
)  # fmt: skip


def make_parser() -> Parser:
    """The parser of all verbs. Its result has the verb's function as `run`."""
    parser = Parser(
        prog="rtseg",
        description="SAM 2 masks on surgical video, live and offline. For research only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"rtseg {__version__}")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb.add_to(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code. `argv`: the words after `rtseg`; None: those of the process."""
    open_standard_streams()
    argv = [_not_option(word) for word in (sys.argv[1:] if argv is None else argv)]
    as_json = "--json" in argv
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # set before torch starts: its threads share cores with others
    fail = partial(_fail, " ".join(["rtseg", *argv[:1]]), as_json)
    stop_on_signals()
    atexit.register(gc.freeze)  # a last garbage collection over all of torch's objects would take 0.35 s
    try:
        args = make_parser().parse_args(argv)
        result = args.run(args)
        _show(result, as_json)
        if result.get("ok") is False and result.get("why"):  # the last line, as for an error
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


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP, which service managers send, end the verb like Ctrl-C, so that it cleans up."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)


def _not_option(word: str) -> str:
    """A word; if it names an existing file like `-a.mp4`, with `./` in front so that it is not parsed as an option."""
    return f"./{word}" if word.startswith("-") and "." in word and is_there(Path(word)) else word


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
            raise OutputError(f"the result cannot be printed ({e.strerror}); the work itself is done") from e
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
            line = getattr(error, "public", line)  # some texts are only for the terminal, because they show a password
            document = {**(report or {}), "ok": False, "error": line, "kind": type(error).__name__}
            print(json.dumps(document, default=str), flush=True)
    return code
