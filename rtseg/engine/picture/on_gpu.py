"""A hardware decoder's pictures on their GPU: converted to RGB before the network, and drawn on after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ...base.defaults import OPACITY
from ...base.types import Float32, ImageU8
from .device_picture import DevicePicture, Size
from .frame_kernels import Color, FrameKernels


class OnGpu:
    """Converts a hardware decoder's pictures to RGB, and draws masks on them, without copying them to the host.

    All work is queued on the GPU's default stream, which FFmpeg's decoder uses, too. So a picture is read after it was
    decoded, and its memory is reused after it was read. For this the decoder has to share torch's context.
    """

    def __init__(self, device: torch.device | str, sample: Size, kernels: FrameKernels | None = None) -> None:
        """`sample`: the size that the cut detector samples (`DevicePicture`). Raises `EngineError` without a GPU."""
        self._kernels = kernels or FrameKernels(device)
        self.device, self._sample = self._kernels.device, sample

    @property
    def index(self) -> int:
        """The number of the GPU."""
        return self.device.index or 0

    @contextmanager
    def current(self) -> Iterator[None]:
        """A context manager in which the GPU's primary context, which torch uses, is current in this thread."""
        with self._turn():
            torch.zeros(1, device=self.device)  # the first work on the GPU creates the context
            yield

    def picture(self, luma: Any, chroma: Any, matrix: str, full: bool, site: str) -> DevicePicture:
        """Convert an NV12 picture to RGB. Its two planes support DLPack, and may be freed afterwards.

        `matrix` is one of `frame_kernels.LUMA`; `full`: values use the full range from 0 to 255; `site` is one of
        `frame_kernels.SITES`.
        """
        with self._turn():
            # Not `from_dlpack(plane)`: that asks the decoder to wait for a stream, which it does not support.
            luma_hw, chroma_hw2 = (from_dlpack(plane.__dlpack__()) for plane in (luma, chroma))
            picture_hwc = torch.empty(*luma_hw.shape, 3, dtype=torch.uint8, device=self.device)
            self._kernels.nv12_to_picture(luma_hw, chroma_hw2, picture_hwc, matrix, full, site)
            return DevicePicture(picture_hwc, self._sample)

    def drawn(
        self, picture: DevicePicture, logits_bhw: Float32 | None, colors: Sequence[Color], opacity: float = OPACITY
    ) -> ImageU8:
        """Draw masks on the picture and copy it to the host. Logits [b, h, w] are at the network's resolution.

        It draws in place: the original picture is lost.
        """
        with self._turn():
            if logits_bhw is not None and len(logits_bhw):
                logits = torch.from_numpy(np.ascontiguousarray(logits_bhw)).to(self.device)
                self._kernels.draw(picture.picture_hwc, logits, colors, opacity)
            return np.asarray(picture)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.default_stream(self.device)):
            yield
