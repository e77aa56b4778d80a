"""Finding the weights of a recipe, and loading the network with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..base.documents import is_file
from ..base.errors import WeightsError, did_you_mean
from ..base.files import file_sha256
from ..sam2 import Preset
from .catalogue import check_unchanged, fetch, find_cached, not_fetched, read_table
from .catalogue.download import Progress
from .catalogue.fetch import Note
from .recipe import FILE_SUFFIXES, SHIPPED

if TYPE_CHECKING:
    from ..sam2 import Sam2
    from ..sam2.adapters import Adapters


def load_network(preset: Preset, image_size: int, weights: Path, adapters: Adapters | None = None) -> Sam2:
    """The torch network of a preset, with the weights from a file, and adapters that can be merged merged into them.

    Raises `WeightsError` if they do not fit; it names the preset that they do fit, such as an earlier network's.
    """
    from ..sam2 import Sam2, load_weights
    from .reference import one_thread

    with one_thread():
        network = Sam2(preset, image_size)
        try:
            load_weights(network, weights)
        except WeightsError as e:
            fitting = _fitting_presets(weights)
            if fitting and preset.name not in fitting:
                raise WeightsError(f"{e} It fits {' or '.join(map(repr, fitting))}") from e
            raise
        if adapters is not None:
            adapters.merge(network)
    return network


def _fitting_presets(weights: Path) -> tuple[str, ...]:
    """The presets whose network a file of weights fits."""
    from .catalogue.recognise import recognise

    try:
        return recognise(weights).presets
    except WeightsError:
        return ()


def find_weights(weights: str) -> Path:
    """The file that a recipe's `weights` names. Raises `WeightsError` if it does not exist."""
    if weights.startswith("package:"):
        path = SHIPPED / (weights.removeprefix("package:") + ".safetensors")
        if not is_file(path):
            shipped = ", ".join(sorted(f"package:{p.stem}" for p in SHIPPED.glob("*.safetensors"))) or "none"
            raise WeightsError(f"weights = {weights!r}: not shipped in this package; there are: {shipped}")
        return path
    published = read_table().entries
    if weights in published:
        cached = find_cached(weights)
        if cached is None:
            raise not_fetched(weights)
        return cached
    path = Path(weights)
    if is_file(path):
        return path
    if "/" in weights or weights.endswith(FILE_SUFFIXES):
        raise WeightsError(f"{path}: no such file; expected weights as .pt or .safetensors")
    near = did_you_mean(weights, published)
    raise WeightsError(f"weights = {weights!r}: no such file, and no published weights of this name; {near}")


def fetch_weights(weights: str, note: Note, progress: Progress = lambda done, total: None) -> None:
    """Fetch the weights of a recipe, if they are published ones that are not in the cache; raises as `fetch` does."""
    if weights in read_table().entries:
        fetch(weights, note=note, progress=progress)


def hash_weights(weights: str, path: Path) -> str:
    """The SHA-256 of the file of a recipe's `weights`. Raises `WeightsError` if a fetched file has changed since."""
    sha256 = file_sha256(path)
    if weights in read_table().entries:
        check_unchanged(weights, sha256)
    return sha256
