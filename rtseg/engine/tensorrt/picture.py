"""The way of a picture to the first plan: its bytes come up, and are resized and normalised on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.types import ImageU8
from ..cuda.frame_kernels import FrameKernels
from ..cuda.picture import lies_on
from ..cuda.resize import DeviceInput
from .buffers import Upload
from .gpu import Gpu

SIZES = 2  # of pictures that are kept ready; the least recently used one makes room

Recorded = Callable[[], None]


@dataclass(slots=True)
class Way:
    """All that depends on the size [H, W] of pictures.

    `upload` has the facts of a frame first, and its picture behind them. `convert` makes `image_1chw` of what came up,
    launch by launch; `replay` does it in one. `steps` are whole tracked frames, by objects and slots. A recording reads
    the tables of `convert` at their addresses, and does not keep them alive itself.
    """

    upload: Upload
    picture_hwc: Tensor
    convert: Recorded
    replay: Recorded
    steps: dict[tuple[int, int], Recorded] = field(default_factory=dict)

    @contextmanager
    def filling(self, image_hwc: ImageU8) -> Iterator[Tensor]:
        """Inside, facts may be written into the host's bytes; at the end they come up, and the picture with them.

        A picture that lies on this device already is copied there. Only inside the GPU's `work`.
        """
        there_hwc = lies_on(image_hwc, self.picture_hwc.device)
        head = self.upload.device_u8.numel() - self.picture_hwc.numel()
        with self.upload.filling(head if there_hwc is not None else None) as bytes_u8:
            if there_hwc is None:
                np.copyto(bytes_u8[head:].view(self.picture_hwc.shape).numpy(), image_hwc)
            yield bytes_u8
        if there_hwc is not None:
            self.picture_hwc.copy_(there_hwc)


class Pictures:
    """Fills `image_1chw` [1, 3, S, S] with pictures of any size; only inside the GPU's `work`.

    By rtseg's own kernels where they can be compiled, else by torch's. `head` is how many bytes come up before each.
    """

    def __init__(self, image_1chw: Tensor, head: int, gpu: Gpu) -> None:
        self._image_1chw, self._head, self._gpu = image_1chw, head, gpu
        self._kernels = _kernels(image_1chw.device) if image_1chw.is_cuda else None
        self._ways: OrderedDict[tuple[int, int], Way] = OrderedDict()

    def give(self, image_hwc: ImageU8) -> None:
        """Put a picture uint8 [H, W, 3] RGB into `image_1chw`, as `to_input` would."""
        way = self.of(*image_hwc.shape[:2])
        with way.filling(image_hwc):
            pass
        way.replay()

    def of(self, height: int, width: int) -> Way:
        """The way of pictures of this size."""
        if (height, width) not in self._ways:
            if len(self._ways) >= SIZES:
                self._gpu.wait()  # its last recording may still run
                self._ways.popitem(last=False)
            self._ways[height, width] = self._prepare(height, width)
        self._ways.move_to_end((height, width))
        return self._ways[height, width]

    def _prepare(self, height: int, width: int) -> Way:
        device_u8 = self._gpu.zeros((self._head + height * width * 3,), torch.uint8)
        picture_hwc = device_u8[self._head :].view(height, width, 3)
        convert = self._conversion(picture_hwc)
        convert()  # what is compiled or loaded at the first run cannot be recorded
        self._gpu.wait()
        return Way(Upload(device_u8, self._gpu), picture_hwc, convert, self._gpu.capture(convert))

    def _conversion(self, picture_hwc: Tensor) -> Recorded:
        kernels, out_1chw = self._kernels, self._image_1chw
        if kernels is not None:
            return lambda: void(kernels.picture_to_input(picture_hwc, out_1chw))
        height, width, _ = picture_hwc.shape
        resize = DeviceInput(height, width, out_1chw.shape[-1]).to(picture_hwc.device)
        return lambda: void(out_1chw.copy_(resize(picture_hwc)))


def void(_: object) -> None:
    """For calls whose answer is not wanted."""


def _kernels(device: torch.device) -> FrameKernels | None:
    try:
        return FrameKernels(device)
    except EngineError:  # nothing here compiles them: torch's operations do the same, in a few more launches
        return None
