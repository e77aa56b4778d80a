"""`frame.cu` on torch tensors: pictures to the network's input, and masks onto pictures, by pycuda.

The kernels are compiled by nvcc for the GPU at hand when they are first used, and kept in pycuda's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...types import ImageU8

SOURCE = Path(__file__).with_name("frame.cu")
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120")  # that the tests compile for
ORDERS = {"rgb": 0, "bgr": 1}
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # weights of red and blue
OPTIONS = ("-O3", "-std=c++17")  # of nvcc; no fast-math: rounding is part of the results
OBJECTS = 32  # one bit each
BLOCK = (32, 8, 1)
# For pycuda's `prepare`: P pointer, l long, i int, f float; in the order of the kernels' arguments.
ARGUMENTS = {
    "picture_to_input": "PliiiPii",
    "nv12_to_input": "PPllffiiiPii",
    "cover": "PiiiPii",
    "draw": "PPiPPiiiii",
}

Color = tuple[int, int, int]


def pinned_picture(height: int, width: int) -> Tensor:
    """Host memory for a picture uint8 [H, W, 3] that is uploaded without waiting for it."""
    return torch.empty(height, width, 3, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def toward(color: Color, opacity: float) -> ImageU8:
    """What each value of each channel becomes part of the way to `color`, [256, 3]; as `rtseg.publish` draws."""
    value_c = np.arange(256)[:, None]
    return np.asarray(np.rint(value_c + (np.array(color) - value_c) * opacity), np.uint8)


class FrameKernels:
    """The kernels on one GPU, on torch's current stream.

    Raises `EngineError` if pycuda or nvcc is missing, or there is no GPU. All tensors are on that GPU; pictures are
    uint8 and may have padded rows (a stride), planes are contiguous [1, 3, S, S] fp32, fp16 or bf16.
    """

    def __init__(self) -> None:
        try:
            import pycuda.compiler
            import pycuda.driver
        except ImportError as e:
            raise EngineError("pycuda is not installed: pip install 'rtseg[tensorrt]'") from e
        if not torch.cuda.is_available():
            raise EngineError("the frame kernels need an NVIDIA GPU, and torch sees none; see `rtseg doctor`")
        self.device = torch.device("cuda", torch.cuda.current_device())
        torch.zeros(1, device=self.device)  # torch makes the primary context; the kernels live in the same one
        pycuda.driver.init()
        self._context = pycuda.driver.Device(self.device.index).retain_primary_context()
        major, minor = torch.cuda.get_device_capability(self.device)
        self._context.push()
        try:
            cubin = pycuda.compiler.compile(
                SOURCE.read_text("utf-8"), options=list(OPTIONS), no_extern_c=True, arch=f"sm_{major}{minor}"
            )
            self._module = pycuda.driver.module_from_buffer(cubin)
            self._functions = {n: self._module.get_function(n).prepare(kinds) for n, kinds in ARGUMENTS.items()}
            self._stream = pycuda.driver.Stream()
        except (OSError, pycuda.driver.Error) as e:
            problem = str(e).splitlines()[0]
            raise EngineError(f"frame.cu: cannot be compiled here ({problem}); is nvcc on the PATH?") from e
        finally:
            self._context.pop()
        self._side = torch.cuda.ExternalStream(self._stream.handle, device=self.device)

    def picture_to_input(self, picture_hwc: Tensor, planes_13ss: Tensor, order: str = "rgb") -> Tensor:
        """A picture, "rgb" or "bgr", to `planes_13ss`, which is returned."""
        height, width, _ = picture_hwc.shape
        kind = _choice("order", order, ORDERS)
        self._launch(
            "picture_to_input", tuple(planes_13ss.shape[:1:-1]), _rows(picture_hwc, "picture"),
            picture_hwc.stride(0), kind, height, width, *_planes(planes_13ss),
        )  # fmt: skip
        return planes_13ss

    def nv12_to_input(
        self, luma_hw: Tensor, chroma_hw2: Tensor, planes_13ss: Tensor, matrix: str = "bt601", full: bool = False
    ) -> Tensor:
        """A decoder's picture, luma [H, W] and chroma [H / 2, W / 2, 2], to `planes_13ss`, which is returned.

        `matrix` is "bt601" or "bt709"; `full`: values use all of 0 to 255.
        """
        height, width = luma_hw.shape
        kr, kb = _choice("matrix", matrix, LUMA)
        if height % 2 or width % 2 or tuple(chroma_hw2.shape) != (height // 2, width // 2, 2):
            found = f"luma {tuple(luma_hw.shape)}, chroma {tuple(chroma_hw2.shape)}"
            raise EngineError(f"NV12 picture: {found}; expected even sides, and chroma [H / 2, W / 2, 2]")
        self._launch(
            "nv12_to_input", tuple(planes_13ss.shape[:1:-1]), _rows(luma_hw, "luma"), _rows(chroma_hw2, "chroma"),
            luma_hw.stride(0), chroma_hw2.stride(0), kr, kb, int(full), height, width, *_planes(planes_13ss),
        )  # fmt: skip
        return planes_13ss

    def draw(self, picture_hwc: Tensor, logits_bhw: Tensor, colors: Sequence[Color], tint: bool = True) -> Tensor:
        """Draw masks onto a contiguous RGB picture, in place: a tint (or not), and a bright and a dark line.

        `logits_bhw` are fp32 at the network's resolution; opacities and widths are those of `draw_overlay`.
        """
        height, width, _ = picture_hwc.shape
        objects, rows, columns = logits_bhw.shape
        if objects != len(colors) or objects > OBJECTS:
            raise EngineError(f"{objects} masks, {len(colors)} colours; expected one each, and at most {OBJECTS}")
        if logits_bhw.dtype != torch.float32 or not logits_bhw.is_contiguous() or not picture_hwc.is_contiguous():
            raise EngineError("draw: expected contiguous tensors, and logits in fp32")
        if not objects:
            return picture_hwc
        tables, dark = (torch.from_numpy(t).to(self.device) for t in drawing_tables(colors))
        bits_hw = torch.empty(height, width, dtype=torch.int32, device=self.device)
        self._launch("cover", (width, height), logits_bhw, objects, rows, columns, bits_hw, height, width)
        self._launch(
            "draw", (width, height), picture_hwc, bits_hw, objects, tables, dark, int(tint), *line_widths(height),
            height, width,
        )  # fmt: skip
        return picture_hwc

    def _launch(self, name: str, pixels: tuple[int, ...], *arguments: Any) -> None:
        """Queue a kernel behind what torch has queued, and before what it queues next; waits for nothing.

        pycuda cannot take over a stream of torch's. On the default stream it need not; elsewhere its own stream
        joins in by events, which a graph capture records too.
        """
        grid = tuple(-(-n // side) for n, side in zip(pixels, BLOCK, strict=False))
        values = [_address(a) if isinstance(a, Tensor) else a for a in arguments]
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            own = current.cuda_stream == 0
            if not own:
                self._side.wait_stream(current)
            self._functions[name].prepared_async_call(grid, BLOCK, None if own else self._stream, *values)
            if not own:
                current.wait_stream(self._side)


def line_widths(height: int) -> tuple[int, int]:
    """Pixels of the bright line and of the dark one inside it, on a picture of this height."""
    outer = max(1, round(height / 270))
    return outer, max(1, outer // 2)


def drawing_tables(colors: Sequence[Color]) -> tuple[ImageU8, ImageU8]:
    """What values become under a tint and under a line [objects, 2, 256, 3], and under the dark line [256]."""
    tables = np.stack([np.stack([toward(c, 0.28), toward(c, 0.95)]) for c in colors])
    return tables, np.ascontiguousarray(toward((0, 0, 0), 0.45)[:, 0])


def _address(tensor: Tensor) -> int:
    if not tensor.is_cuda:
        raise EngineError(f"the frame kernels take tensors on the GPU; this one is on {tensor.device}")
    return int(tensor.data_ptr())


def _rows(bytes_hwc: Tensor, what: str) -> Tensor:
    """The tensor, if it is bytes in rows that may be padded."""
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
