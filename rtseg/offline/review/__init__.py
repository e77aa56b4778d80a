"""Looking at results: `report.html` of one result, and `index.html` over all results under a folder.

    series.py       an object's presence and confidence over time, in a bounded number of bins
    moments.py      moments worth a second look, each with its reason
    reading.py      a result read once, frame by frame: what the report says, and `review.json`
    pictures.py     thumbnails out of `overlay.mp4`
    html.py         markup whose text is escaped; style.py: how the pages look
    report_page.py  the report; timeline.py: its drawings
    index_page.py   the index
    making.py       `write_report`, `write_index`: the files

A report is one file: it needs no script, no network and no other file, and links to `rtseg console` at a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .making import add_index, write_index, write_report

__all__ = ["add_index", "write_index", "write_report"]


def __getattr__(name: str) -> Any:
    """Import the functions on first use, so that the command line is parsed without their libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import making

    return getattr(making, name)
