"""Going on where an earlier run ended, and skipping what is done: which folder is whose, and is it whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.account import Account
from ..base.errors import ConfigError, OutputError
from ..base.files import discard
from ..base.result_folder import Part
from ..base.state import State
from ..engine import Engine
from .identity import difference
from .report import Report, leftover_of
from .request import Request
from .segments import WORK, Manifest, finished, read_document, read_manifest

Say = Callable[[str], None]
ROWS = ".masks.json.images"  # kept by `CocoWriter.close(keep=True)`


def done_already(out: Path, made_from: dict[str, Any] | None) -> dict[str, Any] | None:
    """The content of `run.json` of a complete result of the same configuration; None if there is none.

    Raises `ConfigError` if there is one of another configuration.
    """
    manifest = read_document(out)
    if manifest is None or manifest.get("complete") is not True:
        return None
    what = "a pipe is read once" if made_from is None else difference(manifest.get("made_from", {}), made_from)
    if what:
        raise ConfigError(
            f"{out}: the folder is not empty: it holds a result made otherwise ({what}); "
            "choose another one, or replace it with --force"
        )
    return _run_json(out)


def finished_by(part: Part, made_from: dict[str, Any] | None) -> dict[str, Any] | None:
    """Take over a result that was whole when its run was killed; returns the content of its `run.json`."""
    for left in part.left:
        found = read_document(left) or {}
        same = made_from is not None and found.get("complete") is True and found.get("made_from") == made_from
        document = _run_json(left) if same else None
        if document is not None and part.take_over(left):
            _clear(left)
            return document
    return None


def manifest_for(
    part: Part, made_from: dict[str, Any] | None, engine: Engine, request: Request
) -> tuple[Manifest | None, State | None]:
    """The manifest to go on with, and the state after its segments.

    That is the one of a killed run of the same configuration, whose folder is taken over. Else it is a new one, with a
    line for the user where an earlier run cannot be gone on with; and None where a run cannot go on later anyway.
    """
    out, say = request.out, request.say
    if made_from is None:
        if part.left and not request.steps:
            say(f"{out}: begins at frame 0: what is read only once cannot be gone on with")
        return None, None
    found = [(left, manifest) for left in part.left if (manifest := read_manifest(left))]
    for left, manifest in sorted(found, key=lambda one: -one[1].frames):
        why = difference(manifest.made_from, made_from)
        if not why and manifest.engine != engine.description:
            why = f"engine was {manifest.engine}, and is {engine.description}"
        state, damage = (None, why) if why else _state(manifest, left)
        if damage:
            say(f"{out}: an earlier run ended after {manifest.frames} frames; this one begins anew ({damage})")
        elif part.take_over(left):
            if manifest.segments:
                say(f"{out}: goes on at frame {manifest.frames}, where an earlier run ended")
                manifest.resumed.append(manifest.frames)
            return manifest, state
    fresh = Manifest(made_from, engine.description)
    fresh.write(part.path)
    return fresh, None


def _state(manifest: Manifest, folder: Path) -> tuple[State | None, str]:
    """The state after the segments, if everything in the folder is as it was then; else what is not.

    Without a segment there is no state yet, though other things may be in the folder, as of a backward pass.
    """
    if not manifest.segments:
        return None, ""
    damage = manifest.damaged(folder)
    if damage:
        return None, damage
    try:
        return manifest.state_in(folder), ""
    except OutputError as e:
        return None, str(e)


def tell_of_killed(part: Part, report: Report, out: Path, say: Say) -> list[Path]:
    """Tell the user where the masks of killed runs are. Returns the folders that this run replaces when complete."""
    same = []
    for path in part.left:
        masks, is_same = leftover_of(path, report)
        fate = "removed once this run is complete" if is_same else "remove them when you have what you need"
        say(f"{out}: an earlier run was killed; its {masks} masks lie in {path} ({fate})")
        same += [path] if is_same else []
    return same


def keep_for_later(part: Part, manifest: Manifest) -> None:
    """Leave the folder as it is, for the next run to go on."""
    part.keep = part.unfinished = True
    discard(part.path / "overlay.mp4")
    manifest.write(part.path)


def seal(manifest: Manifest, folder: Path, account: Account, complete: bool) -> None:
    """Write the manifest of the finished result, and remove what it took to go on. Raises `OutputError`."""
    finished(manifest, folder, [asdict(gap) for gap in account.gaps], complete)
    _clear(folder)


def _run_json(folder: Path) -> dict[str, Any] | None:
    try:
        document = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / WORK, ignore_errors=True)
    discard(folder / ROWS)
