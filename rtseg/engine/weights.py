"""Finding the weights of a recipe, and loading the network with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..base.documents import is_file
from ..base.errors import WeightsError
from ..sam2 import Preset
from .recipe import SHIPPED

if TYPE_CHECKING:
    from ..sam2 import Sam2


def load_network(preset: Preset, image_size: int, weights: Path) -> Sam2:
    """The torch network of a preset, with the weights from a file."""
    from ..sam2 import Sam2, load_weights
    from .reference import one_thread

    with one_thread():
        network = Sam2(preset, image_size)
        load_weights(network, weights)
    return network


def find_weights(weights: str) -> Path:
    """The file that a recipe's `weights` names. Raises `WeightsError` if it does not exist."""
    if weights.startswith("package:"):
        path = SHIPPED / (weights.removeprefix("package:") + ".safetensors")
        if not is_file(path):
            shipped = ", ".join(sorted(f"package:{p.stem}" for p in SHIPPED.glob("*.safetensors"))) or "none"
            raise WeightsError(f"weights = {weights!r}: not shipped in this package; there are: {shipped}")
        return path
    path = Path(weights)
    if not is_file(path):
        raise WeightsError(f"{path}: no such file; expected weights as .pt or .safetensors")
    return path
