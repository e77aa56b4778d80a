"""Sources that make each picture by itself, so that frames can be read in any order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from fractions import Fraction

from ..base.source import Source
from ..base.types import Frame

RATE = Fraction(25)


class StillSource(Source):
    """`count` pictures at a constant rate; `rate` None: 25 frames a second, which the account then says it assumed."""

    def __init__(self, uri: str, width: int, height: int, rate: Fraction | None, count: int) -> None:
        super().__init__(uri, width, height, float(rate or RATE), count)
        if rate is None and count > 1:
            self.account.assumed["rate"] = f"{RATE} frames a second, for images state none; --fps sets it"
        self._time_base, self._count = 1 / (rate or RATE), count

    @abstractmethod
    def frame(self, seq: int) -> Frame:
        """Frame number `seq`; `SourceError` if it cannot be read."""

    def frames(self) -> Iterator[Frame]:
        return map(self.frame, range(self._count))
