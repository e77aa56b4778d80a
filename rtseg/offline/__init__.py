"""`rtseg segment`: every frame of a recording, in order, to a folder of results.

The folder has `overlay.mp4` to look at, `masks/00000.png` (palette PNG: the id of the object at each pixel),
`masks.json` (COCO RLE), `run.json` (what made them, and whether they are complete), and on request the pictures
themselves in `frames/`. For a folder of images, masks and pictures have the names of the images. The folder appears
when the run has ended. A run that ends early keeps its complete frames, and reports this in `run.json` and by an
`IncompleteError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import Reading

if TYPE_CHECKING:
    from .run import segment

__all__ = ["Reading", "segment"]


def __getattr__(name: str) -> Any:
    """Import `segment` on first use, so that the command line is parsed without its libraries."""
    if name != "segment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .run import segment

    return segment
