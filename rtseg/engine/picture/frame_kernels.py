"""The kernels of `frame.cu` on torch tensors: NV12 to RGB, pictures to the network's input, masks onto pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.defaults import OPACITY
from ...base.errors import EngineError
from ...base.types import ImageU8
from .launch import Launcher, launcher

SOURCE = Path(__file__).with_name("frame.cu")
ARCHITECTURES = (80, 86, 87, 89, 90, 100, 110, 120)  # the tests compile for these; 87 and 110 are Jetson's
ORDERS = {"rgb": 0, "bgr": 1}
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# The weights of red and blue in the luma of each matrix, under FFmpeg's names (ITU-T H.273).
LUMA = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
# Where the chroma sample of four pixels is, under FFmpeg's names: the offset from the upper left pixel, left and up.
SITES = {
    "left": (0.0, -0.5),
    "center": (-0.5, -0.5),
    "topleft": (0.0, 0.0),
    "top": (-0.5, 0.0),
    "bottomleft": (0.0, -1.0),
    "bottom": (-0.5, -1.0),
}
OBJECTS = 32  # objects at most: one bit each
BLOCK = (32, 8, 1)
# The types of each kernel's arguments, in order: P pointer, l long, i int, f float.
ARGUMENTS = {
    "nv12_to_picture": "PPllffffiiiP",
    "picture_to_input": "PliiiPii",
    "cover": "PiiiPii",
    "draw": "PPiPPiiiii",
}

Color = tuple[int, int, int]


def toward(color: Color, opacity: float) -> ImageU8:
    """Each value of each channel blended with `color`, [256, 3], as `rtseg.publish` draws."""
    value_c = np.arange(256)[:, None]
    return np.asarray(np.rint(value_c + (np.array(color) - value_c) * opacity), np.uint8)


class FrameKernels:
    """The kernels on one GPU, on torch's current stream.

    Raises `EngineError` if there is no GPU, or neither NVRTC nor pycuda with nvcc. All tensors are on that GPU;
    pictures are uint8 and may have padded rows (a stride), planes are contiguous [1, 3, S, S] fp32, fp16 or bf16.
    """

    def __init__(self, device: torch.device | str = "cuda", launch: Launcher | None = None) -> None:
        """`launch`: a replacement that runs the kernels of `ARGUMENTS` on tensors of `device`."""
        self.device = torch.device(device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise EngineError("the frame kernels need an NVIDIA GPU, and torch sees none; see `rtseg doctor`")
            self.device = torch.device("cuda", _index(self.device))
            torch.zeros(1, device=self.device)  # makes torch create the primary context, which the kernels use, too
        self._launcher = launch or launcher(SOURCE.read_text("utf-8"), ARGUMENTS, self.device)
        self._tables = lru_cache(maxsize=64)(self._new_tables)

    def nv12_to_picture(
        self, luma_hw: Tensor, chroma_hw2: Tensor, picture_hwc: Tensor, matrix: str = "bt709", full: bool = False,
        site: str = "left",
    ) -> Tensor:  # fmt: skip
        """Convert a decoder's picture, luma [H, W] and chroma [H / 2, W / 2, 2], to RGB in `picture_hwc`; return that.

        `matrix` is one of `LUMA`; `full`: values use the full range from 0 to 255; `site` is one of `SITES`. The result
        equals that of rtseg/grab/decode/color.py, to one grey level.
        """
        height, width = luma_hw.shape
        weights, place = _choice("matrix", matrix, LUMA), _choice("site", site, SITES)
        if height % 2 or width % 2 or tuple(chroma_hw2.shape) != (height // 2, width // 2, 2):
            found = f"luma {tuple(luma_hw.shape)}, chroma {tuple(chroma_hw2.shape)}"
            raise EngineError(f"NV12 picture: {found}; expected even sides, and chroma [H / 2, W / 2, 2]")
        if tuple(picture_hwc.shape) != (height, width, 3) or not picture_hwc.is_contiguous():
            raise EngineError(f"picture: {tuple(picture_hwc.shape)}; expected contiguous, [{height}, {width}, 3]")
        self._launch(
            "nv12_to_picture", (width, height), _rows(luma_hw, "luma"), _rows(chroma_hw2, "chroma"),
            luma_hw.stride(0), chroma_hw2.stride(0), *weights, *place, int(full), height, width,
            _rows(picture_hwc, "picture"),
        )  # fmt: skip
        return picture_hwc

    def picture_to_input(self, picture_hwc: Tensor, planes_13ss: Tensor, order: str = "rgb") -> Tensor:
        """Convert a picture, in "rgb" or "bgr" order, to the network's input in `planes_13ss`, and return that."""
        height, width, _ = picture_hwc.shape
        kind = _choice("order", order, ORDERS)
        self._launch(
            "picture_to_input", tuple(planes_13ss.shape[:1:-1]), _rows(picture_hwc, "picture"),
            picture_hwc.stride(0), kind, height, width, *_planes(planes_13ss),
        )  # fmt: skip
        return planes_13ss

    def draw(
        self, picture_hwc: Tensor, logits_bhw: Tensor, colors: Sequence[Color], opacity: float = OPACITY
    ) -> Tensor:
        """Draw masks onto a contiguous RGB picture, in place: a tint, and a bright and a dark line.

        `logits_bhw` are fp32 at the network's resolution; `opacity` 0 draws no tint; lines are those of `draw_overlay`.
        """
        height, width, _ = picture_hwc.shape
        objects, rows, columns = logits_bhw.shape
        if objects != len(colors) or objects > OBJECTS:
            raise EngineError(f"{objects} masks, {len(colors)} colours; expected one each, and at most {OBJECTS}")
        if logits_bhw.dtype != torch.float32 or not logits_bhw.is_contiguous() or not picture_hwc.is_contiguous():
            raise EngineError("draw: expected contiguous tensors, and logits in fp32")
        if not objects:
            return picture_hwc
        tables, dark = self._tables(tuple(colors), opacity)
        bits_hw = torch.empty(height, width, dtype=torch.int32, device=self.device)
        self._launch("cover", (width, height), logits_bhw, objects, rows, columns, bits_hw, height, width)
        self._launch(
            "draw", (width, height), picture_hwc, bits_hw, objects, tables, dark, int(opacity > 0),
            *line_widths(height), height, width,
        )  # fmt: skip
        return picture_hwc

    def _new_tables(self, colors: tuple[Color, ...], opacity: float) -> tuple[Tensor, Tensor]:
        tables, dark = drawing_tables(colors, opacity)
        return torch.from_numpy(tables).to(self.device), torch.from_numpy(dark).to(self.device)

    def _launch(self, name: str, pixels: tuple[int, ...], *arguments: Any) -> None:
        """Queue a kernel on the current stream, without waiting."""
        across, down = (-(-n // side) for n, side in zip(pixels, BLOCK, strict=False))
        values = [self._address(a) if isinstance(a, Tensor) else a for a in arguments]
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        self._launcher(name, (across, down), BLOCK, values, stream)

    def _address(self, tensor: Tensor) -> int:
        if tensor.device != self.device:
            raise EngineError(f"these frame kernels take tensors on {self.device}; this one is on {tensor.device}")
        return int(tensor.data_ptr())


def line_widths(height: int) -> tuple[int, int]:
    """The widths in pixels of the bright line and of the dark one inside it, for a picture of this height."""
    outer = max(1, round(height / 270))
    return outer, max(1, outer // 2)


def drawing_tables(colors: Sequence[Color], opacity: float = OPACITY) -> tuple[ImageU8, ImageU8]:
    """Tables from old to new values: under a tint and under a line [objects, 2, 256, 3], under the dark line [256]."""
    tables = np.stack([np.stack([toward(c, opacity), toward(c, 0.95)]) for c in colors])
    return tables, np.ascontiguousarray(toward((0, 0, 0), 0.45)[:, 0])


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _rows(bytes_hwc: Tensor, what: str) -> Tensor:
    """The tensor itself. Raises `EngineError` unless it is bytes in rows, which may be padded."""
    packed = bytes_hwc[0].is_contiguous()
    if bytes_hwc.dtype != torch.uint8 or not packed:
        raise EngineError(f"{what}: {bytes_hwc.dtype}, strides {bytes_hwc.stride()}; expected rows of bytes")
    return bytes_hwc


def _planes(planes_13ss: Tensor) -> tuple[Tensor, int, int]:
    size = planes_13ss.shape[-1]
    fits = planes_13ss.dtype in TYPES and tuple(planes_13ss.shape) == (1, 3, size, size)
    if not fits or not planes_13ss.is_contiguous():
        found = f"{planes_13ss.dtype} {tuple(planes_13ss.shape)}"
        raise EngineError(f"planes: {found}; expected contiguous [1, 3, S, S] in fp32, fp16 or bf16")
    return planes_13ss, TYPES[planes_13ss.dtype], size


def _choice(key: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise EngineError(f"{key} = {name!r}; expected one of: {', '.join(known)}")
    return known[name]
