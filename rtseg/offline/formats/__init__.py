"""Other programs' file formats, made from the folder that `rtseg segment` wrote.

`write_formats` writes them to `formats/NAME/` in that folder. Each format is one function in one file, which gets a
`SegmentedVideo` and an empty folder; `registry.py` lists them. A format reads the result's masks frame by frame and
writes as it reads, so a recording of hours takes no more memory than a short one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import FORMATS, Format, check_formats, write_formats

if TYPE_CHECKING:
    from .supervision_rows import read_detections

__all__ = ["FORMATS", "Format", "check_formats", "read_detections", "write_formats"]


def __getattr__(name: str) -> Any:
    """Import `read_detections` on first use, so that the command line is parsed without its libraries."""
    if name != "read_detections":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .supervision_rows import read_detections

    return read_detections
