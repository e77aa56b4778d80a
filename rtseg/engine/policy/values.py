"""What a policy sees and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import Array, Remembered


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the network says of its own mask: `score`, the probability that the object is visible, and predicted `iou`.

    Of the mask itself, for the policies that ask for it (`NEED_RIVALS`): its `area` in pixels of the network's answer,
    and `rival`, how much its box overlaps with the box of it and its strongest rival (`held.rivalry`).
    """

    score: float = 1.0
    iou: float = 1.0
    area: int = 0
    rival: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """One frame of one object: what the engine wrote of it, its pointer [D], and the tracker's step it is from.

    `seq` is the frame's own number, by which `Bank.before` knows what was later. `held_at` is the step at which a
    policy decided to hold on to it; None: no policy did. `alike` is how like it is each memory that was in the bank
    when it entered, by their steps, where that was measured beforehand: of maps on a GPU, so that no policy waits.
    """

    step: int
    written: Remembered
    pointer_c: Array
    conditioning: bool
    seq: int = -1
    verdict: Verdict = Verdict()
    held_at: int | None = None
    alike: Mapping[int, float] | None = None

    @property
    def map_chw(self) -> Array:
        """[M, g, g]; what policies compare."""
        return self.written.map_chw

    @property
    def visible(self) -> bool:
        """Whether the network says that the object is there: its object score, a logit, is above 0."""
        return self.verdict.score > 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """`window`: memories that SAM 2 was trained to look at (7); `spatial`: how many of them a pruned bank keeps."""

    window: int = 7
    spatial: int = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """`keep`: indices of the memories that stay. `attend`: (index, slot) of those that the next frame looks at.

    A slot is a row of the temporal position table: `window - 1` for a conditioning memory, else 0 for one frame
    ago, 1 for two, and so on. `hold`: those of `keep` that the policy holds on to from now on (`Memory.held_at`).
    """

    keep: tuple[int, ...]
    attend: tuple[tuple[int, int], ...]
    hold: tuple[int, ...] = ()


Policy = Callable[[Sequence[Memory], Size], Choice]
