"""The graphs of `exported` in ONNX Runtime, with the bank of memories as Meta's predictor keeps it; without torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from rtseg.base.types import Float32

GRAPHS = ("image_encoder", "memory_attention", "image_decoder_prompted", "image_decoder", "memory_encoder")
MEMORIES, POINTERS = 7, 16  # as SAM 2 was trained


class Runner:
    """Follows what is in `box` (pixels of the network's picture) from the first picture on."""

    def __init__(self, folder: Path, threads: int, box: Sequence[float]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3

        def opened(name: str) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(folder / f"{name}.onnx", options, ["CPUExecutionProvider"])

        self._encode, self._attend, self._prompted, self._decode, self._remember = map(opened, GRAPHS)
        self._corners = np.array(box, np.float32).reshape(1, 2, 2)
        self._first: tuple[Float32, Float32] | None = None  # memory and pointer
        self._recent: deque[tuple[Float32, Float32]] = deque(maxlen=POINTERS - 1)
        self._steps = 0

    def step(self, image_1chw: Float32) -> Float32:
        """Mask logits [4g, 4g] of the next picture."""
        top, high0, high1, alone = self._encode.run(None, {"image": image_1chw})
        fine = {"high0": high0, "high1": high1}
        if self._first is None:
            labels = np.array([[2, 3]], np.int32)
            said = {"conditioned": alone, **fine, "coords": self._corners, "labels": labels}
            low, mask, pointer, score = self._prompted.run(None, said)
        else:
            nobody = {"coords": np.zeros((1, 1, 2), np.float32), "labels": np.full((1, 1), -1, np.int32)}
            conditioned = self._attend.run(None, {"top": top, **self._recalled()})[0]
            low, mask, pointer, score = self._decode.run(None, {"conditioned": conditioned, **fine, **nobody})
        memory = self._remember.run(None, {"top": top, "mask": mask, "score": score})[0]
        if self._first is None:
            self._first = memory, pointer
        else:
            self._recent.appendleft((memory, pointer))
        self._steps += 1
        logits: Float32 = low[0, 0]
        return logits

    def _recalled(self) -> dict[str, np.ndarray]:
        """The first memory and the latest six; the first pointer and the latest fifteen, with their ages in frames."""
        assert self._first is not None
        near = list(self._recent)[: MEMORIES - 1]
        pointers = [self._first, *self._recent]
        return {
            "memories": np.concatenate([self._first[0], *(memory for memory, _ in near)]),
            "slots": np.array([MEMORIES - 1, *range(len(near))], np.int64),
            "pointers": np.concatenate([pointer for _, pointer in pointers]),
            "ages": np.array([self._steps, *range(1, len(pointers))], np.float32),
        }
