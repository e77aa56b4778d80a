"""What a result depends on: two runs for which this is equal give the same result, and only these are ever mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..base.errors import RtsegError
from ..build.doctor import versions
from ..engine.weights import find_weights, hash_weights
from .check import hash_of
from .deidentify.names import Names
from .request import Request
from .segments import HEAD


def identity_of(request: Request) -> dict[str, Any] | None:
    """What the result of a run depends on, in plain values; None for a source that cannot be read twice."""
    sources = [_source(uri) for uri in request.uris]
    if request.steps is not None or None in sources:
        return None
    recipe = {key: value for key, value in asdict(request.recipe).items() if key != "path"}
    try:
        weights: str | None = hash_weights(request.recipe.weights, find_weights(request.recipe.weights))
    except (RtsegError, OSError):
        weights = None  # opening the engine says what is wrong
    found = {
        "rtseg": versions()["rtseg"],
        "sources": sources,
        "reading": asdict(request.reading),
        "tracking": asdict(request.tracking),
        "prompts": hash_of(request.prompts),
        "recipe": recipe,
        "weights": weights,
        "frames": request.frames,
    }
    if request.deidentify:
        found = Names(request.uris).hidden({**found, "deidentify": request.deidentify})
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """What differs, in a few words; "" if nothing does."""
    for key in sorted({*one, *other}):
        before, after = one.get(key), other.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            return f"{key}: {difference(before, after)}"
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            changed = next((a, b) for a, b in zip(before, after, strict=True) if a != b)
            return f"{key}: {difference(*changed)}" if isinstance(changed[0], dict) else f"{key} differ"
        return f"{key} was {_shown(before)}, and is {_shown(after)}"
    return ""


def _shown(value: object) -> str:
    return f"{str(value)[:8]}..." if isinstance(value, str) and len(value) == 64 else f"{value}"[:60]


def _source(uri: str) -> dict[str, Any] | None:
    """What tells a source from another of the same name; None if it may be another one each time that it is read."""
    if uri.startswith("synthetic:"):
        return {"uri": uri}
    path = Path(uri)
    try:
        if path.is_file():
            stat = path.stat()
            with path.open("rb") as file:
                head = sha256(file.read(HEAD)).hexdigest()
            return {"uri": uri, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns, "head_sha256": head}
        if path.is_dir():
            return {"uri": uri, "names_sha256": _listing(path)}
    except (OSError, ValueError):  # a uri that is no path
        return None
    return None


def _listing(folder: Path) -> str:
    """The hash of the names, sizes and times of the files in a folder."""
    with os.scandir(folder) as entries:
        found: Sequence[tuple[str, int, int]] = sorted(
            (each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in entries if each.is_file()
        )
    return sha256(repr(found).encode("utf-8", "surrogateescape")).hexdigest()
