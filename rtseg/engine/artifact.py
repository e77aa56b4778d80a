"""A built engine: a folder of artifacts, and a sidecar that says what they were made from and where they may run.

    engines/built/NAME/engine.json    the sidecar, written last
    engines/built/NAME/...            whatever the runtime's `make` wrote

An artifact is used only if everything that it depends on is unchanged: recipe, network, weights, our own sources,
libraries and device (identity.py). Otherwise the error names the first thing that differs. An engine that failed its
parity check is not used either, until a build of the same identity succeeds (refusal.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..base.errors import EngineError
from ..base.files import file_sha256
from ..sam2 import Preset
from .identity import changed_source, flat, identity, short, source_digests
from .recipe import Recipe
from .refusal import folder_of, refusal, unusable, was_refused

FORMAT = 2
SIDECAR = "engine.json"
NEEDED = ("tensorrt",)  # runtimes that cannot run without an artifact; others run without one, unchecked

Sidecar = dict[str, Any]


def locate(recipe: Recipe, preset: Preset, weights_hash: str) -> tuple[Path | None, str]:
    """The folder of a settled recipe's built engine, or None; and a note about it, or why there is none, for people.

    Raises `EngineError` if the runtime needs a built engine and has none, and if the engine failed its parity check.
    """
    if recipe.runtime == "torch":
        return None, "the reference; nothing to build"
    # `was_refused` comes first because it is quick; `identity` asks libraries and the machine.
    if was_refused(recipe) and (why := refusal(recipe, identity(recipe, preset, weights_hash))):
        raise EngineError(why)
    try:
        folder = find(recipe, preset, weights_hash)
    except EngineError as e:
        if recipe.runtime in NEEDED:
            raise
        return None, f"not proved here: {e}"
    size = read(folder, recipe).get("image_size", recipe.image_size)
    return folder, "" if size == recipe.image_size else f"proved at {size} px"


def fastest(recipe: Recipe) -> list[Recipe]:
    """The recipe that a build with `runtime = "auto"` found to be the fastest, or none. It may be stale."""
    folder = folder_of(recipe)
    if folder is None or not folder.is_dir():
        return []
    try:
        found = read(folder, recipe)["identity"]["recipe"]
        measured = replace(recipe, runtime=str(found["runtime"]), precision=str(found["precision"]))
    except (EngineError, KeyError, TypeError):
        return []  # `find` reports what is wrong with it
    return [measured] if recipe.precision in ("auto", measured.precision) else []


def find(recipe: Recipe, preset: Preset, weights_hash: str) -> Path:
    """The folder of a settled recipe's built engine. `EngineError` if it is missing, damaged, stale or foreign."""
    folder = folder_of(recipe)
    if folder is None:
        raise EngineError(
            "no engine is built for a recipe without a file; write it to NAME.toml: rtseg build NAME.toml"
        )
    read(folder, recipe)
    expected = identity(recipe, preset, weights_hash)
    before = stamp(folder)
    while True:
        try:
            check(folder, expected, recipe)
            return folder
        except EngineError:
            # A build may have replaced the folder while it was read, so that old and new files were compared.
            now = stamp(folder)
            if now == before:
                raise
            before = now


def check(folder: Path, expected: Sidecar, recipe: Recipe) -> Sidecar:
    """The sidecar of a folder. Raises `EngineError` if an artifact is damaged or the identity is not as expected."""
    found = read(folder, recipe)
    built_with = dict(flat(found["identity"]))
    for name, value in flat(expected):
        if built_with.get(name) != value:
            was = short(built_with.get(name, "unknown"))
            raise unusable(recipe, folder, f"built with {name} = {was}; expected {short(value)}")
    if changed := changed_source(found["sources"], recipe.runtime):
        raise unusable(recipe, folder, f"built with {changed}")
    for name, digest in found["files"].items():
        path = folder / name
        try:
            actual = file_sha256(path)
        except OSError as e:
            raise unusable(recipe, path, f"cannot be read ({e.strerror}); expected what rtseg build wrote") from e
        if actual != digest:
            raise unusable(recipe, path, f"damaged or edited: sha256 {short(actual)}; expected {short(digest)}")
    return found


def read(folder: Path, recipe: Recipe) -> Sidecar:
    """The sidecar of a folder. Raises `EngineError` if it is missing, damaged or of another format."""
    path = folder / SIDECAR
    if not folder.exists():
        raise unusable(recipe, folder, "not built yet")
    try:
        sidecar = json.loads(path.read_text("utf-8"))
        seal = sidecar.pop("seal")
        format_ = sidecar["format"]
        _ = [dict(sidecar[name]) for name in ("identity", "files", "sources") if format_ == FORMAT]
    except OSError as e:
        raise unusable(recipe, path, f"cannot be read ({e.strerror}); expected what rtseg build wrote") from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise unusable(recipe, path, "truncated or edited; expected what rtseg build wrote") from e
    if format_ != FORMAT:
        raise unusable(recipe, path, f"of another version of rtseg (format {format_}; expected {FORMAT})")
    if seal != _seal(sidecar):
        raise unusable(recipe, path, "truncated or edited; expected what rtseg build wrote")
    return dict(sidecar)


def write(folder: Path, expected: Sidecar, facts: Sidecar) -> Sidecar:
    """Write and return the sidecar of a folder with artifacts; `facts` (parity, timings, ...) are for people."""
    files = {str(p.relative_to(folder)): file_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    sources = source_digests(expected["recipe"]["runtime"])
    values = {"format": FORMAT, "identity": expected, "sources": sources, "files": files, "when": when, **facts}
    sidecar: Sidecar = json.loads(json.dumps(values, default=str))
    sealed = {**sidecar, "seal": _seal(sidecar)}
    (folder / SIDECAR).write_text(json.dumps(sealed, indent=2) + "\n", "utf-8")
    return sidecar


def stamp(folder: Path | None) -> tuple[int, int] | None:
    """What identifies the sidecar that is in a folder now; None if there is none. It changes with every build."""
    if folder is None:
        return None
    try:
        found = (folder / SIDECAR).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _seal(sidecar: Sidecar) -> str:
    return hashlib.sha256(json.dumps(sidecar, sort_keys=True).encode()).hexdigest()
