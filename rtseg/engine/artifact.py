"""A built engine: a folder of artifacts, and a sidecar that says what they were made from and where they may run.

    engines/built/NAME/engine.json    the sidecar, written last
    engines/built/NAME/...            whatever the runtime's `make` wrote
    engines/built/.NAME.refused       the last build's proof failed: what it was of, and why

An artifact is run only where everything that it depends on is what it was: recipe, network, weights, our own sources,
libraries and device. Else it is refused, in one line that names the first thing that differs. What a proof has found
to be wrong is not run either, until a build of the same succeeds.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.errors import EngineError
from ..base.files import file_sha256
from ..base.hardware.cpu import cpu_flags, cpu_model
from ..base.hardware.gpu import gpu_identity
from ..sam2 import Preset, get_preset
from .recipe import Recipe
from .runtimes import ON_GPU, device_of, family, where
from .sources import sources_hash, sources_of

FORMAT = 2
SIDECAR = "engine.json"
NEEDED = ("tensorrt",)  # runtimes that cannot run without an artifact; the others only gain from one
FIXED_SHAPES = ("tensorrt", "cuda")  # runtimes whose plans or graphs hold one bank size and number of objects
# What a runtime's artifacts are made by; the others', by torch alone.
LIBRARIES = {"tensorrt": ("torch", "tensorrt"), "onnx": ("onnxruntime",)}

Sidecar = dict[str, Any]


def folder_of(recipe: Recipe) -> Path | None:
    """Where the engine of a recipe file is installed; None for a recipe that is in no file."""
    return recipe.path and recipe.path.parent / "built" / recipe.path.stem


def locate(recipe: Recipe, preset: Preset, weights_hash: str) -> tuple[Path | None, str]:
    """The built engine of a settled recipe, or None; and what a person should know of it, or why there is none.

    `EngineError` instead for a runtime that cannot do without, and for an engine whose proof failed.
    """
    if recipe.runtime == "torch":
        return None, "the reference; nothing to build"
    # What an identity asks of libraries and the machine takes longer than to see that there is nothing.
    if _was_refused(recipe) and (why := refusal(recipe, identity(recipe, preset, weights_hash))):
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
    """What a build of a recipe with `runtime = "auto"` found to be the fastest, if anything; it may be stale."""
    folder = folder_of(recipe)
    if folder is None or not folder.is_dir():
        return []
    try:
        found = read(folder, recipe)["identity"]["recipe"]
        measured = replace(recipe, runtime=str(found["runtime"]), precision=str(found["precision"]))
    except (EngineError, KeyError, TypeError):
        return []  # what is wrong with it is said when an engine is looked for there
    return [measured] if recipe.precision in ("auto", measured.precision) else []


def find(recipe: Recipe, preset: Preset, weights_hash: str) -> Path:
    """The folder of the built engine of a settled recipe; `EngineError` if it is missing, damaged, stale or foreign."""
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
            # A build may have replaced the folder while it was read: then what differs is old beside new.
            now = stamp(folder)
            if now == before:
                raise
            before = now


def refuse(folder: Path, part: Path, expected: Sidecar, reason: str) -> None:
    """Record that an engine of this identity was made for `folder` and failed its proof; in one step, by way of `part`.

    An engine of the same identity that lies in `folder` is not run either: two that were made alike and judged
    differently are not to be trusted.
    """
    record = part / "refused.json"
    values = {"identity": expected, "sources": _sources(expected["recipe"]["runtime"]), "reason": reason}
    record.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    record.replace(_record(folder))


def forgive(folder: Path) -> None:
    """A build has succeeded: no refusal stands."""
    _record(folder).unlink(missing_ok=True)


def refusal(recipe: Recipe, expected: Sidecar) -> str:
    """One line on why the engine of this identity was refused when it was built; empty if it was not."""
    folder = folder_of(recipe)
    if folder is None or not _was_refused(recipe):
        return ""
    try:
        record = json.loads(_record(folder).read_text("utf-8"))
        known, reason = dict(record["identity"]), str(record["reason"])
        if "sources" not in record:
            return ""  # of an earlier rtseg, whose sources were others
        sources = dict(record["sources"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        return str(_refused(recipe, _record(folder), f"cannot be read ({type(e).__name__}): a build was refused"))
    if dict(_flat(known)) != dict(_flat(expected)) or _changed(sources, recipe.runtime):
        return ""
    way_out = 'take runtime = "torch", or once it is repaired'
    return str(_refused(recipe, folder, f"refused by the gate ({reason}); {way_out}"))


def _was_refused(recipe: Recipe) -> bool:
    folder = folder_of(recipe)
    return folder is not None and _record(folder).is_file()


def _record(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.refused")


def check(folder: Path, expected: Sidecar, recipe: Recipe) -> Sidecar:
    """The sidecar of a folder whose artifacts are whole and whose identity is the expected one."""
    found = read(folder, recipe)
    built_with = dict(_flat(found["identity"]))
    for name, value in _flat(expected):
        if built_with.get(name) != value:
            was = _short(built_with.get(name, "unknown"))
            raise _refused(recipe, folder, f"built with {name} = {was}; expected {_short(value)}")
    if changed := _changed(found["sources"], recipe.runtime):
        raise _refused(recipe, folder, f"built with {changed}")
    for name, digest in found["files"].items():
        path = folder / name
        try:
            actual = file_sha256(path)
        except OSError as e:
            raise _refused(recipe, path, f"cannot be read ({e.strerror}); expected what rtseg build wrote") from e
        if actual != digest:
            raise _refused(recipe, path, f"damaged or edited: sha256 {_short(actual)}; expected {_short(digest)}")
    return found


def read(folder: Path, recipe: Recipe) -> Sidecar:
    """The sidecar of a folder, once it is known to be whole."""
    path = folder / SIDECAR
    if not folder.exists():
        raise _refused(recipe, folder, "not built yet")
    try:
        sidecar = json.loads(path.read_text("utf-8"))
        seal = sidecar.pop("seal")
        format_ = sidecar["format"]
        _ = [dict(sidecar[name]) for name in ("identity", "files", "sources") if format_ == FORMAT]
    except OSError as e:
        raise _refused(recipe, path, f"cannot be read ({e.strerror}); expected what rtseg build wrote") from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise _refused(recipe, path, "truncated or edited; expected what rtseg build wrote") from e
    if format_ != FORMAT:
        raise _refused(recipe, path, f"of another version of rtseg (format {format_}; expected {FORMAT})")
    if seal != _seal(sidecar):
        raise _refused(recipe, path, "truncated or edited; expected what rtseg build wrote")
    return dict(sidecar)


def write(folder: Path, expected: Sidecar, facts: Sidecar) -> Sidecar:
    """Write the sidecar of a folder that holds its artifacts; `facts` (parity, timings, compiler...) are for people."""
    files = {str(p.relative_to(folder)): file_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    sources = _sources(expected["recipe"]["runtime"])
    values = {"format": FORMAT, "identity": expected, "sources": sources, "files": files, "when": when, **facts}
    sidecar: Sidecar = json.loads(json.dumps(values, default=str))
    sealed = {**sidecar, "seal": _seal(sidecar)}
    (folder / SIDECAR).write_text(json.dumps(sealed, indent=2) + "\n", "utf-8")
    return sidecar


def identity(recipe: Recipe, preset: Preset, weights_hash: str) -> Sidecar:
    """All that decides whether an artifact may be run, as JSON has it. `recipe` is settled."""
    plan = recipe.memory
    keys: Sidecar = {"runtime": recipe.runtime, "precision": recipe.precision}
    # The CPU's kernels take any size of picture and of bank.
    if recipe.runtime in FIXED_SHAPES:
        memory = {"memory.policy": plan.policy, "memory.spatial": plan.spatial, "memory.pointers": plan.pointers}
        keys |= {"image_size": recipe.image_size, "max_objects": recipe.max_objects, **memory}
    elif family(recipe.runtime) == "onnx":
        keys |= {"image_size": recipe.image_size}
    return {
        "recipe": keys,
        "network": hashlib.sha256(repr(preset).encode()).hexdigest(),
        "weights": weights_hash,
        "versions": _versions(recipe.runtime),
        "device": _gpu(recipe.device) if recipe.runtime in ON_GPU else _cpu() | _isa(recipe),
    }


def _sources(runtime: str) -> Sidecar:
    """Our own sources that decide what a runtime computes, each with its digest, and a hash of all there are."""
    return {"all": sources_hash(), "of": sources_of(family(runtime))}


def _changed(built_with: Sidecar, runtime: str) -> str:
    """The first source that decides, and is another now, as part of a line; "" if there is none."""
    if built_with.get("all") == sources_hash():
        return ""
    was, now = dict(built_with.get("of", {})), sources_of(family(runtime))
    name = next((name for name in sorted({*was, *now}) if was.get(name) != now.get(name)), None)
    if name is None:
        return ""
    found, expected = (_short(files.get(name, "none")) for files in (was, now))
    return f"rtseg/{name} = {found}; expected {expected}"


def _versions(runtime: str) -> dict[str, str]:
    found = {"rtseg": __version__}
    for library in LIBRARIES.get(family(runtime), ("torch",)):
        found[library] = library_version(library) or "not installed"
    return found


def library_version(name: str) -> str | None:
    """The version of an importable package; None where there is none.

    The module's own word comes first: TensorRT's wheels may be installed as `tensorrt_cu12` or `tensorrt_cu13` alone.
    """
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, AttributeError):  # a library that it loads may be missing
        pass
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, str]:
    return {"cpu": cpu_model(), "flags": " ".join(cpu_flags())}


def _isa(recipe: Recipe) -> dict[str, str]:
    """The instruction set that our kernels run a recipe on."""
    if recipe.runtime != "cpu":
        return {}
    from .cpu import lacks
    from .cpu.isa import isa_for

    return {"isa": "none" if lacks(get_preset(recipe.model)) else isa_for(recipe.precision)}


def _gpu(device: str) -> dict[str, str]:
    """Of which kind the recipe's GPU is; which of several that are alike does not matter."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": "none"}
    return gpu_identity(device_of("torch", device))


def stamp(folder: Path | None) -> tuple[int, int] | None:
    """Which sidecar it is that lies in a folder now; None where there is none."""
    if folder is None:
        return None
    try:
        found = (folder / SIDECAR).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _seal(sidecar: Sidecar) -> str:
    return hashlib.sha256(json.dumps(sidecar, sort_keys=True).encode()).hexdigest()


def _flat(values: Sidecar, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    """Twelve digits are enough of a hash."""
    return value[:12] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else str(value)


def _refused(recipe: Recipe, path: Path, what: str) -> EngineError:
    return EngineError(f"{path}: {what}; run: rtseg build {where(recipe)}")
