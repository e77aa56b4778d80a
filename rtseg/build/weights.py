"""`rtseg weights`: the published weights as a result for the terminal, fetching them, and what a file is."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..base.cache import cache_root
from ..base.documents import is_file
from ..base.terminal import bytes_bar
from ..base.verb import Result, UsageError
from ..engine import find_weights
from ..engine.catalogue import fetch, find_cached, read_table, take_file


def list_weights() -> Result:
    """All published weights: what each is, and its file if it is here."""
    table = read_table()
    rows = []
    for entry in table.entries.values():
        path = find_cached(entry.name)
        must = table.licence_of(entry).accept
        rows.append({**asdict(entry), "accept_licence": must, "path": None if path is None else str(path)})
    licences = {name: asdict(licence) for name, licence in table.licences.items()}
    return {
        "weights": rows,
        "licences": licences,
        "*": "this licence has to be accepted: rtseg weights get NAME --accept-licence LICENCE",
        "kept in": str(cache_root() / "weights"),
    }


def get_weights(name: str, source: Path | None, accepted: str, force: bool) -> Result:
    """Fetch the weights of this name, or take the file `source` as them."""
    if source is not None and force:
        raise UsageError("--from and --force: nothing is fetched with --from; expected one of them")
    if source is not None:
        path = take_file(name, source, accepted=accepted, note=_say)
    else:
        with bytes_bar(name) as progress:
            path = fetch(name, accepted=accepted, force=force, note=_say, progress=progress)
    return {"ok": True, "name": name, "path": str(path), "bytes": path.stat().st_size}


def check_weights(file: Path) -> Result:
    """What network a file of weights is of, and which of the published ones it is. A name is that of a cached file."""
    from ..engine.runtimes import torch_for

    torch_for("rtseg weights check")
    from ..engine.catalogue.recognise import recognise

    if not is_file(file) and str(file) in read_table().entries:
        file = find_weights(str(file))
    found = recognise(file)
    return {
        "ok": True,
        "file": str(file),
        "network": " or ".join(found.presets),
        "published": found.name or "none of those that rtseg knows",
        "tensors": found.tensors,
        "parameters": found.parameters,
        "sha256": found.sha256,
    }


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may be listening on stderr
        print(f"rtseg weights: {line}", file=sys.stderr, flush=True)
