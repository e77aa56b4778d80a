"""The arguments and results of memory policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...sam2 import Array, Remembered

# Conditioning memories that a bank holds: the first, which defines the object, and the latest three.
MAX_CONDITIONING = 4


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """The network's own view of its mask: `score`, the probability that the object is visible, and the predicted `iou`.

    Two more are measured only for a policy that needs rivals: `area`, the pixels of the mask, and `rival_overlap`, the
    area of the mask's box divided by the area of the box around the mask and its strongest rival (1: no rival).
    """

    score: float = 1.0
    iou: float = 1.0
    area: int = 0
    rival_overlap: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The spatial memory and the object pointer of one object on one frame.

    `step` is the tracker's step, `seq` the number of the frame. `written` is what the engine returned, `pointer_c` [D]
    the object pointer. `conditioning`: the frame was prompted. `pinned_at` is the step at which a policy pinned the
    memory; None: not pinned. `similarities` maps the step of each memory that was in the bank when this one was added
    to its similarity with this one. It is measured beforehand if the maps are on a GPU, so that no policy waits for
    the GPU; None: not measured.
    """

    step: int
    written: Remembered
    pointer_c: Array
    conditioning: bool
    seq: int = -1
    quality: MaskQuality = MaskQuality()
    pinned_at: int | None = None
    similarities: Mapping[int, float] | None = None

    @property
    def map_chw(self) -> Array:
        """The spatial memory [M, g, g], which policies compare."""
        return self.written.map_chw

    @property
    def visible(self) -> bool:
        """Whether the network takes the object to be visible: a score above 0.5, which is a logit above 0."""
        return self.quality.score > 0.5


@dataclass(frozen=True, slots=True)
class BankSize:
    """Sizes of a memory bank.

    `window`: spatial memories that the network was trained to attend to (`num_maskmem`, 7 in SAM 2). `spatial`: how
    many of them a pruned bank keeps, conditioning memories included; only the EFP policies read it.
    """

    window: int = 7
    spatial: int = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy's choice, as indices into the memories that it got.

    `keep`: the memories that stay in the bank. `attend`: (index, slot) of those that the next frame attends to. A slot
    is a row of the table of temporal positions: `window - 1` for a conditioning memory, else 0 for one frame ago, 1 for
    two, and so on. `pin`: those of `keep` that the policy pins from now on (`Memory.pinned_at`).
    """

    keep: tuple[int, ...]
    attend: tuple[tuple[int, int], ...]
    pin: tuple[int, ...] = ()


PolicyFunction = Callable[[Sequence[Memory], BankSize], Choice]
