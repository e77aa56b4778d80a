"""What a step decides on the host beside the masks, and so has to come over with them: in the one copy of a frame.

Of arrays that lie on the host already nothing is made beforehand: there it costs nothing to ask when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.types import Float32
from ..engine import Array, Remembered
from ..engine.arrays import likenesses, namespace, on_host, to_host
from ..engine.policy import Memory
from .evidence import Witness, coarse


class Beside:
    """`wanted` are the arrays to bring; `take` has them once they are there."""

    def __init__(
        self, banks: Sequence[Sequence[Memory]], written: Sequence[Remembered], witnesses: Sequence[Witness | None],
        rivals_bkhw: Array | None, compares: bool,
    ) -> None:  # fmt: skip
        """Of each object: its memories so far, the new one, and what it is known by if it is lost.

        `compares`: whether the policy asks how like the new memory the others are.
        """
        self._banks, self._written = banks, written
        self._away = not on_host(written[0].map_chw)
        self._compared = self._away and compares and any(banks)
        self._unread = [w for w in witnesses if w is not None and w.unread]
        self._lost = [i for i, w in enumerate(witnesses) if w is not None] if self._away else []
        self.rivals_bkhw: Float32 | None = None
        self._maps: dict[int, Float32] = {}
        self.alike: list[Mapping[int, float] | None] = [None] * len(written)
        self.wanted: list[Array] = [] if rivals_bkhw is None else [rivals_bkhw]
        self.wanted += [likenesses(side_by_side(banks, written))] if self._compared else []
        self.wanted += [coarse(written[i].map_chw) for i in self._lost]
        self.wanted += [coarse(map_chw) for witness in self._unread for map_chw in witness.unread]
        self._has_rivals = rivals_bkhw is not None

    def take(self, brought: Sequence[Float32]) -> None:
        """`wanted`, on the host."""
        left = iter(brought)
        if self._has_rivals:
            self.rivals_bkhw = next(left)
        if self._compared:
            for i, (bank, alike_t) in enumerate(zip(self._banks, next(left), strict=True)):
                self.alike[i] = {m.step: float(v) for m, v in zip(bank, alike_t[: len(bank)], strict=True)}
        self._maps = {i: next(left) for i in self._lost}
        for witness in self._unread:
            witness.learn([next(left) for _ in witness.unread])

    def map_of(self, row: int) -> Float32:
        """The new memory of a lost object, `coarse` where it lay on a GPU."""
        return self._maps[row] if self._away else to_host(self._written[row].map_chw)


def side_by_side(banks: Sequence[Sequence[Memory]], written: Sequence[Remembered]) -> Array:
    """The memories of each object with the new one last, [b, t, M, g, g]; the new one also fills what is missing."""
    most = max(map(len, banks))
    maps = [
        map_chw
        for bank, new in zip(banks, written, strict=True)
        for map_chw in (*(m.map_chw for m in bank), *[new.map_chw] * (1 + most - len(bank)))
    ]
    return namespace(maps[0]).stack(maps).unflatten(0, (len(banks), 1 + most))
