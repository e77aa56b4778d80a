"""A picture that stays on its GPU, and otherwise behaves like a numpy array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...base.types import ImageU8

Size = tuple[int, int]  # width, height


class DevicePicture:
    """A picture uint8 RGB [H, W, 3] on a GPU. It does not change, except when the overlay is drawn, at the end.

    numpy treats it as an array and copies all of it to the host. The GPU's work on the picture is done when the
    constructor returns.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, picture_hwc: Tensor, sample: Size | None = None) -> None:
        """Wait for the picture. `sample`: the (width, height) of later calls of `sampled`, which it prepares."""
        self.picture_hwc = picture_hwc
        self.shape: tuple[int, ...] = tuple(picture_hwc.shape)
        self._sample = (sample, self._sampled(*sample)) if sample else None
        if sample is None and picture_hwc.is_cuda:
            torch.cuda.current_stream(picture_hwc.device).synchronize()

    def sampled(self, width: int, height: int) -> ImageU8:
        """The picture resized to [height, width, 3] as by OpenCV's INTER_NEAREST, on the host."""
        if self._sample is not None and self._sample[0] == (width, height):
            return self._sample[1]
        return self._sampled(width, height)

    def _sampled(self, width: int, height: int) -> ImageU8:
        rows, columns = (
            torch.from_numpy((np.arange(n) * (size / n)).astype(np.int64)).to(self.picture_hwc.device)
            for n, size in ((height, self.shape[0]), (width, self.shape[1]))
        )
        return np.asarray(self.picture_hwc[rows[:, None], columns].cpu().numpy(), np.uint8)

    def resized(self, width: int, height: int) -> ImageU8:
        """The picture resized to [height, width, 3] as by OpenCV's INTER_LINEAR, on the host."""
        planes_1chw = self.picture_hwc.permute(2, 0, 1)[None].float()
        planes_1chw = F.interpolate(planes_1chw, size=(height, width), mode="bilinear", align_corners=False)
        resized_hwc = planes_1chw[0].permute(1, 2, 0).round_().to(torch.uint8)
        return np.ascontiguousarray(resized_hwc.cpu().numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ImageU8:
        if copy is False and self.picture_hwc.is_cuda:
            raise ValueError("a picture on a GPU has to be copied to become an array")
        return np.asarray(self.picture_hwc.cpu().numpy(), dtype)


def lies_on(image_hwc: object, device: torch.device) -> Tensor | None:
    """The tensor of a picture on this device, marked as used by the current stream; None for any other picture."""
    if not isinstance(image_hwc, DevicePicture) or image_hwc.picture_hwc.device != device:
        return None
    if image_hwc.picture_hwc.is_cuda:
        image_hwc.picture_hwc.record_stream(torch.cuda.current_stream(device))
    return image_hwc.picture_hwc
