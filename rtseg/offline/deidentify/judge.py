"""When frames are hidden: the verdicts on single pictures, put together over time, so that doubt hides.

A frame is hidden from the first verdict of out-of-body until `STEADY` frames in a row were surely inside a body. It
starts hidden; and a cut, or a frame that is missing, hides as a verdict does. `BEFORE` frames before a hidden one are
hidden, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...base.types import Frame
from ...track.cut_detector import CutDetector, SmallPicture
from .classifier import Classifier

STEADY = 12  # frames that have to be inside a body before the next one is shown
BEFORE = 12  # frames before a hidden one that are hidden as well; so many are read ahead
CAUSES = ("out-of-body", "start", "cut", "dark", "grey", "unlike", "error", "margin")
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The state after some frames: a value. `cause` is why frames are hidden now, "" if they are not; `steady` counts
    the frames in a row that were inside a body; `seq` is the last frame.
    """

    cause: str = "start"
    steady: int = 0
    seq: int = -1
    cuts: CutDetector = field(default_factory=CutDetector)

    def after(self, frame: Frame, classifier: Classifier) -> Judge:
        """The state after one more frame, which says whether that frame is hidden."""
        verdict = classifier.judge(frame.image_hwc)
        try:
            cuts, cut = self.cuts.update(frame.image_hwc)
        except Exception:  # cv2.error, or a picture that is none: what was not compared may be a cut
            cuts, cut = CutDetector(), True
        seen = replace(self, seq=frame.seq, cuts=cuts)
        if verdict.why or verdict.out >= classifier.enter:
            return replace(seen, cause=verdict.why or "out-of-body", steady=0)
        if cut or (self.seq >= 0 and frame.seq != self.seq + 1):
            return replace(seen, cause="cut", steady=1)
        steady = self.steady + 1 if verdict.out < classifier.leave or not self.cause else 0
        shown = not self.cause or steady > STEADY
        return replace(seen, cause="" if shown else self.cause, steady=steady)

    def arrays(self) -> Arrays:
        """The state as arrays."""
        cause = CAUSES.index(self.cause) if self.cause else -1
        found: Arrays = {
            "counts": np.array([cause, self.steady, self.seq, self.cuts.waited], np.int64),
            "usual": np.array([self.cuts.usual], np.float64),
        }
        if self.cuts.picture is not None:
            found |= {f"cut_{name}": getattr(self.cuts.picture, name) for name in SmallPicture.__slots__}
        return found

    @classmethod
    def of(cls, arrays: Arrays) -> Judge:
        """The state that `arrays` gave."""
        cause, steady, seq, waited = (int(v) for v in arrays["counts"])
        parts = [arrays[f"cut_{name}"] for name in SmallPicture.__slots__ if f"cut_{name}" in arrays]
        cuts = CutDetector(SmallPicture(*parts) if parts else None, float(arrays["usual"][0]), waited)
        return cls(CAUSES[cause] if cause >= 0 else "", steady, seq, cuts)
