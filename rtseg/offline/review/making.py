"""The files of a review: `report.html` and `review.json` in a result's folder, `index.html` over many."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ...base.errors import RtsegError
from ...base.files import atomic_path
from .pictures import thumbnails
from .reading import MOMENTS, TURNS, Review, read_result
from .report_page import place_of, report_page

REPORT, SUMMARY, INDEX = "report.html", "review.json", "index.html"
NONE: Mapping[str, str] = MappingProxyType({})


def write_report(result: Path) -> Path:
    """Write `report.html`, and `review.json` with its figures, into a folder that `rtseg segment` wrote.

    Reads run.json and masks.json once, in constant memory, and decodes what it needs of overlay.mp4. Without a
    readable overlay the report has no thumbnails, and says why.

    Returns:
        The path of the report.

    Raises:
        ConfigError: the folder is no result.
        OutputError: its masks.json is damaged, or the files cannot be written.
    """
    review = read_result(result)
    pictures, why = thumbnails(result, _pictured(review))
    page = report_page(review, pictures, why)
    with atomic_path(result / SUMMARY) as part:
        part.write_text(json.dumps(review.plain(), indent=1) + "\n", "utf-8")
    with atomic_path(result / REPORT) as part:
        part.write_text(page, "utf-8")
    return result / REPORT


def _pictured(review: Review) -> list[float]:
    """The times that get a thumbnail."""
    chosen = [*review.found.heaviest(MOMENTS), *review.turns.heaviest(TURNS)]
    return [place_of(review, moment) for moment in chosen]


def write_index(folder: Path, failed: Mapping[str, str] = NONE) -> Path:
    """Write `index.html` over all results under a folder, failures first; those without a report are listed, too.

    `failed`: the name and the reason of recordings that may have no result. Raises `ConfigError` if there is nothing to
    list, `OutputError` if the file cannot be written.
    """
    from .index_page import index_page
    from .listing import list_results

    page = index_page(list_results(folder, failed))
    with atomic_path(folder / INDEX) as part:
        part.write_text(page, "utf-8")
    return folder / INDEX


def add_index(folder: Path, failed: Mapping[str, str], say: Callable[[str], None]) -> None:
    """`write_index` after many recordings: results do not depend on it, so a failure is only shown."""
    try:
        write_index(folder, failed)
    except RtsegError as e:
        say(str(e))
