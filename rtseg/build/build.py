"""`rtseg build RECIPE`: make an engine in a private folder, prove it on a clip, time it, and then install it.

With `runtime = "auto"` every runtime and precision that can run here is proved, and the fastest that passes installed.
"""

from __future__ import annotations

import errno
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..base.errors import ConfigError, EngineError, RtsegError, WeightsError
from ..base.files import file_sha256
from ..base.types import ImageU8, Masks, now_ns
from ..engine import Array, Decoded, Engine, Features, Prompts, Recall, Remembered, find_weights
from ..engine.artifact import check, folder_of, forgive, identity, refusal, refuse, write
from ..engine.artifact import fastest as fastest_built
from ..engine.base import Verbs
from ..engine.install import exclusive, install, workplace
from ..engine.opening import in_one_line
from ..engine.recipe import Recipe, load_recipe
from ..engine.reference import TorchEngine
from ..engine.room import check as check_room
from ..engine.runtimes import WITHOUT_TORCH, candidates, device_of, family, runtime_module, settle
from ..sam2 import Sam2, get_preset, load_weights
from ..track import Tracker
from .clips import Clip, calibration, synthetic_clip, user_clip
from .fastest import Entry, fastest, measure
from .gate import explain, gate, reference_masks

EIGHT_BITS = ("int8", "fp8")

Note = Callable[[str], None]
Progress = Callable[[int, int | None], None]
Report = dict[str, Any]


def build_all(
    recipes: Sequence[Path], clip: str | None = None, prompts: Path | None = None, *, force: bool = False,
    note: Note = print, progress: Progress = lambda done, total: None,
) -> Report:  # fmt: skip
    """`build` each of several recipes. One that cannot be built does not keep the others; a single one raises."""
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
    """Build the engine of a recipe file, prove it, and install it in `built/` beside the recipe.

    It is proved on a synthetic clip, and on `clip` too where one is given (with `prompts`, a file as for segment). An
    engine that is there and fits is kept, unless `force` or `clip` asks for another proof. `note` is called with lines
    for people, `progress` with (frames proved, frames in all or None).

    Returns the report; `ok` is False if the gate failed. What was installed before is still there then, and the refusal
    is recorded: until a build passes, `open_engine` does not run an engine that was made like the refused one. Raises
    an `RtsegError`: there is nothing to prove then.
    """
    given = load_recipe(recipe)
    final = folder_of(given)
    if final is None:
        raise ConfigError("a recipe without a file cannot be built; write it to NAME.toml")
    if prompts is not None and clip is None:
        raise ConfigError(f"{prompts}: prompts for no clip; give --clip too")
    settled = [] if given.runtime == "auto" else [settle(given)]
    if given.runtime == "torch":
        if clip is not None:
            raise ConfigError(f"{given.path}: runtime torch is the reference: there is nothing to prove on a clip")
        return {"ok": True, "recipe": str(given.path), "said": "torch is the reference: there is nothing to build"}
    with _one_line(given, final):
        jobs = [_Job(recipe, note, progress) for recipe in settled or candidates(given)]
        clips = [synthetic_clip(given.image_size, given.max_objects)]
        if clip is not None:
            clips.append(user_clip(clip, prompts, given.max_objects))
            if prompts is None:
                note(f"{clip}: no --prompts: following boxes in its middle and at both sides")
        with exclusive(final, note):
            kept = None if force or clip is not None else _kept(given, jobs, final)
            return kept or (_measured(jobs, final, clips) if given.runtime == "auto" else jobs[0].run(final, clips))


def _kept(given: Recipe, jobs: Sequence[_Job], final: Path) -> Report | None:
    """The report of what is installed, if it may be run as it is."""
    measured = {(recipe.runtime, recipe.precision) for recipe in fastest_built(given)}
    there = [job for job in jobs if len(jobs) == 1 or (job.recipe.runtime, job.recipe.precision) in measured]
    return next((report for job in there if (report := job.kept(final))), None)


def _measured(jobs: Sequence[_Job], final: Path, clips: list[Clip]) -> Report:
    """Prove every candidate, time those that pass, and install the fastest."""
    note, recipe = jobs[0].note, str(jobs[0].recipe.path)
    with workplace(final) as part:
        note("following the clip with the reference")
        expected = [list(reference_masks(jobs[0].reference(), clip)) for clip in clips]
        entries: dict[str, Entry] = {}
        kept: dict[str, tuple[_Job, Path, Report]] = {}
        for job in jobs:
            name = f"{job.recipe.runtime}, {job.recipe.precision}"
            folder = part / name.replace(", ", "-").replace(":", "-")
            folder.mkdir()
            entries[name] = Entry(name, partial(job.open, folder))
            try:
                facts = job.tried(folder, clips, expected)
            except (ConfigError, WeightsError, OSError):
                raise  # of which no other runtime is free
            except Exception as e:  # a fault of CUDA, a library of another version: the others may do
                entries[name].said = in_one_line(e)
                continue
            proofs = facts["parity"]
            entries[name].least_iou = min(proof["least"] for proof in proofs)
            entries[name].said = "; ".join(explain(proof) for proof in proofs if not proof["ok"])
            kept[name] = job, folder, facts
        passed = [entry for entry in entries.values() if entry.ok]
        if not passed:
            said = "; ".join(f"{entry.name}: {entry.said}" for entry in entries.values())
            return {
                "ok": False,
                "recipe": recipe,
                "said": f"nothing that can run here gives the reference's masks: {said}",
            }
        measure(passed, clips[0], note)
        best = fastest(passed)
        job, folder, facts = kept[best.name]
        table = [entry.row() for entry in entries.values()]
        timings = {"timings_ms": times(job.open(folder), clips[0])}
        sidecar = write(
            folder, job.identity, facts | timings | {"image_size": job.recipe.image_size, "candidates": table}
        )
        install(folder, final)
        forgive(final)
    said = f"{best.name} is the fastest of {len(passed)} that passed; installed in {final}"
    return {"ok": True, "recipe": recipe, "said": said, "built": str(final), **sidecar}


class _Job:
    """One engine on its way from a network to its place."""

    def __init__(self, recipe: Recipe, note: Note, progress: Progress) -> None:
        self.recipe, self.note, self.progress = recipe, note, progress
        self.network = Sam2(get_preset(recipe.model), recipe.image_size)
        weights = find_weights(recipe.weights)
        load_weights(self.network, weights)
        self.weights_hash = file_sha256(weights)
        self.identity = identity(recipe, self.network.preset, self.weights_hash)
        # The reference works where the engine does; beside ONNX Runtime, whose arrays are the host's, on the CPU.
        self.device = device_of(recipe.runtime, recipe.device)

    def kept(self, final: Path) -> Report | None:
        """The report of the engine that is there, if it may be run as it is."""
        try:
            found = check(final, self.identity, self.recipe)
        except EngineError:
            return None
        # At another size an engine of the CPU is the same, and its proof is not.
        if found.get("image_size") != self.recipe.image_size or refusal(self.recipe, self.identity):
            return None
        said = f"{final} is there and fits; --force builds it again"
        return {"ok": True, "recipe": str(self.recipe.path), "said": said, "built": str(final), **found}

    def run(self, final: Path, clips: list[Clip]) -> Report:
        with workplace(final) as part:
            made, engine = self.make(part, clips)
            proofs = [self.prove(engine, clip) for clip in clips]
            failed = [explain(proof) for proof in proofs if not proof["ok"]]
            report: Report = {"ok": not failed, "recipe": str(self.recipe.path), "engine": engine.description}
            if failed:
                refuse(final, part, self.identity, "; ".join(failed))
                kept = "what was there stays" if final.exists() else "nothing was installed"
                return report | {"said": f"not the reference's masks: {'; '.join(failed)}; {kept}", "parity": proofs}
            self.note("timing")
            facts = {
                "engine": engine.description,
                "image_size": self.recipe.image_size,
                "made": made,
                "parity": proofs,
                "timings_ms": times(engine, clips[0]),
            }
            sidecar = write(part, self.identity, facts)
            install(part, final)
            forgive(final)
        return report | {"said": f"installed in {final}", "built": str(final), **sidecar}

    def tried(self, part: Path, clips: list[Clip], expected: Sequence[Sequence[Masks]]) -> Report:
        """What it is and how near to the reference; the engine itself is gone then, and its memory free."""
        made, engine = self.make(part, clips)
        proofs = [self.prove(engine, *given) for given in zip(clips, expected, strict=True)]
        return {"engine": engine.description, "made": made, "parity": proofs}

    def make(self, part: Path, clips: list[Clip]) -> tuple[Report, Engine]:
        """The artifacts in `part`, and the engine that runs on them."""
        check_room(self.recipe, self.recipe.device)
        module, own, made = runtime_module(self.recipe.runtime), clips[1] if len(clips) > 1 else None, {}
        if hasattr(module, "make"):
            self.note(f"building for {self.recipe.runtime}, {self.recipe.precision}")
            pictures: list[ImageU8] = []
            if self.recipe.precision in EIGHT_BITS:
                pictures = calibration(self.recipe.image_size, own)
            # Copies: a runtime may change the types of the network that it is given.
            made = module.make(deepcopy(self.network), self.recipe, part, self.note, pictures)
        return made, self.open(part)

    def open(self, part: Path) -> Engine:
        """The engine on the artifacts in `part`."""
        module, network = runtime_module(self.recipe.runtime), deepcopy(self.network)
        given = (lambda: network) if family(self.recipe.runtime) in WITHOUT_TORCH else network
        engine: Engine = module.open(given, self.recipe, self.weights_hash, part)
        return engine

    def prove(self, engine: Engine, clip: Clip, expected: Sequence[Masks] | None = None) -> Report:
        what = f"{self.recipe.runtime}, {self.recipe.precision}"
        self.note(f"proving {what} on {clip.name}, with its memory, beside the reference in fp32")
        return gate(self.reference(), engine, clip, self.progress, expected)

    def reference(self) -> Engine:
        plain = replace(self.recipe, runtime="torch", precision="fp32")
        return TorchEngine(deepcopy(self.network), plain, self.weights_hash, self.device)


def times(engine: Engine, clip: Clip) -> dict[str, float]:
    """The median time in ms of each verb, and of `track`, over a clip; for orientation, `rtseg bench` measures."""
    timed = _Timed(engine)
    tracker = Tracker(timed)
    for frame in clip.frames():
        for prompt in clip.prompts.get(frame.seq, ()):
            tracker.give(prompt)
        tracker.step(frame)
    # What was called first was warmed up then: the first half is not counted.
    return {verb: round(statistics.median(ms[len(ms) // 2 :]), 3) for verb, ms in timed.ms.items() if ms}


class _Timed(Verbs):
    """An engine with a clock: tracked frames are asked in turn as a whole, and verb by verb."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.recipe, self.preset, self.image_size = engine, engine.recipe, engine.preset, engine.image_size
        self.weights_hash, self.description = engine.weights_hash, engine.description
        self.ms: dict[str, list[float]] = {v: [] for v in ("encode_image", "attend", "decode", "remember", "track")}
        self._whole = False

    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._clock("encode_image"):
            return self.engine.encode_image(image_hwc)

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        with self._clock("attend"):
            return self.engine.attend(features, recalls)

    def decode(self, conditioned_bchw: Array, features: Features, prompts: Prompts) -> Decoded:
        with self._clock("decode"):
            return self.engine.decode(conditioned_bchw, features, prompts)

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        with self._clock("remember"):
            return self.engine.remember(features, logits_b1hw, score_b, prompted)

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        self._whole = not self._whole
        if not self._whole:
            return super().track(image_hwc, recalls)
        with self._clock("track"):
            return self.engine.track(image_hwc, recalls)

    def _wait(self) -> None:
        if self.recipe.device.startswith("cuda"):
            torch.cuda.synchronize(self.recipe.device)

    @contextmanager
    def _clock(self, verb: str) -> Iterator[None]:
        self._wait()  # what an earlier verb has launched is not this one's
        start_ns = now_ns()
        yield
        self._wait()
        self.ms[verb].append((now_ns() - start_ns) / 1e6)


@contextmanager
def _one_line(recipe: Recipe, final: Path) -> Iterator[None]:
    """What a machine may run out of, or fail at, as a line that says what would help."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not isinstance(e, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(e):
            if "CUDA" not in str(e):
                raise
            raise EngineError(f"{recipe.path}: {in_one_line(e)}") from e  # a GPU that is there, and broken
        asked = f"image_size = {recipe.image_size}, max_objects = {recipe.max_objects}"
        raise EngineError(f"{recipe.path}: out of memory with {asked}; lower one of them, or free some") from e
    except OSError as e:
        way_out = "free the space" if e.errno in (errno.ENOSPC, errno.EDQUOT) else "expected a folder you may write to"
        raise EngineError(f"{final}: cannot be built ({e.strerror or e}); {way_out}") from e
