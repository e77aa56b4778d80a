"""`run.json`: what was read, with which engine it was segmented, and how the run ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.ending import Ending
from ..base.errors import IncompleteError, SourceError
from ..base.files import atomic_path, file_sha256
from ..base.timing import Stages
from ..build.doctor import versions
from ..engine import Engine
from ..grab import Source
from .check import PromptsByFrame, hash_of
from .results import Filter
from .settings import Reading, Tracking, files_of

FILE = "run.json"
SAME = ("source", "reading", "tracking", "engine", "recipe", "prompts_sha256")  # equal keys mean the same result
UNENDED = "killed: this run did not finish"


class Report:
    """The document of a run. It is written at the beginning, too, because a killed run cannot write it at the end."""

    def __init__(
        self, uris: Sequence[str], files: list[dict[str, Any]], reading: Reading, tracking: Tracking,
        source: Source, engine: Engine, prompts: PromptsByFrame, stages: Stages, filters: Sequence[Filter] = (),
    ) -> None:  # fmt: skip
        """`files`: what `files_of` returned before the source was opened; `filters`: of what is written."""
        self._filters = filters
        self._uris, self._files, self._source, self._stages = list(uris), files, source, stages
        self._prompts, self._weights = hash_of(prompts), engine.weights_hash
        self._begun: dict[str, Any] = {
            "source": self._uris[0] if len(uris) == 1 else self._uris,
            "reading": asdict(reading),
            "tracking": asdict(tracking),
            "files": files,
            "engine": engine.description,
            "recipe": asdict(engine.recipe),
        }
        if source.geometry is not None:
            self._begun["geometry"] = asdict(source.geometry)
        self.document = self._begun

    def begin(self, folder: Path) -> None:
        """Write what is known before the first frame. Raises `OutputError` if that fails."""
        document = {"complete": False, "ended": UNENDED, **self._begun, "prompts_sha256": self._prompts}
        _write(folder / FILE, self._filtered(document))

    def changed(self) -> str:
        """The line about a file of the source that has changed since it was opened; "" if none has."""
        now = {file["uri"]: file for file in files_of([file["uri"] for file in self._files])}
        for before in self._files:
            after = now.get(before["uri"], before)  # a file that was moved away was still read to its end
            if after != before:
                sizes = before.get("bytes"), after.get("bytes")  # both None for a folder
                grown = f" from {sizes[0]} to {sizes[1]} bytes" if sizes[0] != sizes[1] else ""
                return f"{before['uri']}: changed{grown} while it was read; run again when nobody writes to it"
        return ""

    def end(self, folder: Path, count: int, ending: Ending, warnings: Sequence[str], cuts: Sequence[int] = ()) -> None:
        """Write the whole document. `count` frames are complete, `warnings` are about prompts, and `cuts` are the first
        frames of new scenes. Raises `OutputError` if that fails.
        """
        hashes = [None if ending.interrupted else _hash_of(Path(uri)) for uri in self._uris]
        account = self._source.account
        dropped = {cause: n for cause, n in (("leading", account.leading), ("damaged", account.damaged)) if n}
        frames = {"in": count + sum(dropped.values()), "shown": count, "dropped": dropped}
        self.document = {
            "complete": ending.ok,
            "ended": ending.line,
            "faults": ending.faults,
            "warnings": list(warnings),
            **self._begun,
            "frames": frames,
            "cuts": list(cuts),
            "source_account": account.plain(),
            "stages_ms": self._stages.summary(),
            "sha256": {
                "source": hashes[0] if len(hashes) == 1 else hashes,
                "weights": self._weights,
                "prompts": self._prompts,
            },
            "versions": versions(),
        }
        for one in self._filters:
            self.document |= one.account()
        _write(folder / FILE, self._filtered(self.document))

    def _filtered(self, document: dict[str, Any]) -> dict[str, Any]:
        for one in self._filters:
            document = one.document(document)
        return document

    def same_as(self, other: dict[str, Any]) -> bool:
        """Whether the run of another document gives the same result."""
        document = self._filtered({**self._begun, "prompts_sha256": self._prompts})
        ours = json.loads(json.dumps(document, default=str))
        return all(ours[key] == other.get(key) for key in SAME)


def leftover_of(folder: Path, report: Report) -> tuple[int, bool]:
    """What a killed run left in a folder: the number of masks, and whether the run of `report` gives the same."""
    masks = len(list((folder / "masks").glob("*.png")))
    try:
        document = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return masks, False
    return masks, isinstance(document, dict) and report.same_as(document)


def cuts_line(uri: str, cuts: list[int]) -> str:
    """The line for the user about the cuts of a recording."""
    first = ", ".join(map(str, cuts[:5])) + (f" and {len(cuts) - 5} more" if len(cuts) > 5 else "")
    where = f"frame {first}" if len(cuts) == 1 else f"frames {first}"
    return f"{uri}: another scene begins with {where}; there objects are lost until they are found again, or prompted"


def incomplete(
    ending: Ending, cause: BaseException | None, count: int, reading: Reading, document: dict[str, Any], later: bool
) -> IncompleteError:
    """The error of a run that ended early: why, how many frames are complete, where they are, and how to continue.

    `later`: the next run goes on from there.
    """
    line = f"{ending.line}; {count} frames are whole, and lie in {document['out']}"
    if later:
        line += "; run the same again, and it goes on from there"
    elif reading.damaged == "stop" and isinstance(cause, SourceError):
        line += "; to go on past the damage, run with --damaged skip"
    error = IncompleteError(line, {**document, "ok": False}, ending.code)
    error.__cause__ = cause
    return error


def _hash_of(path: Path) -> str | None:
    """The SHA-256 of a file; None for anything else, and after Ctrl-C, because large files take long."""
    try:
        return file_sha256(path) if path.is_file() else None
    except (OSError, ValueError, KeyboardInterrupt):
        return None


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write all of it or nothing: an earlier file is kept until this one is complete."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(document, indent=2, default=str) + "\n", "utf-8")
