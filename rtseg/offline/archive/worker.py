"""A worker of an archive: it holds an engine and segments one video after the other.

Jobs come in threads of their own, so that one is fetched and another one uploaded while a third is segmented. The
engine is opened and used in one thread only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...base.errors import ConfigError, EngineError, IncompleteError, OutputError, RtsegError
from ...base.files import write_bytes
from ...base.result_folder import incomplete
from ...engine import Engine, open_engine
from ...engine.recipe import Recipe
from ...engine.threads import at_most
from ..run import segment
from .cache import Cache
from .jobs import Job, Outcome, Stage, State
from .places import PROOF, is_cloud, join, read, upload

KEY = "archive.json"  # beside the result in a cloud: the key of its configuration
AGAIN = (OSError, OutputError, EngineError)  # failures of the machine: another attempt may succeed


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is started with: the engine's recipe, threads for it (None: all), and its folder on the disk.

    `limit` is how many bytes of sources the folder may hold.
    """

    recipe: Recipe
    scratch: Path
    threads: int | None = None
    limit: int = 50_000_000_000


class Worker:
    """Segments videos with one engine."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine: Engine | None = None
        self._network = ThreadPoolExecutor(1, "engine")
        self._cache = Cache(setup.scratch / "sources", setup.limit)
        self._states: dict[int, State] = {}
        self._lock = threading.Lock()

    def open(self) -> dict[str, Any]:
        """Open the engine. Returns `error`, the line of a failure or "", `version` and `node`."""
        about = {"error": "", "version": __version__, "node": f"{platform.node()}, process {os.getpid()}"}
        try:
            self._engine = self._network.submit(self._open).result()
        except Exception as e:
            about["error"] = _line(e)
        return about

    def _open(self) -> Engine:
        if self._setup.threads is None:
            return open_engine(self._setup.recipe)
        with at_most(self._setup.threads):
            return open_engine(self._setup.recipe)

    def states(self) -> dict[int, State]:
        """How far each job is, by the line of its row."""
        with self._lock:
            return dict(self._states)

    def run(self, job: Job) -> Outcome:
        """Do a job: fetch, segment, upload. It never raises an error of the job: the outcome says it."""
        attempt = _Attempt(job, self)
        try:
            return self._run(job, attempt)
        except Exception as e:
            return attempt.failed(e)
        finally:
            with self._lock:
                self._states.pop(job.row.line, None)

    def _run(self, job: Job, attempt: _Attempt) -> Outcome:
        if is_cloud(job.out) and not job.force and self._is_done(job):
            return Outcome(job.row.line, "skipped")
        with attempt.stage("fetch"):
            fetching = self._cache.sources(job.row, job.out)
            sources = fetching.__enter__()
        try:
            attempt.at("wait")
            if not is_cloud(job.out):
                return attempt.done(self._network.submit(self._segment, job, sources, Path(job.out), attempt).result())
            return self._through_scratch(job, sources, attempt)
        finally:
            fetching.__exit__(None, None, None)

    def _through_scratch(self, job: Job, sources: list[str], attempt: _Attempt) -> Outcome:
        """Segment to this machine's disk, then upload. What a killed worker left there is gone on with."""
        name = hashlib.sha256(job.out.encode()).hexdigest()[:24]
        folder = self._setup.scratch / "results" / name
        error: IncompleteError | None = None
        try:
            run = self._network.submit(self._segment, job, sources, folder, attempt).result()
        except IncompleteError as e:
            if _again(e):
                raise
            run, error = e.report, e  # what is whole is worth keeping
        with attempt.stage("upload"):
            write_bytes(folder / KEY, json.dumps({"key": job.key}).encode())
            upload(folder, job.out)
        shutil.rmtree(folder, ignore_errors=True)
        if error is not None:
            raise error
        return attempt.done(run)

    def _segment(self, job: Job, sources: list[str], out: Path, attempt: _Attempt) -> dict[str, Any]:
        with attempt.stage("segment"):
            return segment(
                sources if len(sources) > 1 else sources[0], job.prompts, out, self._engine,
                **job.row.options.keywords(), force=job.force or incomplete(out),
                progress=attempt.progress, say=attempt.say,
            )  # fmt: skip

    def _is_done(self, job: Job) -> bool:
        """Whether a cloud has this result. Raises `ConfigError` if it has one of another configuration."""
        proof, key = read(join(job.out, PROOF)), read(join(job.out, KEY))
        if proof is None or json.loads(proof).get("complete") is not True:
            return False
        if key is None or json.loads(key).get("key") != job.key:
            raise ConfigError(f"{job.out}: a result of another configuration is there; --force replaces it")
        return True

    def note(self, line: int, state: State) -> None:
        """Note how far a job is."""
        with self._lock:
            self._states[line] = state


@dataclass(slots=True)
class _Attempt:
    """A job at work: its stages, their times, and what was said."""

    job: Job
    worker: Worker
    seconds: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    frames: int = 0

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        self.at(name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - began

    def at(self, name: Stage) -> None:
        self.worker.note(self.job.row.line, (name, 0, None))

    def progress(self, done: int, total: int | None) -> None:
        self.frames = done
        self.worker.note(self.job.row.line, ("segment", done, total))

    def say(self, line: str) -> None:
        self.lines.append(f"line {self.job.row.line}: {line}")

    def done(self, run: dict[str, Any]) -> Outcome:
        if run.get("skipped") and not is_cloud(self.job.out):
            return Outcome(self.job.row.line, "skipped")
        frames = int(run.get("frames", {}).get("shown", self.frames))
        return Outcome(self.job.row.line, "done", frames=frames, seconds=self.seconds, lines=tuple(self.lines))

    def failed(self, error: Exception) -> Outcome:
        fresh = isinstance(error, EngineError) or not isinstance(error, (RtsegError, OSError))
        return Outcome(
            self.job.row.line, "failed", _line(error), again=_again(error), fresh=fresh,
            frames=self.frames, seconds=self.seconds, lines=tuple(self.lines),
        )  # fmt: skip


def _again(error: BaseException) -> bool:
    """Whether another attempt may succeed: not if the input is wrong."""
    if isinstance(error, IncompleteError):
        cause = error.__cause__
        return cause is not None and not isinstance(cause, KeyboardInterrupt) and _again(cause)
    if isinstance(error, FileNotFoundError):
        return False
    return isinstance(error, AGAIN) or not isinstance(error, RtsegError)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RtsegError) else f"{type(error).__name__}: {text}"
