"""Ring buffers of frames and of masks, which are stored as bytes in shared memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np

from ...base.types import Frame, FrameId, Masks
from .packing import pack_frame_id, unpack_frame_id
from .ring import Ring


class FrameRing(Ring):
    """The frames of a feed. The index of a frame is its `seq`, which continues when the source is opened again."""

    def put(self, frame: Frame) -> int:
        """Add a frame; returns its index. `ValueError` if it is larger than the ring."""
        return self.write(pack_frame_id(replace(frame.id, seq=self.head)), frame.image_hwc)

    def get(self, seq: int) -> Frame | None:
        """A frame, with a copy of its pixels; None if it is overwritten or not written yet."""
        entry = self.read(seq)
        if entry is None:
            return None
        frame_id = unpack_frame_id(entry[0])
        return Frame.from_id(frame_id, entry[1].reshape(frame_id.height, frame_id.width, 3))

    def identity(self, seq: int) -> FrameId | None:
        """The identity of a frame, without its pixels; None as for `get`."""
        header = self.header(seq)
        return None if header is None else unpack_frame_id(header)

    @property
    def newest(self) -> FrameId | None:
        """The identity of the newest frame; None before the first."""
        return self.identity(self.head - 1)


_MASK_FIELDS = (
    "seq", "session", "captured_ns", "done_ns", "height", "width", "ids", "labels", "scores", "ious", "cut", "lost",
)  # fmt: skip


class MaskRing(Ring):
    """The masks of a feed, in the order in which they were made."""

    def put(self, masks: Masks) -> int:
        """Add the masks of a frame, with their edges; returns their index. `ValueError` if larger than the ring."""
        values: dict[str, Any] = {name: getattr(masks, name) for name in _MASK_FIELDS}
        logits_bhw = np.ascontiguousarray(masks.fine_logits_bhw)
        header = bytes(msgpack.packb({**values, "shape": logits_bhw.shape}))
        return self.write(header, logits_bhw.view(np.uint8))

    def get(self, index: int) -> Masks | None:
        """The masks of this index; None if they are overwritten or not written yet."""
        entry = self.read(index)
        if entry is None:
            return None
        values = msgpack.unpackb(entry[0], use_list=False)
        shape = values.pop("shape")
        return Masks(**values, mask_logits_bhw=entry[1].view(np.float32).reshape(shape))
