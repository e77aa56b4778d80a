"""What a step has to say beside its masks: another scene, objects lost and found, an answer that is none."""

from __future__ import annotations

from ..base.errors import AnswerError
from ..base.types import Masks
from .seat import Seat

IN_A_ROW = 5  # frames without an answer: the network is not itself, and its process ends


class News:
    """Counts it on the board, and tells the supervisor what changes."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._lost: tuple[int, ...] = ()
        self._failed = 0  # frames in a row

    def answered(self, masks: Masks) -> None:
        """A frame has its masks."""
        self._failed = 0
        if masks.cut:
            self._seat.board.add("cuts")
        if masks.cut or masks.lost != self._lost:
            found = sorted({*self._lost} & {*masks.ids} - {*masks.lost})
            self._seat.link.send("scene", seq=masks.seq, cut=masks.cut, lost=masks.lost, found=found)
        self._lost = masks.lost

    def failed(self, error: AnswerError) -> None:
        """A frame has none: the next may have. `RuntimeError` after too many: who starts again may do better."""
        self._seat.board.add("unanswered")
        self._failed += 1
        if self._failed >= IN_A_ROW:
            raise RuntimeError(f"{self._failed} frames in a row: {error}") from error
        if self._failed == 1:
            self._seat.link.send("unanswered", text=str(error))
