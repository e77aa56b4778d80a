"""The verb of training: `rtseg train`."""

from __future__ import annotations

import argparse

from ..base.verb import Result, Verb, option, path, whole


def _train(args: argparse.Namespace) -> Result:
    from .config import read_config
    from .train import train

    return {"out": str(args.out), **train(read_config(args.config), args.data, args.out, args.device, args.threads)}


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda") and not (text.startswith("cuda:") and text[5:].isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}; expected auto, cpu, cuda, or one GPU of several, as cuda:1")
    return text


TRAIN = Verb(
    "train",
    "train weights, from scratch or from given ones; resumes after a stop",
    example="rtseg train engines/training/nano.toml --data data --out out/nano",
    run=_train,
    options=(
        option("config", type=path, metavar="TRAINING.toml", help="what to train, on what, in which phases"),
        option("--data", type=path, required=True, help="folder that the paths in the file are relative to"),
        option("--out", type=path, required=True, help="folder for the checkpoint, the log and the weights"),
        option("--device", type=_device, default="auto", help="auto (a GPU, if any), cpu, cuda, cuda:1, ..."),
        option("--threads", type=whole(1), help="of the CPU (default: torch's)"),
    ),
)

VERBS = (TRAIN,)
