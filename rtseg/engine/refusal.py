"""Engines that failed the parity check. A record beside the built engines keeps others of their identity from running.

engines/built/.NAME.refused       what was refused, and why; removed as soon as a build succeeds
"""

from __future__ import annotations

import json
from pathlib import Path

from ..base.errors import EngineError
from .identity import Identity, changed_source, flat, source_digests
from .recipe import Recipe
from .runtimes import where


def folder_of(recipe: Recipe) -> Path | None:
    """The folder in which a recipe's engine is installed; None for a recipe without a file."""
    return recipe.path and recipe.path.parent / "built" / recipe.path.stem


def unusable(recipe: Recipe, path: Path, what: str) -> EngineError:
    """The error for a built engine that cannot be used. It ends with the command that builds it again."""
    return EngineError(f"{path}: {what}; run: rtseg build {where(recipe)}")


def refuse(folder: Path, part: Path, expected: Identity, reason: str) -> None:
    """Record that an engine of this identity, made for `folder`, failed the parity check. `part` is a folder for the
    temporary file: the record appears in one step.

    An engine of the same identity that is installed in `folder` is not run either: of two that were made alike, one
    passed the parity check and one failed it.
    """
    record = part / "refused.json"
    values = {"identity": expected, "sources": source_digests(expected["recipe"]["runtime"]), "reason": reason}
    record.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    record.replace(_record(folder))


def clear_refusal(folder: Path) -> None:
    """Remove the record, after a build that succeeded."""
    _record(folder).unlink(missing_ok=True)


def refusal(recipe: Recipe, expected: Identity) -> str:
    """One line on why an engine of this identity was refused; "" if none was."""
    folder = folder_of(recipe)
    if folder is None or not was_refused(recipe):
        return ""
    try:
        record = json.loads(_record(folder).read_text("utf-8"))
        known, reason = dict(record["identity"]), str(record["reason"])
        if "sources" not in record:
            return ""  # written by an earlier rtseg, whose sources were different
        sources = dict(record["sources"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        return str(unusable(recipe, _record(folder), f"cannot be read ({type(e).__name__}): a build was refused"))
    if dict(flat(known)) != dict(flat(expected)) or changed_source(sources, recipe.runtime):
        return ""
    remedy = 'take runtime = "torch", or once it is repaired'
    return str(unusable(recipe, folder, f"refused by the parity check ({reason}); {remedy}"))


def was_refused(recipe: Recipe) -> bool:
    folder = folder_of(recipe)
    return folder is not None and _record(folder).is_file()


def _record(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.refused")
