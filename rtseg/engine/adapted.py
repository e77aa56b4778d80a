"""A recipe's adapter on the engine of any runtime.

What can be merged is merged into the weights, before the engine is opened. Everything else acts between the engine's
verbs, in torch on the CPU, or on the GPU of an engine that has its features there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import EngineError
from ..base.files import file_sha256
from ..base.types import ImageU8
from ..sam2 import Array, Decoded, Features, Preset, PromptBatch, Recall, Remembered
from .base import Engine, Verbs
from .recipe import Recipe

if TYPE_CHECKING:
    from ..sam2.adapters import Adapters


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """A recipe's adapters, as read from their file.

    Attributes:
        graphs_hash: what identifies the network that a runtime builds: that of the weights, unless some are merged.
        weights_hash: what identifies the weights and the adapter together.
    """

    adapters: Adapters
    graphs_hash: str
    weights_hash: str


def with_adapters(engine: Engine, adapted: Adapted) -> Engine:
    """The engine with the adapters that act between the verbs; itself if there are none."""
    if adapted.adapters.between_verbs:
        return AdaptedEngine(engine, adapted.adapters, adapted.weights_hash)
    engine.description += " with an adapter"
    return engine


def read_adapted(recipe: Recipe, preset: Preset, weights_hash: str) -> Adapted | None:
    """The adapters of a recipe; None if it has none. Raises `WeightsError` if they do not fit the weights."""
    if recipe.adapter is None:
        return None
    try:
        from ..sam2.adapters import load_adapter
    except ImportError as e:
        raise EngineError("an adapter needs torch: pip install 'rtseg[torch]'") from e
    path = Path(recipe.adapter)
    adapters = load_adapter(path, preset, weights_hash)
    both = sha256(f"{weights_hash} {file_sha256(path)}".encode()).hexdigest()
    merged = any(one.merged for one in adapters.each())
    return Adapted(adapters, both if merged else weights_hash, both)


class AdaptedEngine(Verbs):
    """An engine with adapters between its verbs. What else an engine may offer is the engine's own."""

    def __init__(self, engine: Engine, adapters: Adapters, weights_hash: str) -> None:
        self._engine, self._adapters = engine, adapters
        self.recipe, self.preset, self.image_size = engine.recipe, engine.preset, engine.image_size
        self.weights_hash = weights_hash
        self.description = f"{engine.description} with an adapter"

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_engine"), name)

    def encode_image(self, image_hwc: ImageU8) -> Features:
        """As in `Engine`."""
        features = self._engine.encode_image(image_hwc)
        given = Features(*map(_tensor, (features.top, features.mid, features.fine)))
        image_13ss = self._image(image_hwc, given.top) if self._adapters.reads_image else None
        with _inference():
            out = self._adapters.to(given.top.device).encoded(given, image_13ss)
        return Features(_like(out.top, features.top), _like(out.mid, features.mid), _like(out.fine, features.fine))

    def _image(self, image_hwc: ImageU8, like: Any) -> Any:
        from .picture.planes import to_planes

        return _tensor(to_planes(np.asarray(image_hwc), self.image_size)).to(like.device)

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """As in `Engine`."""
        from ..sam2.adapters import Past

        conditioned_bdhw = self._engine.attend(features, recalls)
        known = [i for i, recall in enumerate(recalls) if recall is not None]
        if not known:
            return conditioned_bdhw
        out_bdhw = _tensor(conditioned_bdhw).clone()
        with _inference():
            past = Past.of([recall for recall in recalls if recall is not None])
            out_bdhw[known] = self._adapters.to(out_bdhw.device).attended(out_bdhw[known], past)
        return _like(out_bdhw, conditioned_bdhw)

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """As in `Engine`."""
        if prompts.answer_b1hw is None and prompts.points_bpc.shape[1]:
            given = _tensor(conditioned_bchw)
            with _inference():
                out = self._adapters.to(given.device).prompted(given, prompts, self.image_size)
            conditioned_bchw = _like(out, conditioned_bchw)
        return self._engine.decode(conditioned_bchw, features, prompts)

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        """As in `Engine`."""
        return self._engine.remember(features, logits_b1hw, score_b, prompted)


def _inference() -> Any:
    import torch

    return torch.inference_mode()


def _tensor(array: Array) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array).float()


def _like(tensor: Any, array: Array) -> Array:
    """A tensor as the library has it that gave `array`."""
    return tensor.numpy() if isinstance(array, np.ndarray) else tensor
