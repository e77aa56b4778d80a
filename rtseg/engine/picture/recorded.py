"""Pictures of any size for an engine that records its work: uploaded, then resized and normalised on the device."""

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
from ..gpu import Gpu
from .device_picture import lies_on
from .frame_kernels import FrameKernels
from .torch_resize import TorchResize
from .upload import DoubleUpload

SIZES = 2  # sizes of pictures that are kept ready; a further one replaces the least recently used

Recorded = Callable[[], None]


@dataclass(slots=True)
class PictureSize:
    """Everything that depends on the size [H, W] of pictures.

    `upload` holds the facts of a frame, and its picture behind them. `convert` makes `image_1chw` of the uploaded
    picture, launch by launch; `replay` does the same in one launch. `steps` are whole tracked steps, by objects and
    slots. A recording reads the tables of `convert` at their addresses, but does not keep them alive.
    """

    upload: DoubleUpload
    picture_hwc: Tensor
    convert: Recorded
    replay: Recorded
    steps: dict[tuple[int, int], Recorded] = field(default_factory=dict)

    @contextmanager
    def filling(self, image_hwc: ImageU8) -> Iterator[Tensor]:
        """A context in which facts are written to the host's bytes. At its end they are uploaded with the picture.

        A picture that is on this device already is copied there. Call it only inside the GPU's `work`.
        """
        there_hwc = lies_on(image_hwc, self.picture_hwc.device)
        head = self.upload.device_u8.numel() - self.picture_hwc.numel()
        with self.upload.filling(head if there_hwc is not None else None) as bytes_u8:
            if there_hwc is None:
                np.copyto(bytes_u8[head:].view(self.picture_hwc.shape).numpy(), image_hwc)
            yield bytes_u8
        if there_hwc is not None:
            self.picture_hwc.copy_(there_hwc)


class PictureInputs:
    """Fills `image_1chw` [1, 3, S, S] with pictures of any size. Call it only inside the GPU's `work`.

    It uses rtseg's own kernels if they can be compiled, else torch's. `head`: bytes that are uploaded before a picture.
    """

    def __init__(self, image_1chw: Tensor, head: int, gpu: Gpu) -> None:
        self._image_1chw, self._head, self._gpu = image_1chw, head, gpu
        self._kernels = _kernels(image_1chw.device) if image_1chw.is_cuda else None
        self._sizes: OrderedDict[tuple[int, int], PictureSize] = OrderedDict()

    def give(self, image_hwc: ImageU8) -> None:
        """Convert a picture uint8 [H, W, 3] RGB into `image_1chw`, as `to_input` does."""
        size = self.for_size(*image_hwc.shape[:2])
        with size.filling(image_hwc):
            pass
        size.replay()

    def for_size(self, height: int, width: int) -> PictureSize:
        """What is kept for pictures [height, width]. A new size replaces the least recently used one."""
        if (height, width) not in self._sizes:
            if len(self._sizes) >= SIZES:
                self._gpu.wait()  # its last recording may still run
                self._sizes.popitem(last=False)
            self._sizes[height, width] = self._prepare(height, width)
        self._sizes.move_to_end((height, width))
        return self._sizes[height, width]

    def _prepare(self, height: int, width: int) -> PictureSize:
        device_u8 = self._gpu.zeros((self._head + height * width * 3,), torch.uint8)
        picture_hwc = device_u8[self._head :].view(height, width, 3)
        convert = self._conversion(picture_hwc)
        convert()  # the first run compiles and loads kernels, which cannot be recorded
        self._gpu.wait()
        return PictureSize(DoubleUpload(device_u8, self._gpu), picture_hwc, convert, self._gpu.capture(convert))

    def _conversion(self, picture_hwc: Tensor) -> Recorded:
        kernels, out_1chw = self._kernels, self._image_1chw
        if kernels is not None:
            return lambda: _discard(kernels.picture_to_input(picture_hwc, out_1chw))
        height, width, _ = picture_hwc.shape
        resize = TorchResize(height, width, out_1chw.shape[-1]).to(picture_hwc.device)
        return lambda: _discard(out_1chw.copy_(resize(picture_hwc)))


def _discard(_: object) -> None:
    """Drop the result of a call."""


def _kernels(device: torch.device) -> FrameKernels | None:
    try:
        return FrameKernels(device)
    except EngineError:  # no compiler for them: torch's operations do the same, with a few more launches
        return None
