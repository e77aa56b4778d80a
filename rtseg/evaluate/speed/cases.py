"""The engines that a benchmark measures, and the comparisons among them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...base.errors import ConfigError, EngineError
from ...engine.policy import POLICIES
from ...engine.recipe import RUNTIMES, Recipe, load_recipe

COMPARE = ("policy", "image_size")
OBJECTS = (1, 2, 4)
ISA = "RTSEG_ISA"  # restricts the kernels of the `cpu` runtime when an engine is opened


@dataclass(frozen=True, slots=True)
class BenchmarkCase:
    """One engine to be measured, with a name for people: a recipe, perhaps a variant of one.

    `isa`: the value of `RTSEG_ISA`, which limits the instruction sets of our kernels; "" does not. `unable`: why the
    engine is not opened here; "" if it is.
    """

    name: str
    recipe: Recipe
    isa: str = ""
    unable: str = ""

    @contextmanager
    def restricted(self) -> Iterator[None]:
        """A context in which engines and processes are opened with this instruction set."""
        before = os.environ.get(ISA)
        if self.isa:
            os.environ[ISA] = self.isa
        try:
            yield
        finally:
            if before is not None:
                os.environ[ISA] = before
            elif self.isa:
                del os.environ[ISA]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Engines to be compared, `names[0]` with each of the others. `about` says how they differ.

    `alike`: they have to be the same kind of engine, or else the ratio would have another reason.
    """

    about: str
    names: tuple[str, ...]
    alike: bool = False


def benchmark_cases(
    recipes: Sequence[str | Path], compare: Sequence[str] = (), runtimes: Sequence[str] = ()
) -> tuple[list[BenchmarkCase], list[Comparison]]:
    """All engines to be measured, each once, and the comparisons among them. Raises `ConfigError` for a mistake.

    With `runtimes` ("all", or names) each recipe is measured on each of these in each precision, instead of as it is.
    """
    cases: dict[tuple[Recipe, str], BenchmarkCase] = {}

    def name_of(case: BenchmarkCase) -> str:
        return cases.setdefault((case.recipe, case.isa), case).name

    stems = [Path(path).name.removesuffix(".toml") for path in recipes]  # "sam2.1-tiny" is a name, too
    given = [
        (stem if stems.count(stem) == 1 else str(path), load_recipe(path))
        for path, stem in zip(recipes, stems, strict=True)
    ]
    comparisons = []
    if runtimes:
        for name, recipe in given:
            names = tuple(name_of(case) for case in on_runtimes(name, recipe, runtimes))
            comparisons.append(Comparison(f"runtime of {name}", names))
    else:
        comparisons.append(Comparison("recipe", tuple(dict.fromkeys(name_of(BenchmarkCase(*pair)) for pair in given))))
    for about in compare:
        for name, recipe in given:
            variants = _variants(about, recipe)
            names = tuple(name_of(BenchmarkCase(f"{name} {about}={value}", made)) for value, made in variants.items())
            comparisons.append(Comparison(f"{about} of {name}: {' / '.join(variants)}", names, alike=True))
    return list(cases.values()), [q for q in comparisons if len(q.names) > 1]


def on_runtimes(name: str, recipe: Recipe, wanted: Sequence[str]) -> Iterator[BenchmarkCase]:
    """The recipe on each runtime in each precision, and the `cpu` runtime on each of its instruction sets."""
    from ...engine.runtimes import PRECISIONS, family

    known = [runtime for runtime in RUNTIMES if runtime != "auto"]
    if unknown := sorted({*wanted} - {"all", *known}):
        raise ConfigError(
            f"--runtimes {','.join(unknown)}: no such runtime; expected all, or some of: {', '.join(known)}"
        )
    for runtime in known if "all" in wanted else dict.fromkeys(wanted):
        for precision in PRECISIONS[family(runtime)]:
            made = load_recipe(recipe, runtime=runtime, precision=precision)
            for isa, limit in isas(made).items():
                yield BenchmarkCase(" ".join(filter(None, (name, runtime, precision, isa))), made, limit, unable(made))


def isas(recipe: Recipe) -> dict[str, str]:
    """Each instruction set that our kernels can use for a recipe here, with the value of `RTSEG_ISA` that selects it.

    Only "" for a recipe that does not use the kernels.
    """
    from ...engine.runtimes import has_torch

    if recipe.runtime != "cpu" or not has_torch():
        return {"": ""}
    from ...engine.cpu import isa

    found: dict[str, str] = {}
    with suppress(EngineError):
        for limit in isa.available_isas():
            with suppress(EngineError), BenchmarkCase("", recipe, limit).restricted():
                found.setdefault(isa.isa_for(recipe.precision), limit)
    return found or {"": ""}


def unable(recipe: Recipe) -> str:
    """Why a recipe is not worth measuring here, although it can be opened; "" if it is."""
    from ...engine.runtimes import device_of, has_torch

    if recipe.precision != "fp16" or recipe.runtime != "torch" or not has_torch():
        return ""
    with suppress(EngineError):  # opening it reports a device that is missing
        if device_of("torch", recipe.device) == "cpu":
            return "torch multiplies fp16 fast on GPUs only, and this recipe runs on the CPU"
    return ""


def _variants(about: str, recipe: Recipe) -> dict[str, Recipe]:
    """The variants of a recipe that differ in `about`, the baseline first."""
    if about == "policy":
        compared = [policy.name for policy in POLICIES.values() if policy.compared]
        return {policy: load_recipe(recipe, policy=policy) for policy in compared}
    half = recipe.image_size // 64 * 32  # rounded down to a valid image size
    if half < 64:
        size = f"{recipe.path or 'the recipe'} has {recipe.image_size} px"
        raise ConfigError(f"--compare image_size: {size}, and half of that is below 64; leave it out")
    sizes = (recipe.image_size, half)
    return {str(size): load_recipe(recipe, image_size=size) for size in sizes}


def choose_objects(wanted: Sequence[int] | None, cases: Sequence[BenchmarkCase], few: bool = False) -> tuple[int, ...]:
    """The numbers of objects to measure with, least first. Raises `ConfigError` if a recipe does not allow so many.

    None: those of 1, 2 and 4 that every recipe allows; with `few` only 1.
    """
    least = min(cases, key=lambda case: case.recipe.max_objects)
    limit = least.recipe.max_objects
    if wanted is None:
        return OBJECTS[:1] if few else tuple(n for n in OBJECTS if n <= limit)
    if max(wanted) > limit:
        where = least.recipe.path or least.name
        raise ConfigError(f"--objects {max(wanted)}: {where} says max_objects = {limit}; ask for fewer, or raise it")
    return tuple(sorted(set(wanted)))
