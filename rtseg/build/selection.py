"""`rtseg build` with `runtime = "auto"`: check all candidates, time those that pass, install the fastest.

Candidates are timed in turns on the same frames, with as many objects as the recipe allows, on one thread and on all
cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch

from ..base.errors import ConfigError, WeightsError
from ..base.files import install_folder, part_folder
from ..base.hardware.cpu import cpu_cores
from ..base.types import Masks
from ..engine import Engine
from ..engine.artifact import write
from ..engine.opening import in_one_line
from ..engine.refusal import clear_refusal
from ..engine.threads import at_most
from .clips import Clip
from .job import BuildJob, Report
from .parity import explain, reference_masks
from .timing import step_times_ms, verb_times_ms

ROUNDS = 2  # turns of each candidate
TIE = 0.05  # a less exact candidate is chosen only if it saves more than this share of the time


@dataclass(slots=True)
class Candidate:
    """An engine that may be installed: how to open it, the result of its check, and its step times (ms) by threads."""

    name: str
    open: Callable[[], Engine]
    failure: str = ""
    least_iou: float | None = None
    facts: Report = field(default_factory=dict)
    steps_ms: dict[int, list[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.least_iou is not None and not self.failure

    @property
    def ms(self) -> dict[int, float]:
        return {threads: round(median(steps), 2) for threads, steps in self.steps_ms.items()}

    def row(self) -> dict[str, Any]:
        """The candidate's entry in the report."""
        found: dict[str, Any] = {"name": self.name, "ok": self.ok}
        if self.least_iou is not None:
            found["least_iou"] = round(self.least_iou, 4)
        return found | ({"step_ms": self.ms} if self.ms else {}) | ({"said": self.failure} if self.failure else {})


def build_fastest(jobs: Sequence[BuildJob], final: Path, clips: Sequence[Clip]) -> Report:
    """Check every candidate, time those that pass, and install the fastest."""
    note, recipe = jobs[0].note, str(jobs[0].recipe.path)
    with part_folder(final) as workspace:
        note("following the clip with the reference")
        expected = [list(reference_masks(jobs[0].reference(), clip)) for clip in clips]
        folders = [workspace / f"{i}" for i in range(len(jobs))]
        candidates = [_checked(job, folder, clips, expected) for job, folder in zip(jobs, folders, strict=True)]
        passed = [candidate for candidate in candidates if candidate.ok]
        if not passed:
            failures = "; ".join(f"{candidate.name}: {candidate.failure}" for candidate in candidates)
            text = f"no engine that runs here gives the reference's masks: {failures}"
            return {"ok": False, "recipe": recipe, "said": text}
        time_candidates(passed, clips[0], note)
        best = fastest(passed)
        chosen = candidates.index(best)
        facts = best.facts | {
            "timings_ms": verb_times_ms(best.open(), clips[0]),
            "image_size": jobs[chosen].recipe.image_size,
            "candidates": [candidate.row() for candidate in candidates],
        }
        sidecar = write(folders[chosen], jobs[chosen].identity, facts)
        install_folder(folders[chosen], final)
        clear_refusal(final)
    text = f"{best.name} is the fastest of {len(passed)} that passed; installed in {final}"
    return {"ok": True, "recipe": recipe, "said": text, "built": str(final), **sidecar}


def _checked(job: BuildJob, folder: Path, clips: Sequence[Clip], expected: Sequence[Sequence[Masks]]) -> Candidate:
    """Make a candidate in a folder and check it. A candidate that cannot run here has failed."""
    folder.mkdir()
    candidate = Candidate(job.name, partial(job.open, folder))
    try:
        candidate.facts = job.facts(folder, clips, expected)
    except (ConfigError, WeightsError, OSError):
        raise  # every other runtime would fail in the same way
    except Exception as e:  # CUDA may fail, a library may have another version: the other runtimes may still work
        candidate.failure = in_one_line(e)
        return candidate
    checks = candidate.facts["parity"]
    candidate.least_iou = min(check["least"] for check in checks)
    candidate.failure = "; ".join(explain(check) for check in checks if not check["ok"])
    return candidate


def time_candidates(candidates: Sequence[Candidate], clip: Clip, note: Callable[[str], None]) -> None:
    """Time the steps of each candidate on the first frames of a clip, on one thread and on all cores."""
    for threads in sorted({1, cpu_cores()}):
        note(f"timing {len(candidates)} engines with {threads} thread{'s' * (threads > 1)}")
        with _torch_threads(threads), at_most(threads):
            engines = [candidate.open() for candidate in candidates]
            for _ in range(ROUNDS):
                for candidate, engine in zip(candidates, engines, strict=True):
                    candidate.steps_ms.setdefault(threads, []).extend(step_times_ms(engine, clip))


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the least geometric mean over all thread counts. Of those within `TIE` the earlier one wins,
    because candidates are in the order of their exactness.
    """
    best = candidates[0]
    for candidate in candidates[1:]:
        if geometric_mean(candidate.ms.values()) < (1 - TIE) * geometric_mean(best.ms.values()):
            best = candidate
    return best


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
