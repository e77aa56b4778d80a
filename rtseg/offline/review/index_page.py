"""The page of an index: one row for each result, failures first; its columns sort by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from .html import Html, counted, h, join, lasting, name, page
from .listing import REPORT, Listed, Listing
from .style import INDEX

# Sorts the rows of the one table by the column whose button is pressed; `data-v` of a cell is what it sorts by.
SCRIPT = """
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("thead th")];
const said = document.querySelector("[role=status]");
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = [...body.rows].map((row) => [row.cells[column].dataset.v, row]);
  const number = head.className === "number";
  keyed.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (number ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  });
  body.append(...keyed.map(([, row]) => row));
  said.textContent = `Sorted by ${head.textContent.trim()}, ${down ? "descending" : "ascending"}`;
}));
"""


def _link(each: Listed) -> Html:
    file = f"/{REPORT}" if each.has_report else "/"
    place = "." if each.place == "." else f"./{quote(each.place)}"
    shown = name(each.source if each.place == "." else each.place)
    return (
        shown
        if each.seconds is None and not each.has_report and not each.frames
        else h("a", shown, href=f"{place}{file}")
    )


def _state(each: Listed) -> Html:
    kind, word = ("good", "Complete") if each.complete else ("bad", "Failed")
    return join(h("span", word, class_=f"state {kind}"), h("span", each.why, class_="why") if each.why else None)


def _figure(shown: Callable[[float], str], value: float | None) -> tuple[str, str]:
    return ("–", "") if value is None else (shown(value), f"{value}")


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _row(each: Listed) -> Html:
    figures = (
        _figure(lasting, each.seconds), _figure(_thousands, each.frames), _figure(_thousands, each.objects),
        _figure(lambda value: f"{value:.2f}", each.confidence), _figure(_thousands, each.moments),
        _figure(_thousands, each.cuts), _figure(_thousands, each.missing),
    )  # fmt: skip
    cells = [h("td", shown, data_v=value, class_="number") for shown, value in figures]
    place = h("th", _link(each), h("div", name(each.source), class_="quiet"), scope="row", data_v=each.place)
    state = h("td", _state(each), data_v="1" if each.complete else "0")
    return h("tr", place, state, *cells, class_=None if each.complete else "failed")


COLUMNS = (
    "Result",
    "State",
    "Length",
    "Frames",
    "Objects",
    "Confidence",
    "To look at",
    "Scene cuts",
    "Missing",
)


def _totals(listing: Listing) -> Html:
    rows = listing.results

    def total(of: Callable[[Listed], float | None]) -> float:
        return sum(of(each) or 0 for each in rows)

    facts = {
        "Results": f"{len(rows):,}",
        "Complete": f"{len(rows) - len(listing.failed):,}",
        "Failed": f"{len(listing.failed):,}",
        "Length": lasting(total(lambda each: each.seconds)),
        "Frames": _thousands(total(lambda each: each.frames)),
        "Moments to look at": _thousands(total(lambda each: each.moments)),
        "Frames missing": _thousands(total(lambda each: each.missing)),
    }
    return h("dl", *(h("div", h("dt", key), h("dd", value)) for key, value in facts.items()), class_="facts")


def index_page(listing: Listing) -> str:
    """The whole page. It is useful without its script, which only sorts."""
    title = listing.folder.resolve().name or "Results"
    heads = [
        h("th", h("button", column, type="button"), scope="col", class_="number" if i > 1 else None)
        for i, column in enumerate(COLUMNS)
    ]
    unread = sum(each.moments is None and each.frames is not None for each in listing.results)
    told = "Failures come first. A heading sorts by its column."
    if unread:
        told += f" {counted(unread, 'result has', 'results have')} no report yet: rtseg report FOLDER makes them."
    table = h("table", h("thead", h("tr", *heads)), h("tbody", *map(_row, listing.results)))
    body = join(
        h("header", h("h1", "Results: ", name(title)), _totals(listing)),
        h(
            "main",
            h(
                "section", h("p", told, class_="quiet"),
                h("div", table, class_="wide", tabindex=0, role="region", aria_label="Table of results"),
                h("p", role="status", class_="quiet"),
            ),
        ),
        h("footer", h("p", "For research only; not a medical device.")),
    )  # fmt: skip
    return page(f"Results: {title}", INDEX, body, SCRIPT)
