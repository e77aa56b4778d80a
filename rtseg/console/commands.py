"""The verb of the console: `rtseg console`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..base.errors import ConfigError
from ..base.verb import Result, Verb, log_to_stderr, option, path, path_or_uri

_SOCKETS = ("tcp://", "ipc://")


def _console(args: argparse.Namespace) -> Result:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as e:
        raise ConfigError(f"{e.name} is not installed; run: pip install 'rtseg[console]'") from e
    from .serve import Place, parse_bind, serve

    host, port = parse_bind(args.bind)
    place = Place(host, port, args.token, args.tls_cert, args.tls_key, tuple(args.host))
    place.check()
    log_to_stderr()
    return serve(_feeds(args), place)


def _feeds(args: argparse.Namespace) -> list[Any]:
    from .feed_link import Address, FeedLink, control_of

    sources, control = args.sources, args.control
    if len(sources) == 1 and "://" not in sources[0]:
        from ..engine.recipe import load_recipe
        from .recording_feed import RecordingFeed

        return [RecordingFeed(sources[0], load_recipe(args.engine), args.session)]
    if args.session or args.engine:
        raise ConfigError("--session and --engine are for a recording; a feed's profile names its own engine")
    if not all(source.startswith(_SOCKETS) for source in sources):
        raise ConfigError(f"{sources[0]!r:.80}: expected one recording, or addresses like tcp://127.0.0.1:5555")
    if control and len(control) != len(sources):
        raise ConfigError(f"{len(control)} --control for {len(sources)} feeds; expected one for each, in their order")
    if len(set(sources)) < len(sources):
        raise ConfigError("an address is given twice; expected each feed once")
    controls: Sequence[str | None] = control or [control_of(source) for source in sources]
    return [
        FeedLink(_name(source), Address(source, each, args.keys, args.server_key))
        for source, each in zip(sources, controls, strict=True)
    ]


def _name(source: str) -> str:
    """A feed's name in messages: host and port, or the file of a socket."""
    return source.partition("://")[2].rpartition("/")[2]


CONSOLE = Verb(
    "console",
    "a page in a browser: pictures, masks, and the hand that points",
    example="rtseg console tcp://127.0.0.1:5555",
    run=_console,
    options=(
        option("sources", nargs="+", metavar="SOURCE", help="addresses of feeds, or one recording"),
        option("--engine", type=path, metavar="RECIPE.toml", help="of a recording; without it, nano on the CPU"),
        option("--session", type=path, metavar="FOLDER", help="of a recording (default: NAME.rtseg beside it)"),
        option(
            "--control",
            action="append",
            default=[],
            metavar="tcp://HOST:PORT",
            help="control socket of each feed, in their order; without it, the port after that of the feed",
        ),
        option("--bind", default="127.0.0.1:8080", metavar="HOST:PORT", help="(default: 127.0.0.1:8080)"),
        option("--token", type=path, metavar="FILE", help="who may come: lines like: pointer TOKEN NAME"),
        option("--tls-cert", type=path, metavar="FILE", help="certificate, PEM, for https"),
        option("--tls-key", type=path, metavar="FILE", help="its private key, PEM"),
        option(
            "--host",
            action="append",
            default=[],
            metavar="NAME",
            help="another name under which the page is called, such as a reverse proxy's",
        ),
        option("--keys", type=path, help="our key, for feeds that ask for one: a folder, or a .key_secret"),
        option(
            "--server-key", type=path_or_uri, metavar="KEY", help="the feeds' public key, or its file; else server.key"
        ),
    ),
)

VERBS = (CONSOLE,)
