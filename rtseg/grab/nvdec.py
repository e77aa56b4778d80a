"""Recordings that a GPU decodes (NVDEC), whose pictures stay there: `Frame.image_hwc` is then one on that GPU.

Packets, times and gaps are those of any recording. But NVDEC hides damage inside a picture's data, and does not say
so: of what `reading.py` goes by, only what is seen without decoding is left, and the proof of H.264 (`proof.py`).
What cannot be done there is refused: other formats than 8 bits 4:2:0, HDR and wide gamut, odd sizes, rotation,
deinterlacing. No GPU has run this yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.codec.hwaccel import HWAccel

from ..base.account import Account
from ..base.errors import SourceError
from ..base.source import Damaged, HopelessError, Source
from ..base.types import Color, ImageU8
from .convert import Converter
from .demux import INSTEAD
from .header import holds_stills
from .light import shown_as_it_is
from .place import kind_of
from .turn import Turn

# Where chroma lies where nothing else is said, by FFmpeg's decoders; of all others it is "center".
LEFT = ("h264", "hevc", "mpeg2video", "mpeg4", "vc1", "wmv3")
HIDES = "whole as NVDEC gave it, which hides damage inside a picture and does not say so"


class Gpu(Protocol):
    """Whoever takes pictures where the decoder has left them: `rtseg.engine.picture.on_gpu.OnGpu`."""

    @property
    def index(self) -> int: ...

    def current(self) -> AbstractContextManager[None]:
        """Inside, its context, which is torch's, is the current one of this thread."""

    def picture(self, luma: Any, chroma: Any, matrix: str, full: bool, site: str) -> Any:
        """The picture in RGB, of planes that offer DLPack; `site`: where chroma lies."""


def open_on_gpu(
    uris: Sequence[str], gpu: Gpu, fps: float | None, deinterlace: str | None, damaged: Damaged, bits: int | None
) -> Source:
    """Video files, which are one recording, decoded on this GPU; `SourceError` for all else."""
    from .inputs import open_video

    for name, value in (("deinterlace", None if deinterlace == "off" else deinterlace), ("bits", bits)):
        if value is not None:
            raise SourceError(f"{uris[0]}: NVDEC pictures are taken as they are, and {name}={value}; {INSTEAD}")
    for uri in uris:
        if kind_of(uri) != "file" or holds_stills(Path(uri)):
            raise SourceError(f"{uri}: NVDEC decodes video files; for anything else {INSTEAD}")
    rate = None if fps is None else Fraction(float(fps)).limit_denominator(1001)
    return open_video([Path(uri) for uri in uris], "off", damaged, rate, gpu)


def accelerated(gpu: Gpu) -> HWAccel | None:
    """How FFmpeg is to decode, in the context that is the current one where a file is opened: inside `gpu.current()`.

    That is the primary one, but FFmpeg refuses it by that name where torch was first, which made it with other flags.
    """
    if not hasattr(av.VideoFrame, "sw_format"):
        raise HopelessError(f"PyAV {av.__version__} does not leave pictures on a GPU: pip install 'av>=18.1'")
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", str(gpu.index), allow_software_fallback=False, options=options, is_hw_owned=True)


class OnGpuConverter(Converter):
    """As `Converter`, of pictures that were left on a GPU; they stay there."""

    def __init__(self, where: str, account: Account, turn: Turn, codec: str, gpu: Gpu) -> None:
        super().__init__(where, "off", account, turn)
        self._gpu, self._site = gpu, "left" if codec in LEFT else "center"
        account.assumed["data"] = HIDES

    def _image(self, picture: av.VideoFrame, color: Color) -> ImageU8:
        why = "" if shown_as_it_is(color) else "its colours are not those of an ordinary display"
        if self.turn.text:
            why = f"it is to be shown {self.turn.text}"
        if picture.width % 2 or picture.height % 2:
            why = f"{picture.width}x{picture.height} has an odd side"
        if why:
            raise HopelessError(f"{self._where}: {why}, which is not done on a GPU; {INSTEAD}")
        luma, chroma = planes_of(self._where, picture)
        image: ImageU8 = self._gpu.picture(luma, chroma, color.matrix, color.range == "full", self._site)
        return image


def planes_of(where: str, picture: av.VideoFrame) -> tuple[Any, Any]:
    """Luma and chroma of a picture on a GPU, which offer DLPack and keep it alive; `SourceError` for another format."""
    name = picture.sw_format.name if picture.format.name == "cuda" and picture.sw_format else picture.format.name
    if picture.format.name != "cuda" or name != "nv12":
        raise HopelessError(f"{where}: decoded as {name}; expected nv12 on the GPU: {INSTEAD}")
    luma, chroma = picture.planes
    return luma, chroma
