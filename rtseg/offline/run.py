"""The run of `rtseg segment`: reading, network and writing at the same time, each in a thread, with frames in order.

The network leaves a core to the other threads: if they used one of its cores, all threads of a matrix product would
wait for that one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.ending import Ending
from ..base.errors import ConfigError, IncompleteError, RtsegError, SourceError, did_you_mean
from ..base.prompt_files import as_prompts
from ..base.result_folder import Part, check_apart, result_folder
from ..base.timing import Stages
from ..base.types import Frame
from ..engine import Engine, open_engine, spare_core
from ..engine.recipe import Recipe, load_recipe
from ..grab import Source, open_source
from ..publish.overlay import DrawMasks, draw_masks
from ..track import Tracker
from .background import Prefetch, WriteBehind
from .check import PromptsByFrame, beyond_end, check_prompts, on_frame, shifted
from .report import Report, leftover_of
from .results import Results
from .settings import DECODERS, PICTURES, Reading, Steps, Uri, files_of, uris_of

if TYPE_CHECKING:
    from ..grab.nvdec import Gpu

Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]


def segment(
    source: Uri | Sequence[Uri],
    prompts: PromptsByFrame,
    out: str | Path,
    engine: str | Path | Recipe | Engine | None = None,
    *,
    reading: Reading = Reading(),  # noqa: B008  # it is frozen
    frames: str | None = None,
    force: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Segment every frame of a source and write the folder `out`.

    Arguments:
        source: what `open_source` opens; several uris are one recording.
        prompts: frame number to the prompts on that frame. Frames before the first prompt have empty masks.
        out: the folder; it appears when the run has ended.
        engine: a recipe file, a recipe that was read, or an engine that is open; None is the shipped `nano`.
        reading: how the source is read: deinterlacing, damage, rate, ...
        frames: "jpg" or "png" writes the frames themselves, too.
        force: replace an earlier result.
        progress: called with the number of frames done, and of all frames or None.
        say: called with each line for the user.

    Returns:
        The content of `run.json`.

    Raises:
        IncompleteError: the run ended early; the frames until then are kept, and the error says where.
        RtsegError: any other failure; `out` is unchanged.
    """
    if frames not in (None, *PICTURES):
        raise ConfigError(f"frames = {frames!r}; {did_you_mean(str(frames), PICTURES)}")
    steps: Steps | None = None
    if engine is None or isinstance(engine, str | Path | Recipe):
        recipe = load_recipe(engine)
    else:
        recipe, steps = engine.recipe, Tracker(engine)
    return _write(
        _Request(uris_of(source), as_prompts(prompts), Path(out), recipe, reading, frames, progress, say, steps), force
    )


def write_masks(
    source: Uri, prompts: PromptsByFrame, out: Path, steps: Steps, *, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Write the folder that `segment` writes, in place of an earlier one, with masks that `steps` gives."""
    recipe = steps.engine.recipe
    return _write(_Request([str(source)], prompts, out, recipe, Reading(), None, progress, _silent, steps), True)


def _silent(line: str) -> None:
    """Nobody listens."""


def _write(request: _Request, force: bool) -> dict[str, Any]:
    out = request.out
    if force:
        check_apart(request.uris, out)
    with result_folder(out, force) as part:
        run, report = _run(request, part)
    beside = part.final is not None and part.final != out.resolve()
    document = {**report.document, "out": str(part.final if beside else out)}
    if not run.ending.ok:
        raise _incomplete(run, request.reading, document)
    return document


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of `segment`, as values of one type each."""

    uris: list[str]
    prompts: PromptsByFrame
    out: Path
    recipe: Recipe
    reading: Reading
    frames: str | None
    progress: Progress
    say: Say
    steps: Steps | None = None  # None: a tracker on the recipe's engine


def _run(request: _Request, part: Part) -> tuple[_Run, Report]:
    """Segment the source into the folder `part`. Returns the run, which knows how it ended, and its report."""
    recipe, reading, say = request.recipe, request.reading, request.say
    files = files_of(request.uris)  # before the source is opened, so that any later change is noticed
    gpu, painter = _decoder(recipe, reading, request.frames)
    with _opened(request.uris, reading, gpu) as source:
        check_prompts(request.prompts, source, recipe.max_objects)
        tracker = request.steps or _tracker(recipe)
        stages = Stages("grab", "segment", "overlay", "write")  # each stage runs in one thread
        report = Report(request.uris, files, reading, source, tracker.engine, request.prompts, stages)
        same = _tell_of_killed(part, report, request.out, say)
        results = Results(part.path, source, stages, request.frames, painter)
        run = _Run(source, tracker, request.prompts, results, stages, request.progress, say)
        run.attempt(lambda: report.begin(part.path))
        _finish(part, run, report, request.out, say)
    if run.ending.ok:
        for path in same:
            shutil.rmtree(path, ignore_errors=True)
    return run, report


def _tracker(recipe: Recipe) -> Steps:
    with spare_core():
        return Tracker(open_engine(recipe))


def _decoder(recipe: Recipe, reading: Reading, frames: str | None) -> tuple[Gpu | None, DrawMasks]:
    """The GPU that decodes and holds the pictures (None: the CPU), and the function that draws on them."""
    if reading.decoder not in DECODERS:
        raise ConfigError(f"decoder = {reading.decoder!r}; {did_you_mean(str(reading.decoder), DECODERS)}")
    if reading.decoder == "cpu":
        return None, draw_masks
    if frames:
        raise ConfigError("--frames needs each picture in host memory; leave it out, or --decoder nvdec")
    from .on_gpu import open_gpu, painter

    gpu = open_gpu(recipe)
    return gpu, painter(gpu)


def _opened(uris: Sequence[str], reading: Reading, gpu: Gpu | None) -> Source:
    if gpu is None:
        keywords = {key: value for key, value in asdict(reading).items() if key != "decoder"}
        return open_source(uris if len(uris) > 1 else uris[0], **keywords)
    from ..grab.opening import open_on_gpu

    return open_on_gpu(uris, gpu, reading.fps, reading.deinterlace, reading.damaged, reading.bits)


class _Run:
    """One pass over a source, and how it ended. `cause` is the error that ended it early, if any."""

    def __init__(
        self, source: Source, tracker: Steps, prompts: PromptsByFrame, results: Results,
        stages: Stages, progress: Progress, say: Say,
    ) -> None:  # fmt: skip
        self.source, self.results, self.ending = source, results, Ending()
        self.cause: BaseException | None = None
        self.cuts: list[int] = []  # the first frames of new scenes
        self._tracker, self._prompts, self._stages, self._progress = tracker, prompts, stages, progress
        self.warnings: list[str] = []  # about prompts
        self._say, self._warned_of_shift = say, False

    def attempt(self, begin: Callable[[], None]) -> None:
        """Segment the source to its end, or to an error, which is recorded; raised if no frame is complete yet."""
        try:
            begin()
            self._follow()
        except (Exception, KeyboardInterrupt) as e:
            if not self.results.count:
                self.results.abort()
                raise
            self._note(e)

    def _follow(self) -> None:
        count, total = 0, self.source.account.count
        # They exit in this order: first reading stops, then the finished frames are written.
        with WriteBehind(self.results.add) as writing, Prefetch(self._read(), self.source.close) as frames:
            for frame in frames:
                with self._stages.time("segment"), on_frame(frame.seq):
                    self._prompt(frame)
                    masks = self._tracker.step(frame)
                for line in masks.warnings:
                    self._warn(f"frame {frame.seq}: {line}")
                self.cuts += [frame.seq] if masks.cut else []
                writing.add((frame, masks))
                count += 1
                if self.source.account.count != total:  # the source has found its true count meanwhile
                    total = self.source.account.count
                    self._check_end(total)
                self._progress(count, total)
        if not count:
            raise SourceError(f"{self.source.uri}: holds no frame; expected at least one")
        self._check_end(count)
        if self.source.account.ended:
            self.ending.wrong(f"{self.source.uri}: ended early: {self.source.account.ended}")

    def _prompt(self, frame: Frame) -> None:
        """Give the tracker the prompts of this frame."""
        given = self._prompts.get(frame.seq, ())
        for prompt in given:
            self._tracker.give(prompt)
        line = shifted(frame, self.source.account) if given else ""
        if line and not self._warned_of_shift:
            self._warned_of_shift = True
            self._warn(line)

    def _warn(self, line: str) -> None:
        """Show a line to the user, and record it for `run.json`."""
        self.warnings.append(line)
        self._say(line)

    def _read(self) -> Iterator[Frame]:
        for frame in self.source:
            self._stages.add("grab", self.source.grab_ms)
            yield frame

    def _check_end(self, count: int | None) -> None:
        beyond = beyond_end(self._prompts, count, self.source.uri)
        if beyond and not any(fault.startswith("prompt on frame ") for fault in self.ending.faults):
            self.ending.wrong(beyond)

    def _note(self, error: BaseException) -> None:
        self.cause = error
        if isinstance(error, KeyboardInterrupt):
            self.ending.interrupt()
        elif isinstance(error, RtsegError):
            self.ending.wrong(str(error))
        else:
            self.ending.wrong(f"{type(error).__name__}: {error} (a bug, or this machine; RTSEG_DEBUG=1 shows where)")


def _finish(part: Part, run: _Run, report: Report, out: Path, say: Say) -> None:
    """Close the files and write the report. After a failure from here on, the folder is kept as it is."""
    part.keep = True
    for fault in run.results.close():
        run.ending.wrong(fault)
    changed = report.changed()
    if changed:
        run.ending.wrong(changed)
    account = run.source.account
    for line in account.lines():
        if not (account.ended and account.ended in line):  # the last line, of the ending, has this already
            say(f"{run.source.uri}: {line}")
    run.ending.faults = [fault.replace(str(part.path), str(out)) for fault in run.ending.faults]
    if run.cuts:
        say(_cuts_line(run.source.uri, run.cuts))
    part.incomplete = not run.ending.ok
    report.end(part.path, run.results.count, run.ending, run.warnings, run.cuts)


def _cuts_line(uri: str, cuts: list[int]) -> str:
    first = ", ".join(map(str, cuts[:5])) + (f" and {len(cuts) - 5} more" if len(cuts) > 5 else "")
    where = f"frame {first}" if len(cuts) == 1 else f"frames {first}"
    return f"{uri}: another scene begins with {where}; there objects are lost until they are found again, or prompted"


def _tell_of_killed(part: Part, report: Report, out: Path, say: Say) -> list[Path]:
    """Tell the user where the masks of killed runs are. Returns the folders that this run replaces when complete."""
    same = []
    for path in part.left:
        masks, is_same = leftover_of(path, report)
        fate = "removed once this run is complete" if is_same else "remove them when you have what you need"
        say(f"{out}: an earlier run was killed; its {masks} masks lie in {path} ({fate})")
        same += [path] if is_same else []
    return same


def _incomplete(run: _Run, reading: Reading, document: dict[str, Any]) -> IncompleteError:
    """The error of a run that ended early: why, how many frames are complete, where they are, and how to continue."""
    line = f"{run.ending.line}; {run.results.count} frames are whole, and lie in {document['out']}"
    if reading.damaged == "stop" and isinstance(run.cause, SourceError):
        line += "; to go on past the damage, run with --damaged skip"
    error = IncompleteError(line, {**document, "ok": False}, run.ending.code)
    error.__cause__ = run.cause
    return error
