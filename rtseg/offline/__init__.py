"""A recording, every frame in order, to a folder of results: `rtseg segment`.

The folder holds `overlay.mp4` to look at, `masks/00000.png` (palette PNG: the id of the object at each pixel),
`masks.json` (COCO RLE), `run.json` (what made them, and whether they are complete), and on request the pictures
themselves in `frames/`. Images of a folder lend their names to masks and pictures. It appears when the run has ended.
A run that ends early leaves what is whole by then, and says so: in `run.json`, and by an `IncompleteError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import Reading

if TYPE_CHECKING:
    from .run import segment

__all__ = ["Reading", "segment"]


def __getattr__(name: str) -> Any:
    """`segment` is imported when it is first used: the command line is parsed without its libraries."""
    if name != "segment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .run import segment

    return segment
