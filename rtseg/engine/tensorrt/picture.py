"""The way of a picture to the first plan: its bytes come up, and are resized and normalised on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...types import ImageU8
from ..cuda.frame_kernels import FrameKernels
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

    def put(self, bytes_u8: Tensor, image_hwc: ImageU8) -> None:
        """Write a picture into the host's bytes of `upload`."""
        into = bytes_u8[-self.picture_hwc.numel() :].view(self.picture_hwc.shape)
        np.copyto(into.numpy(), image_hwc)


class Pictures:
    """Fills `image_1chw` [1, 3, S, S] with pictures of any size; only inside the GPU's `work`.

    By rtseg's own kernels where they can be compiled, else by torch's. `head` is how many bytes come up before each.
    """

    def __init__(self, image_1chw: Tensor, head: int, gpu: Gpu) -> None:
        self._image_1chw, self._head, self._gpu = image_1chw, head, gpu
        self._kernels = _kernels() if image_1chw.is_cuda else None
        self._ways: OrderedDict[tuple[int, int], Way] = OrderedDict()

    def give(self, image_hwc: ImageU8) -> None:
        """Put a picture uint8 [H, W, 3] RGB into `image_1chw`, as `to_input` would."""
        way = self.of(*image_hwc.shape[:2])
        with way.upload.filling() as bytes_u8:
            way.put(bytes_u8, image_hwc)
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


def _kernels() -> FrameKernels | None:
    try:
        return FrameKernels()
    except EngineError:  # nothing here compiles them: torch's operations do the same, in a few more launches
        return None
