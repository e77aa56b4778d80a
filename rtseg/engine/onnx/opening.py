"""Finds the graphs of a recipe in the package or in the cache, or makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ...base.cache import cache_root
from ...base.errors import EngineError
from ...base.files import part_folder
from ...base.types import ImageU8
from ...sam2 import Preset, get_preset
from ..recipe import Recipe
from ..threads import threads
from .engine import OnnxEngine
from .folder import Identity, cached_folder, check, install, shipped_folder, write_sidecar
from .session import need, provider_of

if TYPE_CHECKING:
    from ...sam2 import Sam2

Network = Callable[[], "Sam2"]
Note = Callable[[str], None]

_TEMPORARY: dict[Path, TemporaryDirectory[str]] = {}  # graphs that no cache could hold, until this process ends


def open(network: Network, recipe: Recipe, weights_hash: str, built: Path | None) -> OnnxEngine:
    """The engine of a recipe. `network` makes the network in torch; it is called only if there are no graphs yet."""
    provider = provider_of(recipe.runtime)
    need(provider)
    preset = get_preset(recipe.model)
    folder = built or find_graphs(network, recipe, preset, weights_hash)
    return OnnxEngine(folder, preset, recipe, weights_hash, provider, threads())


def make(network: Sam2, recipe: Recipe, folder: Path, note: Note, pictures: Sequence[ImageU8]) -> dict[str, object]:
    """Write the graphs of a network into `folder`; the result lists their names."""
    need(provider_of(recipe.runtime))
    from .export import make_graphs

    note("making the ONNX graphs")
    make_graphs(network, folder)
    return {"graphs": sorted(path.name for path in folder.glob("*.onnx"))}


def find_graphs(network: Network, recipe: Recipe, preset: Preset, weights_hash: str) -> Path:
    """The folder with the graphs of a recipe; missing graphs are made. `EngineError` if that fails."""
    expected = Identity.for_network(preset, recipe.image_size, weights_hash)
    why = f"no graphs of {recipe.model} at {recipe.image_size} px with {recipe.weights} are there"
    folders = [cached_folder(cache_root(), preset, expected)]
    if recipe.weights.startswith("package:"):
        folders.insert(0, shipped_folder(recipe.weights.removeprefix("package:"), recipe.image_size))
    for folder in filter(Path.is_dir, folders):
        try:
            check(folder, expected)
            return folder
        except EngineError as e:
            why = str(e)
    return _made_now(network, folders[-1], expected, why)


def _made_now(network: Network, final: Path, expected: Identity, why: str) -> Path:
    """Make graphs in the cache, or, if it cannot be written, in a folder that is deleted when this process ends."""
    if final in _TEMPORARY:
        return Path(_TEMPORARY[final].name)
    with ExitStack() as stack:
        try:
            part, kept = stack.enter_context(part_folder(final)), f"kept in {final}"
        except OSError as e:
            _TEMPORARY[final] = TemporaryDirectory(prefix="rtseg-onnx-", ignore_cleanup_errors=True)
            part = Path(_TEMPORARY[final].name)
            kept = f"not kept: {final.parent} cannot be written ({e.strerror}); RTSEG_CACHE may name another folder"
        try:
            _fill(network, part, expected, why, kept)
            return part if final in _TEMPORARY else install(part, final)
        except BaseException:
            if final in _TEMPORARY:
                _TEMPORARY.pop(final).cleanup()
            raise


def _fill(network: Network, part: Path, expected: Identity, why: str, kept: str) -> None:
    print(f"rtseg: {why}; making them, {kept}", file=sys.stderr)
    try:
        from .export import make_graphs

        make_graphs(network(), part, _progress)
        write_sidecar(part, expected)
    except ImportError as e:
        shipped = "nano at 320 px and micro at 224 px come with the package"
        raise EngineError(f"{why}, and to make them {e.name} is needed: pip install 'rtseg[torch]'; {shipped}") from e
    except OSError as e:
        why = f"{part}: graphs cannot be written ({e.strerror})"
        raise EngineError(f"{why}; RTSEG_CACHE may name another folder") from e


def _progress(done: int, of: int) -> None:
    """Show a progress bar in a terminal; print nothing to a log."""
    if sys.stderr.isatty():
        bar = "#" * (20 * done // of)
        print(f"\r[{bar:<20}] {done} of {of} graphs", end="\n" if done == of else "", file=sys.stderr, flush=True)
