"""A picture that stays on its GPU, and otherwise behaves like an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.types import ImageU8

Size = tuple[int, int]  # width, height


class DevicePicture:
    """A picture uint8 RGB [H, W, 3] on a GPU. Nobody changes it, except the overlay, which is drawn last.

    numpy takes it for an array and then copies all of it to the host. The work that makes a picture is done by the time
    the object exists.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, picture_hwc: Tensor, sample: Size | None = None) -> None:
        """`sample`: the (width, height) that `sampled` will be asked for. The host waits for the picture here."""
        self.picture_hwc = picture_hwc
        self.shape: tuple[int, ...] = tuple(picture_hwc.shape)
        self._sample = (sample, self._sampled(*sample)) if sample else None
        if sample is None and picture_hwc.is_cuda:
            torch.cuda.current_stream(picture_hwc.device).synchronize()

    def sampled(self, width: int, height: int) -> ImageU8:
        """The pixels [height, width, 3] that OpenCV's INTER_NEAREST takes of it."""
        if self._sample is not None and self._sample[0] == (width, height):
            return self._sample[1]
        return self._sampled(width, height)

    def _sampled(self, width: int, height: int) -> ImageU8:
        rows, columns = (
            torch.from_numpy((np.arange(n) * (size / n)).astype(np.int64)).to(self.picture_hwc.device)
            for n, size in ((height, self.shape[0]), (width, self.shape[1]))
        )
        return np.asarray(self.picture_hwc[rows[:, None], columns].cpu().numpy(), np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ImageU8:
        if copy is False and self.picture_hwc.is_cuda:
            raise ValueError("a picture on a GPU has to be copied to become an array")
        return np.asarray(self.picture_hwc.cpu().numpy(), dtype)


def lies_on(image_hwc: object, device: torch.device) -> Tensor | None:
    """A picture that is on this device already, for the current stream to read; None for any other."""
    if not isinstance(image_hwc, DevicePicture) or image_hwc.picture_hwc.device != device:
        return None
    if image_hwc.picture_hwc.is_cuda:
        image_hwc.picture_hwc.record_stream(torch.cuda.current_stream(device))
    return image_hwc.picture_hwc
