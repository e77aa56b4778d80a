"""What every engine offers: four verbs, and their sequence on a tracked frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from ..base.types import ImageU8
from ..sam2 import Array, Decoded, Features, Preset, PromptBatch, Recall, Remembered
from .recipe import Recipe


class Engine(Protocol):
    """A network that is ready to run. It keeps nothing between calls: memories belong to the caller.

    Pictures and prompts are numpy arrays; all other arguments and results are arrays of the engine's own library
    (numpy or torch). Shapes: S is `image_size`, g = S / 16, b the number of objects, D the preset's width.

    Attributes:
        recipe: the recipe that it was opened from.
        preset: the sizes of the network.
        image_size: S, the side in pixels of the square that the network sees.
        weights_hash: SHA-256 of the weights.
        description: runtime, precision and device, for people.
    """

    recipe: Recipe
    preset: Preset
    image_size: int
    weights_hash: str
    description: str

    def encode_image(self, image_hwc: ImageU8) -> Features:
        """Encode a picture, uint8 [H, W, 3] RGB of any size, into features that all objects share."""

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """Condition the features on each object's memories (None for an object without); returns [b, D, g, g]."""

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """The mask logits [b, 1, 4g, 4g], predicted IoU, object score and pointer of each object."""

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        """Make a memory of each object's mask, given as logits [b, 1, 4g, 4g]; a prompted mask counts as certain."""

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        """The four verbs in a row, on a frame without prompts; an engine may fuse them."""


@runtime_checkable
class Rivals(Protocol):
    """An engine that also gives rival masks, which some memory policies need. It is optional."""

    def rivals(self, conditioned_bchw: Array, features: Features) -> Array:
        """Logits [b, 2, 4g, 4g] of the two candidate masks that `decode` does not choose on a frame without prompts."""


@runtime_checkable
class Prepares(Protocol):
    """An engine whose preparation of pictures can be timed alone, for benchmarks. It is optional."""

    def prepare(self, image_hwc: ImageU8) -> Array:
        """The first part of `encode_image`: the encoder's input, [1, 3, S, S], valid until the next call."""


@runtime_checkable
class Readies(Protocol):
    """An engine that can prepare for a size of pictures; a feed has it do so before the first frame. It is optional."""

    def ready(self, height: int, width: int, beat: Callable[[], None] = lambda: None) -> None:
        """Prepare for pictures [H, W] with 1 to `max_objects` objects: capture graphs, choose kernels.

        `beat` is called between any two parts of the work that take seconds, as a sign of progress. Later frames of
        this size capture and compile nothing. Raises `EngineError` if the device has too little memory.
        """


class Verbs:
    """`track` for engines that do not fuse the verbs."""

    def track(self: Engine, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        features = self.encode_image(image_hwc)
        decoded = self.decode(self.attend(features, recalls), features, PromptBatch.none(len(recalls)))
        untouched = [False] * len(recalls)
        return decoded, self.remember(features, decoded.logits_b1hw, decoded.score_b, untouched)
