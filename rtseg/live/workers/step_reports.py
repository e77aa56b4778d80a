"""Reports on the steps of the engine, besides their masks."""

from __future__ import annotations

from ...base.errors import AnswerError
from ...base.types import FrameId, Masks
from ..ipc.messages import Size
from ..ipc.reports import NewSize, SceneReport, StepTime, Unanswered
from .context import WorkerContext

IN_A_ROW = 5  # frames without an answer, after which the process ends


class SceneReports:
    """Reports cuts, objects lost and found, and frames without an answer; counts them on the board."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._lost: tuple[int, ...] = ()
        self._failed = 0  # frames in a row

    def answered(self, masks: Masks) -> None:
        """Note the masks of a frame."""
        self._failed = 0
        if masks.cut:
            self._context.board.add("cuts")
        if masks.cut or masks.lost != self._lost:
            found = tuple(sorted({*self._lost} & {*masks.ids} - {*masks.lost}))
            self._context.send(SceneReport(masks.seq, masks.cut, masks.lost, found))
        self._lost = masks.lost

    def failed(self, error: AnswerError) -> None:
        """Note a frame that got no masks. `RuntimeError` after too many in a row: a restart may help."""
        self._context.board.add("unanswered")
        self._failed += 1
        if self._failed >= IN_A_ROW:
            raise RuntimeError(f"{self._failed} frames in a row: {error}") from error
        if self._failed == 1:
            self._context.send(Unanswered(str(error)))


class StepTimes:
    """Reports how long steps take, so that the supervisor can distinguish a hang from a long step.

    In its first steps with pictures of a new size an engine may prepare for that size (capture graphs, choose kernels),
    and gets more time for it. Only the steps after those are reported.
    """

    FIRST = 3  # steps with a new size: a prompted one, a tracked one, and one more that is like all that follow

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._size: Size = (0, 0)
        self._steps, self._reported_ms = 0, 0.0

    def begins(self, frame: FrameId) -> None:
        """A step with this frame begins."""
        size = frame.height, frame.width
        if size != self._size:
            self._size, self._steps, self._reported_ms = size, 0, 0.0
            self._context.send(NewSize())

    def took(self, step_ms: float) -> None:
        """The step has ended."""
        self._steps += 1
        if self._steps >= self.FIRST and step_ms > 2 * self._reported_ms:  # more objects take longer
            self._reported_ms = step_ms
            self._context.send(StepTime(step_ms))
