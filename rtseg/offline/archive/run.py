"""An archive from its manifest to its results: what is done already, what is handed out, what failed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...base.cache import cache_root
from ...base.errors import IncompleteError
from ...base.files import file_sha256
from ...base.result_folder import incomplete
from ...engine.recipe import Recipe, load_recipe
from ...engine.weights import find_weights
from ..review import add_index
from .jobs import Cluster, Job, Outcome
from .journal import NAME, Journal
from .manifest import AT_ONCE, Row, load_manifest
from .places import PROOF, about, is_cloud, join
from .progress import Progress
from .prompts import load_prompts
from .scheduler import Limits, Scheduler, Video
from .worker import Setup

Say = Callable[[str], None]
FETCH_AHEAD = 2  # jobs of a worker where sources or results lie in a cloud: one is segmented, one is moved


@dataclass(frozen=True, slots=True)
class Settings:
    """How an archive is worked on.

    Attributes:
        ray: the address of an existing cluster; None starts one on this machine.
        gpus_per_worker, workers: what each worker gets, and how many there are; None: one for each device.
        retries: repeated attempts of a video where a machine failed.
        force: replace earlier results.
        scratch: each machine's folder for fetched sources and results that are not uploaded yet; None: the cache.
        limit: the most bytes of sources in it.
        options: of all videos that do not give them in the manifest; by the names of `Options`.
    """

    ray: str | None = None
    gpus_per_worker: float | None = None
    workers: int | None = None
    retries: int = 3
    force: bool = False
    scratch: Path | None = None
    limit: int = 50_000_000_000
    options: Mapping[str, Any] = field(default_factory=dict)


Open = Callable[[Settings, Setup, int], AbstractContextManager[tuple[Cluster, int]]]


def archive(
    manifest: str,
    out: str,
    engine: str | Path | Recipe | None = None,
    settings: Settings = Settings(),
    *,
    say: Say = lambda line: None,
    show: Say = lambda line: None,
    cluster: Open | None = None,
) -> dict[str, Any]:
    """Segment all videos of a manifest, on a Ray cluster, into the folder or cloud prefix `out`.

    Arguments:
        manifest: a .csv, .jsonl or .toml file, local or in a cloud; `manifest` describes it.
        out: local or in a cloud. It gets a folder for each video, and the journal; a local one `index.html`, too.
        engine: a recipe file, or a recipe that was read; None is the shipped `nano`.
        settings: workers, attempts, places.
        say: called with lines for the user.
        show: called about once a second with a line of progress.
        cluster: opens another cluster than Ray's, for tests.

    Returns:
        The account: how many videos are done, were skipped, and failed, with the failures.

    Raises:
        ConfigError: the manifest has mistakes, or the cluster cannot be had; nothing was started.
        IncompleteError: interrupted; what is done stays, and another run goes on.
    """
    recipe = load_recipe(engine)
    rows = load_manifest(manifest, settings.options)
    with Journal(out) as journal:
        work = _Work(rows, out, recipe, settings, journal, say, show)
        try:
            if work.left:
                work.on(cluster or on_ray)
        except KeyboardInterrupt as e:
            report = work.report()
            line = (
                f"interrupted: {report['done'] + report['skipped']} of {len(rows)} videos are done; run again to go on"
            )
            raise IncompleteError(line, {**report, "ok": False}, 130) from e
        if not is_cloud(out):
            add_index(Path(out), {}, say)
        return work.report()


@contextmanager
def on_ray(settings: Settings, setup: Setup, depth: int) -> Iterator[tuple[Cluster, int]]:
    """The Ray cluster of an archive, and how many workers it has room for."""
    from .on_ray import RayCluster

    with RayCluster(settings.ray, setup, settings.gpus_per_worker, settings.workers, depth) as workers:
        yield workers, workers.share.room


class _Work:
    """The rows of an archive, and what became of each."""

    def __init__(
        self, rows: Sequence[Row], out: str, recipe: Recipe, settings: Settings, journal: Journal, say: Say, show: Say
    ) -> None:
        self._rows, self._out, self._recipe, self._settings = rows, out, recipe, settings
        self._journal, self._say, self._show = journal, say, show
        weights = file_sha256(find_weights(recipe.weights))
        self._keys = {row.line: key_of(row, recipe, weights) for row in rows}
        self._videos = {row.line: Video(row) for row in rows}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = list(pool.map(self._is_done, rows))
        for row, skip in zip(rows, done, strict=True):
            if skip:
                self._videos[row.line].outcome = Outcome(row.line, "skipped")
        self.left = [row for row in rows if self._videos[row.line].outcome is None]

    def _is_done(self, row: Row) -> bool:
        """Whether the journal says so, and the result is there."""
        if self._settings.force or self._journal.keys.get(row.out) != self._keys[row.line]:
            return False
        place = join(self._out, row.out)
        try:
            return not incomplete(Path(place)) and bool(about(join(place, PROOF)))
        except Exception:  # it is not there, or cannot be seen: a worker will look again
            return False

    def on(self, cluster: Open) -> None:
        """Do what is left on a cluster."""
        setup = Setup(self._recipe, self._settings.scratch or cache_root() / "archive", limit=self._settings.limit)
        moved = is_cloud(self._out) or any(is_cloud(source) for row in self.left for source in row.sources)
        depth = FETCH_AHEAD if moved else 1
        with cluster(self._settings, setup, depth) as (workers, room):
            limits = Limits(room, depth, self._settings.retries)
            progress = Progress(self._rows, workers.now())
            for video in self._videos.values():
                if video.outcome is not None:
                    progress.end(video)

            def note(video: Video) -> None:
                self._videos[video.row.line] = video
                self._journal.add(video, self._keys[video.row.line])
                if video.outcome is not None:
                    progress.end(video)

            def watch(scheduler: Scheduler) -> None:
                self._show(progress.line(workers.states(), scheduler.working, workers.now()))

            Scheduler(self.left, workers, limits, self._job, note, watch, self._say).run()

    def _job(self, row: Row) -> Job:
        place = join(self._out, row.out)
        place = place if is_cloud(place) else str(Path(place).resolve())
        return Job(row, load_prompts(row.prompts), place, self._keys[row.line], self._settings.force)

    def report(self) -> dict[str, Any]:
        """The account of this run."""
        videos = list(self._videos.values())
        outcomes = [video.outcome for video in videos if video.outcome is not None]
        counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("done", "skipped", "failed")}
        failures = [
            {"line": video.row.line, "source": " + ".join(video.row.sources), "out": video.row.out,
             "attempts": video.attempts, "causes": video.causes or [video.outcome.cause]}
            for video in videos if video.outcome is not None and video.outcome.state == "failed"
        ]  # fmt: skip
        why = f"{len(failures)} of {len(videos)} videos failed; the others are done" if failures else ""
        return {
            "ok": not failures, "videos": len(videos), **counts,
            "frames": sum(outcome.frames for outcome in outcomes if outcome.state == "done"),
            "attempts_failed": sum(len(video.causes) for video in videos),
            "out": self._out, "journal": join(self._out, NAME), "failures": failures, "why": why,
        }  # fmt: skip


def key_of(row: Row, recipe: Recipe, weights: str) -> str:
    """What tells one configuration from another: sources and their state, prompts, options, engine, version."""
    engine = {key: value for key, value in asdict(recipe).items() if key != "path"}
    told = [row.sources, row.about, row.prompts_hash, asdict(row.options), engine, weights, __version__]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
