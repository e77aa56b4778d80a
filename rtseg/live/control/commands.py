"""The verbs `rtseg ctl` and `rtseg keys`: words of the command line in, a result out. Needs no ZeroMQ until then."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...base.errors import PromptError, RtsegError

Result = dict[str, Any]
AddVerb = Callable[[Any, str, Callable[[argparse.Namespace], Result], str, str], argparse.ArgumentParser]

_ADDRESS = "tcp://127.0.0.1:5556"


def add_parsers(verbs: Any, add_verb: AddVerb) -> None:
    """Add `ctl` and `keys` to the command line; `add_verb(verbs, name, run, text, example)` makes each parser."""
    _add_ctl(verbs, add_verb)
    _add_keys(verbs, add_verb)


def ctl(args: argparse.Namespace) -> Result:
    """Send one request to a running feed, and return its answer."""
    from .client import Client

    with Client(args.address, args.timeout, args.keys, args.server_key) as client:
        if args.request in ("add", "correct"):
            result = getattr(client, args.request)(*_pointed(args), label=args.label, seq=args.seq)
        elif args.request == "snapshot":
            result = _snapshot(client.snapshot(args.seq), args.out)
        else:
            names = {"remove": ("id",), "rename": ("id", "label"), "set": ("opacity", "budget_ms")}
            words = (getattr(args, name) for name in names.get(args.request, ()))
            result = getattr(client, args.request)(*words)
    return {"done": args.request, **result}


def _pointed(args: argparse.Namespace) -> tuple[Any, ...]:
    from ...base.prompt_files import read_mask

    where = f"prompt for object {args.id}"
    if args.value is not None and args.mask is None:
        raise PromptError(f"{where}: found a value without a mask; expected the mask image that it picks from")
    points = [(*point, 1) for point in args.point] + [(*point, 0) for point in args.background]
    mask_hw = None if args.mask is None else read_mask(args.mask, where, value=args.value)
    return args.id, points, args.box, mask_hw


def _snapshot(found: Any, out: Path) -> Result:
    from ...base.files import atomic_path

    with atomic_path(out) as part:
        part.write_bytes(found.png)
    objects = {f"object {thing['id']}": str(thing["label"]) for thing in found.objects}
    return {"file": str(out), "seq": found.seq, "mask_seq": found.mask_seq, **objects}


def _add_ctl(verbs: Any, add_verb: AddVerb) -> None:
    example = "rtseg ctl add 3 --point 412,260 --label grasper"
    parser = add_verb(verbs, "ctl", ctl, "ask something of a running feed: add, correct, pause, snapshot, ...", example)
    inner = parser.add_subparsers(dest="request", required=True, metavar="REQUEST")

    def verb(name: str, text: str, example: str = "") -> argparse.ArgumentParser:
        one = add_verb(inner, name, ctl, text, f"rtseg ctl {name} {example}".rstrip())
        one.add_argument("--address", default=_ADDRESS, help=f"of the feed's [control] (default: {_ADDRESS})")
        one.add_argument("--timeout", type=_positive, default=5.0, metavar="S", help="seconds to wait for the answer")
        one.add_argument("--keys", type=Path, help="our key, for a feed that asks for one: a folder, or a .key_secret")
        one.add_argument("--server-key", metavar="KEY", help="the feed's public key, or its file; else server.key")
        return one

    for name, text in (("add", "follow a new object"), ("correct", "say more about an object that is followed")):
        prompt = verb(name, text, "3 --point 412,260 --label grasper --seq 120")
        prompt.add_argument("id", type=int, help="of the object, 1 to 255")
        prompt.add_argument("--point", type=_pair, action="append", default=[], metavar="X,Y", help="on the object")
        prompt.add_argument("--background", type=_pair, action="append", default=[], metavar="X,Y", help="not on it")
        prompt.add_argument("--box", type=_box, metavar="X0,Y0,X1,Y1", help="around it")
        prompt.add_argument("--mask", type=Path, metavar="FILE", help="a picture that is white where it is")
        prompt.add_argument("--value", type=_value, metavar="N|R,G,B", help="which of a mask's objects, or colours")
        prompt.add_argument("--label", help="what it is called")
        prompt.add_argument("--seq", type=int, help="the frame pointed at; without it, the newest")
    verb("remove", "forget an object", "3").add_argument("id", type=int)
    rename = verb("rename", "give an object another label", "3 hook")
    rename.add_argument("id", type=int)
    rename.add_argument("label")
    snapshot = verb("snapshot", "the original picture as PNG", "out.png")
    snapshot.add_argument("out", type=Path, metavar="OUT.png")
    snapshot.add_argument("--seq", type=int, help="of which frame; without it, of the newest")
    change = verb("set", "how masks are drawn", "--opacity 0.5")
    change.add_argument("--opacity", type=float, help="0 to 1")
    change.add_argument("--budget-ms", type=float, help="how old a mask may be, 1 to 10000")
    for name, text in (
        ("reset", "forget all objects"),
        ("pause", "let the network rest; the picture goes on"),
        ("resume", "let the network work again"),
        ("get", "what can be set, as it is"),
        ("status", "how the feed is"),
        ("shutdown", "end the feed"),
    ):
        verb(name, text)


def _add_keys(verbs: Any, add_verb: AddVerb) -> None:
    text = "CURVE keys, for feeds that leave this machine; deleting FOLDER/allowed/NAME.key shuts NAME out"
    parser = add_verb(verbs, "keys", _list, text, "rtseg keys new server; rtseg keys new anna; rtseg keys allow anna")
    inner = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    make = add_verb(inner, "new", _new, "make a pair of keys", "rtseg keys new server")
    make.add_argument("name", help="server, or whose key it is")
    let_in = add_verb(inner, "allow", _allow, "let a key in", "rtseg keys allow anna.key")
    let_in.add_argument("name", metavar="NAME|FILE.key", help="one of this folder's keys, or a file from elsewhere")
    show = add_verb(inner, "list", _list, "which keys there are", "rtseg keys list")
    for one in (make, let_in, show):
        one.add_argument("--folder", type=Path, default=Path("keys"), help="where the keys are (default: keys)")


def _new(args: argparse.Namespace) -> Result:
    from ...publish.keys import new

    return new(args.folder, args.name)


def _allow(args: argparse.Namespace) -> Result:
    from ...publish.keys import allow

    return allow(args.folder, args.name)


def _list(args: argparse.Namespace) -> Result:
    from ...publish.keys import list_keys

    return list_keys(args.folder)


def _pair(text: str) -> tuple[float, float]:
    x, y = _numbers(text, 2, "two numbers: X,Y")
    return x, y


def _box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers(text, 4, "four numbers: X0,Y0,X1,Y1")
    return x0, y0, x1, y1


def _numbers(text: str, count: int, expected: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
    return found


def _value(text: str) -> int | tuple[int, ...]:
    from ...base.prompt_files import picked

    numbers = _numbers(text, 1 + text.count(","), "the number of an object, or a colour R,G,B")
    try:
        return picked(numbers[0] if len(numbers) == 1 else numbers, "--value")
    except RtsegError as e:
        raise argparse.ArgumentTypeError(str(e).split(": ", 1)[1]) from e


def _positive(text: str) -> float:
    (value,) = _numbers(text, 1, "a number above 0")
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")
    return value
