"""Several files as one recording: their frames and times go on from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base.errors import SourceError
from ..base.source import Damaged, Mode, Source


def open_joined(
    uris: Sequence[str], fps: float | None, deinterlace: Mode, damaged: Damaged, bits: int | None
) -> Source:
    """One source of the frames of several video files, in the order given; `SourceError` where they do not fit."""
    from . import open_recording
    from .inputs import open_video

    if not uris:
        raise SourceError("no files to join; expected one or more")
    if len(uris) == 1:
        return open_recording(uris[0], fps, deinterlace, damaged, bits)
    for name, value in (("fps", fps), ("bits", bits)):
        if value is not None:
            raise SourceError(f"{uris[0]}: {name}={value:g}, but joined videos have their own; leave {name} out")
    for uri in uris:
        if not Path(uri).is_file():
            what = "a folder" if Path(uri).is_dir() else "no such file"
            raise SourceError(f"{uri}: {what}; expected video files to join")
    return open_video([Path(uri) for uri in uris], deinterlace, damaged)
