"""What an adapter is: three places between the verbs where it may change what passes.

An adapter sees only what an engine gives and takes (features, conditioned features, memories, prompts). So it works
on every runtime, without a change of the runtime's graphs or kernels. A merged adapter changes weights instead, once,
before an engine is opened. Each starts as the identity: without training, a network with it gives the same masks.

Axes as in `values`; t counts past frames; r is an adapter's own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..presets import Preset
from ..values import Features, PromptBatch, Recall

PAST = 3  # memories of the latest frames that an adapter may read


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What adapters may read of b objects' memory banks.

    `maps_btmhw` [b, PAST, M, g, g] are memories in the order of their slots: tracked frames, the newest first, then
    conditioning frames; where there are fewer, the last is repeated. `pointer_bd` [b, D] is the pointer of the first
    conditioning frame.
    """

    maps_btmhw: Tensor
    pointer_bd: Tensor

    @staticmethod
    def of(recalls: Sequence[Recall]) -> Past:
        """That of the recalls that attention reads, as tensors on the CPU or where they are."""
        maps, pointers = [], []
        for recall in recalls:
            by_slot = sorted(zip(recall.slots, recall.memories, strict=True), key=lambda pair: pair[0])
            newest = [torch.as_tensor(memory.map_chw).float() for _, memory in by_slot[:PAST]]
            maps.append(torch.stack([*newest, *[newest[-1]] * (PAST - len(newest))]))
            pointers.append(torch.as_tensor(recall.pointers_pc[0]).float())
        return Past(torch.stack(maps), torch.stack(pointers))


class Adapter(nn.Module):
    """The identity, which each adapter overrides where it acts.

    Attributes:
        source: the paper that the idea is from.
        reads_image: `encoded` needs the picture.
        merged: it changes weights of the network; between the verbs it does nothing.
    """

    source: ClassVar[str] = ""
    reads_image: ClassVar[bool] = False
    merged: ClassVar[bool] = False

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset

    def encoded(self, features: Features, image_n3ss: Tensor | None) -> Features:
        """The features that all later verbs see. `image_n3ss` is the normalised picture, if `reads_image`."""
        return features

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        """The conditioned features of objects that have memories."""
        return conditioned_bdhw

    def prompted(self, conditioned_bdhw: Tensor, prompts: PromptBatch, image_size: int) -> Tensor:
        """The conditioned features of objects with these prompts; points are in pixels of the network's image."""
        return conditioned_bdhw

    def attach(self, network: nn.Module) -> None:
        """Begin to act inside the network, for training. Only a merged adapter does."""

    def merge(self, network: nn.Module) -> None:
        """Change the network's weights for good. Only a merged adapter does."""


class Adapters(nn.ModuleList):
    """Several adapters, one after the other."""

    @property
    def reads_image(self) -> bool:
        return any(one.reads_image for one in self.each())

    @property
    def between_verbs(self) -> bool:
        """Whether any of them acts between the verbs."""
        return any(not one.merged for one in self.each())

    def each(self) -> list[Adapter]:
        return [one for one in self if isinstance(one, Adapter)]

    def encoded(self, features: Features, image_n3ss: Tensor | None) -> Features:
        for one in self.each():
            features = one.encoded(features, image_n3ss)
        return features

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        for one in self.each():
            conditioned_bdhw = one.attended(conditioned_bdhw, past)
        return conditioned_bdhw

    def prompted(self, conditioned_bdhw: Tensor, prompts: PromptBatch, image_size: int) -> Tensor:
        for one in self.each():
            conditioned_bdhw = one.prompted(conditioned_bdhw, prompts, image_size)
        return conditioned_bdhw

    def attach(self, network: nn.Module) -> None:
        for one in self.each():
            one.attach(network)

    def merge(self, network: nn.Module) -> None:
        for one in self.each():
            one.merge(network)


def zero(layer: nn.Module) -> nn.Module:
    """A layer whose output is 0 until it has learnt something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
