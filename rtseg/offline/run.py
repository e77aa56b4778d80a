"""The run of `rtseg segment`: reading, network and writing at the same time, each in a thread, with frames in order.

The network leaves a core to the other threads: if they used one of its cores, all threads of a matrix product would
wait for that one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, RtsegError, did_you_mean
from ..base.prompt_files import as_prompts
from ..base.result_folder import Part, check_apart, result_folder
from ..base.timing import Stages
from ..engine import Engine, open_engine, spare_core
from ..engine.recipe import Recipe, load_recipe
from ..grab import Source
from .check import PromptsByFrame, check_prompts
from .directions import Directed, check_readable, steps_for
from .following import Run
from .formats import check_formats
from .identity import identity_of
from .opening import decoder_of, opened
from .report import Report, cuts_line, incomplete
from .request import Finish, Progress, Request, Say, filters_of, hooks_of, write_also
from .results import Results
from .resuming import done_already, finished_by, keep_for_later, manifest_for, seal, tell_of_killed
from .settings import PICTURES, WAYS, Reading, Steps, Tracking, Uri, Way, files_of, uris_of


def segment(
    source: Uri | Sequence[Uri],
    prompts: PromptsByFrame,
    out: str | Path,
    engine: str | Path | Recipe | Engine | None = None,
    *,
    reading: Reading = Reading(),  # noqa: B008  # it is frozen
    direction: Way = "forward",
    across_cuts: bool = False,
    slices: bool = False,
    frames: str | None = None,
    deidentify: Sequence[str] = (),
    also: Sequence[str] = (),
    force: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Segment every frame of a source and write the folder `out`.

    It goes on where an earlier run of the same configuration was killed, and does nothing where one is complete.

    Arguments:
        source: what `open_source` opens; several uris are one recording.
        prompts: frame number to the prompts on that frame.
        out: the folder; it appears when the run has ended.
        engine: a recipe file, a recipe that was read, or an open engine; None is the shipped `nano`.
        reading: how the source is read: deinterlacing, damage, rate, ...
        direction: "forward" from the prompted frames, "backward", or "both", which are merged by confidence.
        across_cuts: objects are tracked across cuts to other scenes, too.
        slices: the pictures are slices of a volume: they have no cuts and no motion.
        frames: "jpg" or "png" writes the frames themselves, too.
        deidentify: what is hidden in all that is written: "out-of-body" frames, burned-in "text"; then names are, too.
        also: formats of other programs (`rtseg.offline.formats.FORMATS`) that are written, too, to `formats/`.
        force: replace an earlier result.
        progress: called with the number of frames done, and of all frames or None.
        say: called with each line for the user.

    Returns:
        The content of `run.json`; with `"skipped": True` where an earlier result is complete.

    Raises:
        IncompleteError: the run ended early; the frames until then are kept, and the error says where. If that was not
            the source's fault, the next run goes on from there.
        RtsegError: any other failure; `out` is unchanged.
    """
    if frames not in (None, *PICTURES):
        raise ConfigError(f"frames = {frames!r}; {did_you_mean(str(frames), PICTURES)}")
    if direction not in WAYS:
        raise ConfigError(f"direction = {direction!r:.40}; {did_you_mean(str(direction), WAYS)}")
    if also:
        check_formats(also)
    tracking = Tracking(direction, across_cuts, slices)
    opened_one = None if engine is None or isinstance(engine, (str, Path, Recipe)) else engine
    recipe = opened_one.recipe if opened_one else load_recipe(engine)  # type: ignore[arg-type]  # mypy cannot tell
    request = Request(
        uris_of(source), as_prompts(prompts), Path(out), recipe, reading, tracking, frames, progress, say,
        engine=opened_one, deidentify=deidentify, also=also,
    )  # fmt: skip
    return _write(request, force)


def write_masks(
    source: Uri, prompts: PromptsByFrame, out: Path, steps: Steps, *, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Write the folder that `segment` writes, in place of an earlier one, with masks that `steps` gives."""
    recipe = steps.engine.recipe
    return _write(
        Request([str(source)], prompts, out, recipe, Reading(), Tracking(), None, progress, _silent, steps), True
    )


def _silent(line: str) -> None:
    """Nobody listens."""


def _write(request: Request, force: bool) -> dict[str, Any]:
    out, made_from = request.out, identity_of(request)
    if force:
        check_apart(request.uris, out)
    elif earlier := done_already(out, made_from):
        request.say(f"{out}: is done already, by rtseg {earlier.get('versions', {}).get('rtseg')}")
        if request.also:
            write_also(out, request)
        return {**earlier, "out": str(out), "skipped": True}
    with result_folder(out, force) as part:
        whole = finished_by(part, made_from)
        run, report = (None, None) if whole else _run(request, part, made_from)
    if run is None or report is None:
        return {**(whole or {}), "out": str(out)}
    beside = part.final is not None and part.final != out.resolve()
    document = {**report.document, "out": str(part.path if part.unfinished else part.final if beside else out)}
    if not run.ending.ok:
        manifest = run.results.manifest if part.unfinished else None
        count = manifest.frames if manifest else run.results.count
        raise incomplete(run.ending, run.cause, count, request.reading, document, later=part.unfinished)
    return document


def _run(request: Request, part: Part, made_from: dict[str, Any] | None) -> tuple[Run, Report]:
    """Segment the source into the folder `part`. Returns the run, which knows how it ended, and its report.

    `made_from`: what the result depends on; None: no later run can go on with this one.
    """
    recipe, reading, say = request.recipe, request.reading, request.say
    check_readable(request.tracking, request.uris, reading)
    files = files_of(request.uris)  # before the source is opened, so that any later change is noticed
    filters = filters_of(request)
    gpu, painter = decoder_of(recipe, reading, "--frames" if request.frames else "--deidentify" * bool(filters))
    with opened(request.uris, reading, gpu) as source:
        request = _for_volume(request, source)
        check_prompts(request.prompts, source, recipe.max_objects, backward=request.tracking.direction == "backward")
        stages = Stages("grab", "segment", "overlay", "write")  # each stage runs in one thread
        engine = request.steps.engine if request.steps else request.engine or _engine(request)
        manifest, state = manifest_for(part, made_from, engine, request)
        steps = request.steps or _steps(request, engine, stages)
        report = Report(
            request.uris, files, reading, request.tracking, source, steps.engine, request.prompts, stages, filters
        )
        same = tell_of_killed(part, report, request.out, say)
        results = Results(part.path, source, stages, request.frames, painter, filters, manifest)
        run = Run(source, steps, request.prompts, results, stages, request.progress, say, filters)
        if state is not None:
            run.go_on(state)
        try:
            run.attempt(lambda: _begin(request, report, part.path, run))
            _finish(part, run, report, request, hooks_of(request))
        except (Exception, KeyboardInterrupt) as e:
            if isinstance(steps, Directed) and not run.results.count and run.may_go_on_after(e):
                part.keep = part.unfinished = True
                say(f"{request.out}: the backward pass is kept; the next run goes on with it")
            raise
        finally:
            if isinstance(steps, Directed):
                steps.close(for_later=part.unfinished)
    if run.ending.ok:
        for path in same:
            shutil.rmtree(path, ignore_errors=True)
    return run, report


def _for_volume(request: Request, source: Source) -> Request:
    """The request, in which the pictures of a source that says so are slices."""
    if source.geometry is None or not source.geometry.volume:
        return request
    return replace(request, tracking=replace(request.tracking, slices=True))


def _engine(request: Request) -> Engine:
    with spare_core():
        return open_engine(request.recipe)


def _steps(request: Request, engine: Engine, stages: Stages) -> Steps:
    return steps_for(request.tracking, engine, request.uris, request.reading, request.prompts, stages)


def _begin(request: Request, report: Report, folder: Path, run: Run) -> None:
    """Write what is known before the first frame, and make a backward pass, if one is asked for."""
    report.begin(folder)
    if isinstance(run.steps, Directed):
        ahead, count = run.steps.frames_ahead, run.source.account.count
        total = None if count is None else ahead + count
        run.steps.prepare(
            folder, lambda: opened(request.uris, request.reading, None), lambda done: request.progress(done, total)
        )
        for line in run.steps.warnings:
            if line not in run.warnings:  # which has those of an earlier run, where this one goes on
                run.warn(line)


def _finish(part: Part, run: Run, report: Report, request: Request, hooks: Sequence[Finish]) -> None:
    """Close the files and write the report. After a failure from here on, the folder is kept as it is."""
    part.keep = True
    out, say, manifest = request.out, request.say, run.results.manifest
    if manifest and run.may_go_on_after(run.cause):
        run.results.abort()
        keep_for_later(part, manifest)
        return
    for fault in run.finish():
        run.ending.wrong(fault)
    changed = report.changed()
    if changed:
        run.ending.wrong(changed)
    account = run.source.account
    for line in account.lines():
        if not (account.ended and account.ended in line):  # the last line, of the ending, has this already
            say(f"{run.source.uri}: {line}")
    run.ending.faults = [fault.replace(str(part.path), str(out)) for fault in run.ending.faults]
    if isinstance(run.steps, Directed):
        run.cuts = run.steps.all_cuts(run.cuts)
        report.document |= run.steps.account()
    if run.cuts:
        say(cuts_line(run.source.uri, run.cuts))
    for one in run.filters:
        say(one.line())
    report.end(part.path, run.results.count, run.ending, run.warnings, run.cuts)
    for hook in hooks:
        try:
            hook(part.path)
        except (RtsegError, OSError) as e:
            run.ending.wrong(str(e).replace(str(part.path), str(out)))
            report.end(part.path, run.results.count, run.ending, run.warnings, run.cuts)
    part.incomplete = not run.ending.ok
    if run.results.manifest:
        seal(run.results.manifest, part.path, account, run.ending.ok)
