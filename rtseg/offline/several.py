"""Several videos with one command: a result for each, in one folder. A failure of one never stops the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, IncompleteError, RtsegError
from ..base.prompt_files import load_prompts
from ..engine import Engine, open_engine, spare_core
from ..engine.recipe import Recipe
from .check import PromptsByFrame
from .review import add_index

One = Callable[[str, PromptsByFrame, Path, Engine], dict[str, Any]]  # source, prompts, folder of its result, engine
INTERRUPTED = 130


def segment_each(
    sources: Sequence[str], prompts: Path, out: Path, recipe: Recipe, one: One, say: Callable[[str], None]
) -> dict[str, Any]:
    """Segment each video to `out`/NAME, where NAME is that of the video without its suffix.

    Arguments:
        sources: files, folders of images, ...
        prompts: a file for all, or a folder with NAME.json for each.
        out: the folder of the results, and of `index.html` over them.
        recipe: of the engine, which is opened once.
        one: segments one.
        say: called with each line for the user.

    Returns:
        How many there are, and the names of those that are done, that were done already, and that failed, with why.

    Raises:
        ConfigError: two videos have one name; nothing was begun.
        IncompleteError: some failed, or Ctrl-C; `report` says which are done.
    """
    names = _names(sources)
    document: dict[str, Any] = {"videos": len(names), "done": [], "skipped": [], "failed": {}, "out": str(out)}
    shared = None if prompts.is_dir() else load_prompts(prompts)
    with spare_core():
        engine = open_engine(recipe)
    for source, name in zip(sources, names, strict=True):
        try:
            given = load_prompts(prompts / f"{name}.json") if shared is None else shared
            found = one(source, given, out / name, engine)
            document["skipped" if found.get("skipped") else "done"].append(name)
        except RtsegError as e:
            document["failed"][name] = str(e)
            if isinstance(e, IncompleteError) and e.code == INTERRUPTED:
                raise IncompleteError(str(e), {**document, "ok": False}, e.code) from e
            say(f"{source}: {e}")
    add_index(out, document["failed"], say)
    if document["failed"]:
        raise _failed(document)
    return document


def _failed(document: dict[str, Any]) -> IncompleteError:
    failed = document["failed"]
    listed = "; ".join(f"{name}: {why}" for name, why in failed.items())
    line = f"{len(failed)} of {document['videos']} videos failed: {listed}"
    return IncompleteError(line, {**document, "ok": False})


def _names(sources: Sequence[str]) -> list[str]:
    """The name of each video. Raises `ConfigError` for two of one name, or a video without one."""
    names = [Path(source).name if Path(source).is_dir() else Path(source).stem for source in sources]
    twice = [name for name, count in Counter(names).items() if count > 1 or not name.strip(".-")]
    if twice:
        those = ", ".join(source for source, name in zip(sources, names, strict=True) if name == twice[0])
        raise ConfigError(
            f"{those}: their results would have the name {twice[0]!r}; segment them one by one, or give --join if they "
            "are one recording"
        )
    return names
