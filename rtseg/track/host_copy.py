"""Arrays that a step needs on the host besides the masks. They are copied together with the masks, once a frame.

If the arrays are on the host already, nothing is computed beforehand: each is read when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.types import Float32
from ..engine import Array, Remembered
from ..engine.arrays import cosine_similarities, namespace, on_host, to_host
from ..engine.policy import Memory
from .reidentify import SceneMatcher, coarse


class HostCopy:
    """The caller copies `arrays` to the host and gives the copies, in the same order, to `receive`.

    From then on `rivals_bkhw` holds the rival masks, `similarities` those that a policy may ask for, and `map_of`
    returns the new memories of lost objects.
    """

    def __init__(
        self, banks: Sequence[Sequence[Memory]], written: Sequence[Remembered], matchers: Sequence[SceneMatcher | None],
        rivals_bkhw: Array | None, needs_similarity: bool,
    ) -> None:  # fmt: skip
        """Arguments, one entry for each object: its memories so far, the new one, and, if it is lost, its matcher."""
        self._banks, self._written = banks, written
        self._on_gpu = not on_host(written[0].map_chw)
        self._compared = self._on_gpu and needs_similarity and any(banks)
        self._pending = [m for m in matchers if m is not None and m.pending]
        self._lost = [i for i, m in enumerate(matchers) if m is not None] if self._on_gpu else []
        self.rivals_bkhw: Float32 | None = None
        self._maps: dict[int, Float32] = {}
        self.similarities: list[Mapping[int, float] | None] = [None] * len(written)
        self.arrays: list[Array] = [] if rivals_bkhw is None else [rivals_bkhw]
        self.arrays += [cosine_similarities(stacked_maps(banks, written))] if self._compared else []
        self.arrays += [coarse(written[i].map_chw) for i in self._lost]
        self.arrays += [coarse(map_chw) for matcher in self._pending for map_chw in matcher.pending]
        self._has_rivals = rivals_bkhw is not None

    def receive(self, copied: Sequence[Float32]) -> None:
        """Take the copies of `arrays`."""
        left = iter(copied)
        if self._has_rivals:
            self.rivals_bkhw = next(left)
        if self._compared:
            for i, (bank, values_t) in enumerate(zip(self._banks, next(left), strict=True)):
                self.similarities[i] = {m.step: float(v) for m, v in zip(bank, values_t[: len(bank)], strict=True)}
        self._maps = {i: next(left) for i in self._lost}
        for matcher in self._pending:
            matcher.fit([next(left) for _ in matcher.pending])

    def map_of(self, row: int) -> Float32:
        """The new memory of a lost object, averaged by `coarse` if it comes from a GPU."""
        return self._maps[row] if self._on_gpu else to_host(self._written[row].map_chw)


def stacked_maps(banks: Sequence[Sequence[Memory]], written: Sequence[Remembered]) -> Array:
    """The memories of each object with the new one last, [b, t, M, g, g]; shorter banks are padded with the new one."""
    longest = max(map(len, banks))
    maps = [
        map_chw
        for bank, new in zip(banks, written, strict=True)
        for map_chw in (*(m.map_chw for m in bank), *[new.map_chw] * (1 + longest - len(bank)))
    ]
    return namespace(maps[0]).stack(maps).unflatten(0, (len(banks), 1 + longest))
