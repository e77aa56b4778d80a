"""Decoding on a GPU (NVDEC). The pictures stay there: `Frame.image_hwc` is then an image on that GPU.

Packets, timestamps and gaps are those of any recording. But NVDEC conceals damage inside a picture's data and does not
report it. So damage is found only where no decoding is needed to see it, and by the check of H.264 slices
(decode/slice_check.py). Refused: formats other than 8-bit 4:2:0, HDR and wide gamut, odd sizes, rotation,
deinterlacing. This has not run on a GPU yet.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import av
from av.codec.hwaccel import HWAccel

from ..base.account import Account
from ..base.source import PermanentSourceError
from ..base.types import Color, ImageU8
from .decode.convert import Converter
from .decode.display_color import is_displayable
from .decode.orientation import Orientation
from .demux.demuxer import INSTEAD

# Codecs whose chroma samples FFmpeg places to the left if the stream states nothing; for all others, in the center.
LEFT = ("h264", "hevc", "mpeg2video", "mpeg4", "vc1", "wmv3")
HIDES = "whole as NVDEC gave it, which conceals damage inside a picture and does not report it"


class Gpu(Protocol):
    """Converts pictures in the GPU's memory: `rtseg.engine.picture.on_gpu.OnGpu`."""

    @property
    def index(self) -> int: ...

    def current(self) -> AbstractContextManager[None]:
        """While it is entered, the GPU's context, which torch uses too, is the current one of this thread."""

    def picture(self, luma: Any, chroma: Any, matrix: str, full: bool, site: str) -> Any:
        """The picture in RGB, from planes that offer DLPack; `site`: where its chroma samples lie."""


def accelerated(gpu: Gpu) -> HWAccel | None:
    """Hardware decoding for FFmpeg, in the current context: open the file inside `gpu.current()`.

    That context is the primary one. But FFmpeg refuses it under that name if torch created it, with other flags.
    """
    if not hasattr(av.VideoFrame, "sw_format"):
        raise PermanentSourceError(f"PyAV {av.__version__} does not leave pictures on a GPU: pip install 'av>=18.1'")
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", str(gpu.index), allow_software_fallback=False, options=options, is_hw_owned=True)


class OnGpuConverter(Converter):
    """A `Converter` of pictures that are on a GPU, and stay there."""

    def __init__(self, where: str, account: Account, orientation: Orientation, codec: str, gpu: Gpu) -> None:
        super().__init__(where, "off", account, orientation)
        self._gpu, self._site = gpu, "left" if codec in LEFT else "center"
        account.assumed["data"] = HIDES

    def _image(self, picture: av.VideoFrame, color: Color) -> ImageU8:
        why = "" if is_displayable(color) else "its colours are not those of an ordinary display"
        if self.orientation.text:
            why = f"it is to be shown {self.orientation.text}"
        if picture.width % 2 or picture.height % 2:
            why = f"{picture.width}x{picture.height} has an odd side"
        if why:
            raise PermanentSourceError(f"{self._where}: {why}, which is not done on a GPU; {INSTEAD}")
        luma, chroma = planes_of(self._where, picture)
        image: ImageU8 = self._gpu.picture(luma, chroma, color.matrix, color.range == "full", self._site)
        return image


def planes_of(where: str, picture: av.VideoFrame) -> tuple[Any, Any]:
    """Luma and chroma planes of a picture on a GPU.

    They offer DLPack and keep it alive. `SourceError` if it is not NV12.
    """
    name = picture.sw_format.name if picture.format.name == "cuda" and picture.sw_format else picture.format.name
    if picture.format.name != "cuda" or name != "nv12":
        raise PermanentSourceError(f"{where}: decoded as {name}; expected nv12 on the GPU: {INSTEAD}")
    luma, chroma = picture.planes
    return luma, chroma
