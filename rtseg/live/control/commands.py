"""The verb that controls a running feed: `rtseg ctl`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ...base.errors import PromptError, RtsegError
from ...base.verb import Option, Result, Verb, numbers, option, path, path_or_uri, positive

_ADDRESS = "tcp://127.0.0.1:5556"
_numbers_of_value = numbers(None, "the number of an object, or a colour R,G,B")


def _ctl(args: argparse.Namespace) -> Result:
    """Send one request to a running feed, and return its answer."""
    from .client import Client

    with Client(args.address, args.timeout, args.keys, args.server_key, args.who) as client:
        if args.request in ("add", "correct"):
            result = getattr(client, args.request)(*_pointed(args), label=args.label, seq=args.seq)
        elif args.request == "preview":
            result = _preview(client.preview(*_pointed(args), seq=args.seq), args.out)
        elif args.request == "memory":
            result = {f"object {bank['id']}": _memory(bank) for bank in client.memory()}
        elif args.request == "snapshot":
            result = _snapshot(client.snapshot(args.seq), args.out)
        else:
            names = {"remove": ("id",), "rename": ("id", "label"), "set": ("opacity", "budget_ms")}
            names |= {"look": ("id", "color", "hidden")}
            words = (getattr(args, name) for name in names.get(args.request, ()))
            result = getattr(client, args.request)(*words)
    return {"done": args.request, **result}


def _pointed(args: argparse.Namespace) -> tuple[int, Any, Any, Any]:
    from ...base.prompt_files import read_mask

    where = f"prompt for object {args.id}"
    if args.value is not None and args.mask is None:
        raise PromptError(f"{where}: found a value without a mask; expected the mask image that it picks from")
    points = [(*point, 1) for point in args.point] + [(*point, 0) for point in args.background]
    mask_hw = None if args.mask is None else read_mask(args.mask, where, value=args.value)
    return args.id, points, args.box, mask_hw


def _memory(bank: dict[str, Any]) -> Result:
    """A bank in words: frame by frame what it holds, and why the latest ones left."""
    held = {}
    for one in bank["memories"]:
        kind = "prompted, " if one["conditioning"] else "pinned, " if one["pinned"] else ""
        figures = f"score {one['score']:.2f}, IoU {one['iou']:.2f}, similarity {one['similarity']:.2f}"
        held[f"frame {one['seq']}"] = f"{kind}{figures}"
    gone = {f"frame {one['seq']} left": one["why"] for one in bank["dropped"]}
    return {**held, **gone, "pointers": bank["pointers"]}


def _snapshot(found: Any, out: Path) -> Result:
    from ...base.files import atomic_path

    with atomic_path(out) as part:
        part.write_bytes(found.png)
    objects = {f"object {thing['id']}": str(thing["label"]) for thing in found.objects}
    return {"file": str(out), "seq": found.seq, "mask_seq": found.mask_seq, **objects}


def _preview(found: Any, out: Path | None) -> Result:
    from ...base.mask_images import write_palette_png

    if out is not None:
        write_palette_png(out, (found.mask_hw * found.id).astype("uint8"))
    told = {"warnings": list(found.warnings)} if found.warnings else {}
    area = int(found.mask_hw.sum())
    return {"id": found.id, "seq": found.seq, "area": area, "score": found.score, "iou": found.iou, **told}


def _value(text: str) -> int | tuple[int, ...]:
    from ...base.prompt_files import mask_value

    found = _numbers_of_value(text)
    try:
        return mask_value(found[0] if len(found) == 1 else list(found), "--value")
    except RtsegError as e:
        raise argparse.ArgumentTypeError(str(e).split(": ", 1)[1]) from e


_POINT = partial(option, type=numbers(2, "two numbers: X,Y"), action="append", default=[], metavar="X,Y")
_POINTED = (
    option("id", type=int, help="of the object, 1 to 255"),
    _POINT("--point", help="on the object"),
    _POINT("--background", help="not on it"),
    option("--box", type=numbers(4, "four numbers: X0,Y0,X1,Y1"), metavar="X0,Y0,X1,Y1", help="around it"),
    option("--mask", type=path, metavar="FILE", help="a mask image: white on the object"),
    option("--value", type=_value, metavar="N|R,G,B", help="which of a mask's objects, or colours"),
    option("--seq", type=int, help="the frame pointed at; without it, the newest"),
)
_PROMPT = (*_POINTED, option("--label", help="what it is called"))
_LOOK = (
    option("id", type=int),
    option("--color", type=numbers(3, "three numbers: R,G,B"), metavar="R,G,B", help="each 0 to 255"),
    option("--hide", dest="hidden", action="store_true", default=None, help="do not draw it"),
    option("--show", dest="hidden", action="store_false", default=None, help="draw it again"),
)
_PROMPT_EXAMPLE = "3 --point 412,260 --label grasper --seq 120"
_CONNECTION = (
    option("--address", default=_ADDRESS, help=f"of the feed's [control] (default: {_ADDRESS})"),
    option("--timeout", type=positive, default=5.0, metavar="S", help="seconds to wait for the answer"),
    option("--keys", type=path, help="our key, for a feed that requires one: a folder, or a .key_secret"),
    option("--who", help="your name, for the feed's log"),
    option("--server-key", type=path_or_uri, metavar="KEY", help="the feed's public key, or its file; else server.key"),
)


def _request(name: str, text: str, words: str = "", options: tuple[Option, ...] = ()) -> Verb:
    return Verb(name, text, f"rtseg ctl {name} {words}".rstrip(), _ctl, (*_CONNECTION, *options))


CTL = Verb(
    "ctl",
    "control a running feed: add, correct, pause, snapshot, ...",
    example="rtseg ctl add 3 --point 412,260 --label grasper",
    run=_ctl,
    requests=(
        _request("add", "track a new object", _PROMPT_EXAMPLE, _PROMPT),
        _request("correct", "correct a tracked object", _PROMPT_EXAMPLE, _PROMPT),
        _request(
            "preview",
            "the mask that a prompt would give; nothing changes",
            "3 --point 412,260",
            (*_POINTED, option("--out", type=path, metavar="OUT.png", help="where to write the mask")),
        ),
        _request("memory", "what the network remembers of each object"),
        _request("undo", "take the last change of prompts back"),
        _request("redo", "make it again"),
        _request("look", "the colour of an object, and whether it is drawn", "3 --color 0,128,255", _LOOK),
        _request("remove", "forget an object", "3", (option("id", type=int),)),
        _request("rename", "give an object another label", "3 hook", (option("id", type=int), option("label"))),
        _request(
            "snapshot",
            "the original picture as PNG",
            "out.png",
            (
                option("out", type=path, metavar="OUT.png"),
                option("--seq", type=int, help="of which frame; without it, of the newest"),
            ),
        ),
        _request(
            "set",
            "how masks are drawn",
            "--opacity 0.5",
            (
                option("--opacity", type=float, help="0 to 1"),
                option("--budget-ms", type=float, help="how old a mask may be, 1 to 10000"),
            ),
        ),
        _request("reset", "forget all objects"),
        _request("pause", "pause the network; the video continues"),
        _request("resume", "resume the network"),
        _request("get", "show the settings"),
        _request("status", "show the status"),
        _request("shutdown", "end the feed"),
    ),
)
