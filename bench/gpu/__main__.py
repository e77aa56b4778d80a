"""What an NVIDIA GPU gives: one command, eight minutes at most, one JSON and a table.

    python -m bench.gpu                   # correctness, speed, transformers, limits; goes on where the last run stopped
    python -m bench.gpu --fresh           # from the beginning
    python -m bench.gpu --device cpu      # all that is not a GPU's own, on a tiny network, anywhere

Needs torch, numpy, OpenCV, msgspec, psutil and a checkout. Each part runs in a process of its own, has a share of the
time, and is in the JSON as soon as it is done ($OUT/gpu.json, or --json). What there was no time for, and what crashed,
is for the next run, which takes the rest as it is if commit, sources, machine and versions are the same. Ends with 1
where something is wrong, and 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.gpu.child import run, write_json
from bench.gpu.parts import CASES, SPARE, TINY, Job, Part, parts
from bench.gpu.table import table
from bench.roofline import a_case
from rtseg.base.hardware.facts import commit

ROOT = Path(__file__).parents[2]
SCHEMA = 1
MINUTES, MOST_MINUTES = 8.0, 600
ENDED = ("done", "absent")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--cases", nargs="+", type=a_case, metavar="PRESET:SIZE", help="the first is looked at most closely"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that the whole run may take")
    parser.add_argument("--only", default="", help="parts whose name holds this, and `machine`")
    parser.add_argument("--fresh", action="store_true", help="take nothing from an earlier run")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", "out")) / "gpu.json")
    args = parser.parse_args(argv)
    if args.device == "cpu" and args.cases:
        parser.error(f"--cases is for a GPU; on a CPU all parts run on {TINY}")
    if not 0 < args.minutes <= MOST_MINUTES:
        parser.error(f"--minutes {args.minutes}; expected more than 0, {MOST_MINUTES} at most")
    args.cases = args.cases or list(CASES)
    names = [p.name for p in parts(args.device, tuple(args.cases))]
    if not any(args.only in name for name in names):
        parser.error(f"--only {args.only!r}: no part is called so; there are: {', '.join(names)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is left of the parts, write each result, print the table."""
    args = arguments(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print(f"bench.gpu: stopped; what was done is in {args.json}, and the next run goes on there", file=sys.stderr)
        return 130
    except OSError as e:
        if e.filename is None or not str(e.filename).startswith(str(args.json.parent)):
            raise
        print(f"bench.gpu: {args.json}: cannot be written ({e.strerror}); name another file: --json", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    start = time.monotonic()
    end = start + 60 * args.minutes
    seed = int.from_bytes(os.urandom(4), "little")  # fresh numbers in each run; it is in the results
    todo = [p for p in parts(args.device, tuple(args.cases)) if p.name == "machine" or args.only in p.name]
    first = run(partial(_work, todo[0], args.device, seed, end), end - start)
    found = first["result"] or {}
    if not found.get("ok"):
        why = found.get("missing") or " | ".join(first.get("last", []))
        print(f"bench.gpu: {why}", file=sys.stderr)
        return 2
    document = _begun(args, found, seed)
    document["parts"]["machine"] = first
    write_json(args.json, document)  # minutes before there is something to lose
    for part in _in_order(todo[1:], document["parts"]):
        left = end - time.monotonic()
        if left < part.least_s:
            document["parts"].setdefault(part.name, {"status": "left", "seconds": 0, "result": None})
        else:
            seconds = min(part.share_s, left)
            print(f"bench.gpu: {part.name}: {seconds:.0f} s at most, {left:.0f} s left", file=sys.stderr, flush=True)
            until = time.monotonic() + SPARE * seconds
            document["parts"][part.name] = run(partial(_work, part, args.device, seed, until), seconds)
        _judge(document, todo)
        write_json(args.json, document)
    _judge(document, todo)
    write_json(args.json, document)
    print(table(document), flush=True)
    print(f"\n{args.json}: {time.monotonic() - start:.0f} s", flush=True)
    return 1 if document["wrong"] else 0


def _work(part: Part, device: str, seed: int, deadline: float, note: Any) -> dict[str, Any]:
    return part.work(Job(device, seed, deadline, note))


def _begun(args: argparse.Namespace, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """The document of an earlier run of the same thing, or a new one."""
    key = {
        "schema": SCHEMA, "commit": commit(), "sources": sources(), "device": args.device, "cases": list(args.cases),
        "machine": {k: v for k, v in found["facts"].items() if k in ("cpu", "cores", "gpu", "system")},
        "versions": found["versions"], "driver": found.get("smi", {}).get("driver_version"),
    }  # fmt: skip
    new = {"key": key, "seed": seed, "runs": 0, "parts": {}}
    document = new
    if not args.fresh and args.json.is_file():
        try:
            before = json.loads(args.json.read_text("utf-8"))
        except ValueError:
            before = {}
        if before.get("key") == key:
            document = before
        else:
            differs = [k for k in key if before.get("key", {}).get(k) != key[k]]
            print(f"bench.gpu: {args.json} is of another {', '.join(differs)}; begins anew", file=sys.stderr)
    document["runs"] += 1
    document["taken_at"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return document


def sources() -> str:
    """A hash of all code that runs: a commit does not say what was changed since."""
    digest = hashlib.sha256()
    for folder in ("rtseg", "bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cu", ".cpp", ".h") and path.is_file():
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _in_order(todo: Sequence[Part], known: dict[str, Any]) -> list[Part]:
    """What has not ended well: first what was never begun, then what was."""
    open_parts = [p for p in todo if known.get(p.name, {}).get("status") not in ENDED]
    return sorted(open_parts, key=lambda p: known.get(p.name, {}).get("status", "left") != "left")


def _judge(document: dict[str, Any], todo: Sequence[Part]) -> None:
    """Whether it is right so far, and what is wrong: a time says nothing of an engine that is not."""
    known = document["parts"]
    names = {p.name for p in todo if p.judges}
    failed = [n for n in known if (known[n]["result"] or {}).get("ok") is False]
    crashed = [n for n in known if known[n]["status"] == "crashed"]
    document["incorrect"] = [n for n in known if n in names and n in (*failed, *crashed)]
    document["unproved"] = [n for n in names if known.get(n, {}).get("status") not in ("done", "crashed")]
    document["wrong"] = sorted({*failed, *crashed})
    document["left"] = [
        p.name for p in todo if known.get(p.name, {}).get("status", "left") in ("left", "partial", "timeout")
    ]


if __name__ == "__main__":
    sys.exit(main())
