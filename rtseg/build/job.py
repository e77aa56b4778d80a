"""The build of one engine: make its artifacts, check them against the reference, install them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..base.errors import EngineError
from ..base.files import install_folder, part_folder
from ..base.types import ImageU8, Masks
from ..engine import Engine, find_weights
from ..engine.artifact import check, write
from ..engine.identity import identity
from ..engine.memory_estimate import check as check_room
from ..engine.recipe import Recipe
from ..engine.reference import TorchEngine
from ..engine.refusal import clear_refusal, refusal, refuse
from ..engine.runtimes import WITHOUT_TORCH, device_of, family, runtime_module
from ..engine.weights import hash_weights
from ..sam2 import Sam2, get_preset, load_weights
from .clips import Clip, calibration_images
from .parity import check_parity, explain
from .timing import verb_times_ms

EIGHT_BITS = ("int8", "fp8")

Note = Callable[[str], None]
Progress = Callable[[int, int | None], None]
Report = dict[str, Any]


class BuildJob:
    """The build of one recipe whose runtime and precision are settled."""

    def __init__(self, recipe: Recipe, note: Note, progress: Progress) -> None:
        self.recipe, self.note, self.progress = recipe, note, progress
        self.name = f"{recipe.runtime}, {recipe.precision}"
        self.network = Sam2(get_preset(recipe.model), recipe.image_size)
        weights = find_weights(recipe.weights)
        load_weights(self.network, weights)
        self.weights_hash = hash_weights(recipe.weights, weights)
        self.identity = identity(recipe, self.network.preset, self.weights_hash)
        # The reference runs on the engine's device; for ONNX Runtime, whose arrays are on the host, on the CPU.
        self.device = device_of(recipe.runtime, recipe.device)

    def installed(self, final: Path) -> Report | None:
        """The report of the installed engine; None if there is none, or if it has to be checked again."""
        try:
            found = check(final, self.identity, self.recipe)
        except EngineError:
            return None
        # A CPU engine does not depend on the size, but it was not checked at another one.
        if found.get("image_size") != self.recipe.image_size or refusal(self.recipe, self.identity):
            return None
        text = f"{final} is there and fits; --force builds it again"
        return {"ok": True, "recipe": str(self.recipe.path), "said": text, "built": str(final), **found}

    def run(self, final: Path, clips: Sequence[Clip]) -> Report:
        """Make the engine, check it on each clip, and install it if all checks pass; otherwise record the refusal."""
        with part_folder(final) as folder:
            made, engine = self.make(folder, clips)
            checks = [self.check(engine, clip) for clip in clips]
            failed = "; ".join(explain(check) for check in checks if not check["ok"])
            report: Report = {"ok": not failed, "recipe": str(self.recipe.path), "engine": engine.description}
            if failed:
                refuse(final, folder, self.identity, failed)
                left = "what was there stays" if final.exists() else "nothing was installed"
                return report | {"said": f"the masks differ from the reference's: {failed}; {left}", "parity": checks}
            self.note("timing")
            facts = {
                "engine": engine.description,
                "image_size": self.recipe.image_size,
                "made": made,
                "parity": checks,
                "timings_ms": verb_times_ms(engine, clips[0]),
            }
            sidecar = write(folder, self.identity, facts)
            install_folder(folder, final)
            clear_refusal(final)
        return report | {"said": f"installed in {final}", "built": str(final), **sidecar}

    def facts(self, folder: Path, clips: Sequence[Clip], expected: Sequence[Sequence[Masks]]) -> Report:
        """Make the engine in a folder, check it against the reference's masks, and free its memory again."""
        made, engine = self.make(folder, clips)
        checks = [self.check(engine, *given) for given in zip(clips, expected, strict=True)]
        return {"engine": engine.description, "made": made, "parity": checks}

    def make(self, folder: Path, clips: Sequence[Clip]) -> tuple[Report, Engine]:
        """Make the artifacts in a folder. Returns the runtime's report about them, and the engine that uses them.

        Eight-bit precisions are also calibrated on `clips[1]`, the user's clip, if there is one.
        """
        check_room(self.recipe, self.recipe.device)
        module, made = runtime_module(self.recipe.runtime), {}
        if hasattr(module, "make"):
            self.note(f"building for {self.name}")
            images: list[ImageU8] = []
            if self.recipe.precision in EIGHT_BITS:
                images = calibration_images(self.recipe.image_size, clips[1] if len(clips) > 1 else None)
            # A copy, because a runtime may change the dtypes of the network that it gets.
            made = module.make(deepcopy(self.network), self.recipe, folder, self.note, images)
        return made, self.open(folder)

    def open(self, folder: Path) -> Engine:
        """Open the engine whose artifacts are in a folder."""
        module, network = runtime_module(self.recipe.runtime), deepcopy(self.network)
        given = (lambda: network) if family(self.recipe.runtime) in WITHOUT_TORCH else network
        engine: Engine = module.open(given, self.recipe, self.weights_hash, folder)
        return engine

    def check(self, engine: Engine, clip: Clip, expected: Sequence[Masks] | None = None) -> Report:
        """Run the parity check on a clip and return its report. `expected`: the reference's masks, if known already."""
        self.note(f"checking {self.name} against the fp32 reference on {clip.name}")
        return check_parity(self.reference(), engine, clip, self.progress, expected)

    def reference(self) -> Engine:
        """The reference engine: the same network in torch, in fp32."""
        plain = replace(self.recipe, runtime="torch", precision="fp32")
        return TorchEngine(deepcopy(self.network), plain, self.weights_hash, self.device)
