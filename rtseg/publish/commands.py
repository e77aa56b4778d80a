"""The verbs for published and recorded feeds: `rtseg view`, `verify` and `keys`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.verb import Result, Verb, option, path, path_or_uri, positive, whole


def _view(args: argparse.Namespace) -> Result:
    from .viewer import view

    names = ("headless", "save", "seconds", "frames", "keys", "server_key")
    return view(args.address, **{name: getattr(args, name) for name in names})


def _verify(args: argparse.Namespace) -> Result:
    from .verify import verify

    return verify(args.folder)


def _new_key(args: argparse.Namespace) -> Result:
    from .keys import new

    return new(args.folder, args.name)


def _allow_key(args: argparse.Namespace) -> Result:
    from .keys import allow

    return allow(args.folder, args.name)


def _list_keys(args: argparse.Namespace) -> Result:
    from .keys import list_keys

    return list_keys(args.folder)


VIEW = Verb(
    "view",
    "a display: the overlay of a feed",
    example="rtseg view tcp://127.0.0.1:5555",
    run=_view,
    options=(
        option("address", nargs="?", default="tcp://127.0.0.1:5555", help="where the feed is published"),
        option("--headless", action="store_true", help="no window: only count the pictures"),
        option("--save", type=path, metavar="FOLDER", help="write each picture as a PNG"),
        option("--seconds", type=positive, help="stop after so long; without it, at Esc, q or Ctrl-C"),
        option("--frames", type=whole(1), help="stop after so many pictures"),
        option("--keys", type=path, help="our key, for a feed that asks for one: a folder, or a .key_secret"),
        option(
            "--server-key", type=path_or_uri, metavar="KEY", help="the feed's public key, or its file; else server.key"
        ),
    ),
)

VERIFY = Verb(
    "verify",
    "verify that a recording is unchanged: its log, and its pictures",
    example="rtseg verify recordings/room1-20260101-090000",
    run=_verify,
    options=(option("folder", type=path, help="of one run"),),
)

_FOLDER = option("--folder", type=path, default=Path("keys"), help="where the keys are (default: keys)")
KEYS = Verb(
    "keys",
    "CURVE keys, for feeds that leave this machine; deleting FOLDER/allowed/NAME.key shuts NAME out",
    example="rtseg keys new server; rtseg keys new anna; rtseg keys allow anna",
    run=_list_keys,
    placeholder="WHAT",
    requests=(
        Verb(
            "new",
            "make a pair of keys",
            example="rtseg keys new server",
            run=_new_key,
            options=(option("name", help="server, or whose key it is"), _FOLDER),
        ),
        Verb(
            "allow",
            "add a key to the allow list",
            example="rtseg keys allow anna.key",
            run=_allow_key,
            options=(
                option("name", metavar="NAME|FILE.key", help="one of this folder's keys, or a file from elsewhere"),
                _FOLDER,
            ),
        ),
        Verb("list", "list the keys", example="rtseg keys list", run=_list_keys, options=(_FOLDER,)),
    ),
)

VERBS = (VIEW, VERIFY, KEYS)
