"""The way of a picture to the first plan: its bytes come up, and are resized and normalised on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...types import ImageU8
from ..cuda.frame_kernels import FrameKernels
from ..cuda.resize import DeviceInput
from .gpu import Gpu

SIZES = 4  # of pictures that are kept ready; the least recently used one makes room


@dataclass(frozen=True, slots=True)
class Way:
    """Buffers uint8 [H, W, 3] for pictures of one size, and the recording that makes the input of `device_hwc`.

    `convert` is what was recorded: it keeps alive the tables that the recording reads.
    """

    host_hwc: Tensor
    device_hwc: Tensor
    convert: Callable[[], None]
    replay: Callable[[], None]


class Pictures:
    """Fills `image_1chw` [1, 3, S, S] with pictures of any size; only inside the GPU's `work`.

    By rtseg's own kernels where pycuda can compile them, else by torch's.
    """

    def __init__(self, image_1chw: Tensor, gpu: Gpu) -> None:
        self._image_1chw, self._gpu = image_1chw, gpu
        self._kernels = _kernels() if image_1chw.is_cuda else None
        self._ways: OrderedDict[tuple[int, int], Way] = OrderedDict()

    def give(self, image_hwc: ImageU8) -> None:
        """Put a picture uint8 [H, W, 3] RGB into `image_1chw`, as `to_input` would."""
        height, width = image_hwc.shape[:2]
        if (height, width) not in self._ways:
            if len(self._ways) >= SIZES:
                self._ways.popitem(last=False)
            self._ways[height, width] = self._prepare(height, width)
        self._ways.move_to_end((height, width))
        way = self._ways[height, width]
        np.copyto(way.host_hwc.numpy(), image_hwc)
        way.device_hwc.copy_(way.host_hwc, non_blocking=True)
        way.replay()

    def _prepare(self, height: int, width: int) -> Way:
        device_hwc = self._gpu.zeros((height, width, 3), torch.uint8)
        convert = self._conversion(device_hwc)
        convert()  # what is compiled or loaded at the first run cannot be recorded
        self._gpu.wait()
        host_hwc = self._gpu.pinned((height, width, 3), torch.uint8)
        return Way(host_hwc, device_hwc, convert, self._gpu.capture(convert))

    def _conversion(self, device_hwc: Tensor) -> Callable[[], None]:
        kernels, out_1chw = self._kernels, self._image_1chw
        if kernels is not None:
            return lambda: void(kernels.picture_to_input(device_hwc, out_1chw))
        height, width, _ = device_hwc.shape
        resize = DeviceInput(height, width, out_1chw.shape[-1]).to(device_hwc.device)
        return lambda: void(out_1chw.copy_(resize(device_hwc)))


def void(_: object) -> None:
    """For calls whose answer is not wanted."""


def _kernels() -> FrameKernels | None:
    try:
        return FrameKernels()
    except EngineError:  # no pycuda, or no nvcc: torch's operations do the same, in a few more launches
        return None
