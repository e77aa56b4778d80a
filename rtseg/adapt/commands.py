"""The verb `rtseg train`: words of the command line in, a result out. Needs no torch until then."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
AddVerb = Callable[[Any, str, Callable[[argparse.Namespace], Result], str, str], argparse.ArgumentParser]


def add_parsers(verbs: Any, add_verb: AddVerb) -> None:
    """Add `train` to the command line; `add_verb(verbs, name, run, text, example)` makes the parser."""
    example = "rtseg train engines/training/nano.toml --data data --out out/nano"
    parser = add_verb(verbs, "train", _train, "make weights, or go on from given ones; resumes after a stop", example)
    parser.add_argument("config", type=Path, metavar="TRAINING.toml", help="what to train, on what, in which phases")
    parser.add_argument("--data", type=Path, required=True, help="what the paths in the file are relative to")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the log and the weights")
    parser.add_argument("--device", type=_device, default="auto", help="auto (a GPU, if any), cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=_count, help="of the CPU (default: torch's)")


def _train(args: argparse.Namespace) -> Result:
    from .config import read_config
    from .train import train

    return {"out": str(args.out), **train(read_config(args.config), args.data, args.out, args.device, args.threads)}


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda") and not (text.startswith("cuda:") and text[5:].isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}; expected auto, cpu, cuda, or one GPU of several, as cuda:1")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1")
    return int(text)
