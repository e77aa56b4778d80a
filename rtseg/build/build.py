"""`rtseg build RECIPE`: make an engine in a private folder, check it on a clip, time it, and then install it.

With `runtime = "auto"` it checks every runtime and precision that can run here, and installs the fastest that passes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..base.errors import ConfigError, EngineError, RtsegError
from ..base.files import sweep
from ..base.lock import exclusive
from ..engine.artifact import fastest as fastest_built
from ..engine.opening import in_one_line
from ..engine.recipe import Recipe, load_recipe
from ..engine.refusal import folder_of
from ..engine.runtimes import candidates, settle
from .clips import Clip, synthetic_clip, user_clip
from .job import BuildJob, Note, Progress, Report
from .selection import build_fastest


def build_all(
    recipes: Sequence[Path], clip: str | None = None, prompts: Path | None = None, *, force: bool = False,
    note: Note = print, progress: Progress = lambda done, total: None,
) -> Report:  # fmt: skip
    """`build` each recipe. A recipe that cannot be built raises if it is the only one; else it is reported."""
    engines = []
    for recipe in recipes:
        try:
            engines.append(build(recipe, clip, prompts, force=force, note=note, progress=progress))
        except RtsegError as e:
            if len(recipes) == 1:
                raise
            engines.append({"ok": False, "recipe": str(recipe), "said": str(e)})
    return {"ok": all(engine["ok"] for engine in engines), "engines": engines}


def build(
    recipe: str | Path | Recipe, clip: str | None = None, prompts: Path | None = None, *, force: bool = False,
    note: Note = print, progress: Progress = lambda done, total: None,
) -> Report:  # fmt: skip
    """Build the engine of a recipe file, check its masks, and install it in `built/` beside the recipe.

    The check uses a synthetic clip, and also `clip` if it is given (with `prompts`, a file as for segment). An engine
    that is installed already and fits is kept, unless `force` or `clip` asks for another check. `note` is called with
    lines for people, `progress` with (frames checked, frames in all or None).

    Returns the report; `ok` is False if the parity check failed. Then the engine installed before stays, and the
    refusal is recorded: until a build passes, `open_engine` does not run an engine that was made like the refused one.
    Raises an `RtsegError` if nothing can be built.
    """
    given = load_recipe(recipe)
    final = _folder_for(given, clip, prompts)
    settled = [] if given.runtime == "auto" else [settle(given)]
    if given.runtime == "torch":
        return {"ok": True, "recipe": str(given.path), "said": "torch is the reference: there is nothing to build"}
    with _errors_in_one_line(given, final):
        jobs = [BuildJob(recipe, note, progress) for recipe in settled or candidates(given)]
        clips = _clips(given, clip, prompts, note)
        with exclusive(final, note):
            sweep(final)
            keep = not force and clip is None
            if keep and (report := _installed(given, jobs, final)):
                return report
            return build_fastest(jobs, final, clips) if given.runtime == "auto" else jobs[0].run(final, clips)


def _folder_for(recipe: Recipe, clip: str | None, prompts: Path | None) -> Path:
    """The folder in which the engine will be installed. Raises `ConfigError` for a build that makes no sense."""
    final = folder_of(recipe)
    if final is None:
        raise ConfigError("a recipe without a file cannot be built; write it to NAME.toml")
    if prompts is not None and clip is None:
        raise ConfigError(f"{prompts}: prompts for no clip; give --clip too")
    if recipe.runtime == "torch" and clip is not None:
        raise ConfigError(f"{recipe.path}: runtime torch is the reference: there is nothing to check on a clip")
    return final


def _clips(recipe: Recipe, clip: str | None, prompts: Path | None, note: Note) -> list[Clip]:
    """The clips of the parity check: the synthetic one, and the user's if there is one."""
    clips = [synthetic_clip(recipe.image_size, recipe.max_objects)]
    if clip is not None:
        clips.append(user_clip(clip, prompts, recipe.max_objects))
        if prompts is None:
            note(f"{clip}: no --prompts: following boxes in its middle and at both sides")
    return clips


def _installed(given: Recipe, jobs: Sequence[BuildJob], final: Path) -> Report | None:
    """The report of the installed engine; None if there is none that may be used without another check."""
    measured = {(recipe.runtime, recipe.precision) for recipe in fastest_built(given)}
    built = [job for job in jobs if len(jobs) == 1 or (job.recipe.runtime, job.recipe.precision) in measured]
    return next((report for job in built if (report := job.installed(final))), None)


@contextmanager
def _errors_in_one_line(recipe: Recipe, final: Path) -> Iterator[None]:
    """Turn failures of memory, disk and GPU into an `EngineError` that says what would help."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not isinstance(e, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(e):
            if "CUDA" not in str(e):
                raise
            raise EngineError(f"{recipe.path}: {in_one_line(e)}") from e  # there is a GPU, but it fails
        asked = f"image_size = {recipe.image_size}, max_objects = {recipe.max_objects}"
        raise EngineError(f"{recipe.path}: out of memory with {asked}; lower one of them, or free some") from e
    except OSError as e:
        is_full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free the space" if is_full else "expected a folder you may write to"
        raise EngineError(f"{final}: cannot be built ({e.strerror or e}); {advice}") from e
