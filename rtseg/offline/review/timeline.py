"""The drawings of a report: for each object a row with its confidence and presence over time."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.colors import color_of
from .html import Html, clock, counted, h, join, lasting, name
from .moments import LOW, Moment
from .reading import ObjectReview, Review
from .series import Series

TOP, BOTTOM, FLOOR = 4, 44, 56  # of a row: confidence 1, confidence 0, and the bottom of the bar of presence
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)  # seconds
MOST_LINES = 400  # of cuts


def timeline(review: Review, moments: Sequence[Moment]) -> Html:
    """All rows, with the axis of time under them."""
    rows = [
        _row(review, each, [moment for moment in moments if moment.object == each.object.id]) for each in review.objects
    ]
    return h("div", _events_row(review), *rows, _axis(review), _legend(), class_="rows")


def swatch(object_id: int) -> Html:
    """A patch of an object's colour, as the overlay has it."""
    return h("span", class_="swatch", style=f"background:{_css(object_id)}")


def _css(object_id: int) -> str:
    return f"rgb({' '.join(map(str, color_of(max(object_id, 1))))})"


def _svg(review: Review, height: int, label: str, *content: Html) -> Html:
    return h(
        "svg", *content, viewBox=f"0 0 {review.bins.count} {height}", preserveAspectRatio="none", role="img",
        aria_label=label, style=f"height:{height}px",
    )  # fmt: skip


def _row(review: Review, each: ObjectReview, moments: Sequence[Moment]) -> Html:
    told = [f"in view {lasting(each.in_view_s)}", counted(each.intervals, "interval")]
    if each.confidence is not None and each.lowest is not None:
        lowest, at = each.lowest
        told += [f"confidence {each.confidence:.2f} on average, {lowest:.2f} at {clock(at.seconds - review.start_s)}"]
    label = f"{each.object.name}: {', '.join(told)}"
    marks = [_line(review, moment.seconds, "mark", 0, 10) for moment in moments]
    level = BOTTOM - LOW * (BOTTOM - TOP)
    drawn = (
        _line_across(review, level), *_bands(each.series, _css(each.object.id)), *_events(review, FLOOR), *marks,
    )  # fmt: skip
    head = h("h3", h("span", swatch(each.object.id), name(each.object.name)), h("small", "; ".join(told)))
    return h("div", head, _svg(review, FLOOR, label, *drawn), class_="row")


def _events_row(review: Review) -> Html:
    told = ", ".join(
        [
            counted(len(review.cuts), "scene cut"),
            counted(len(review.gaps), "gap of missing frames", "gaps of missing frames"),
        ]
    )
    head = h("h3", "Recording", h("small", told))
    return h("div", head, _svg(review, 18, f"Recording: {told}", *_events(review, 18)), class_="row")


def _events(review: Review, height: int) -> list[Html]:
    """Cuts, gaps and an early end, over a row."""
    cuts = [_line(review, seconds, "cut", 0, height) for _, seconds in review.cuts[:MOST_LINES]]
    whole, gaps = review.bins.count, []
    for gap in review.gaps[:MOST_LINES]:
        x1 = review.bins.place(gap["seconds"]) * whole
        lost_s = (gap["lost"] or 1) * (review.frame_s or 0.04)
        x0 = review.bins.place(gap["seconds"] - lost_s) * whole
        wide = max(x1 - x0, whole / 250)  # seen at any width
        gaps.append(h("rect", x=f"{x1 - wide:.1f}", y=0, width=f"{wide:.1f}", height=height, class_="gap"))
    early = review.run.get("complete") is not True
    return [*gaps, *cuts, *([_line(review, review.end_s, "end", 0, height)] if early else [])]


def _line(review: Review, seconds: float, kind: str, y0: float, y1: float) -> Html:
    x = f"{review.bins.place(seconds) * review.bins.count:.1f}"
    return h("line", x1=x, x2=x, y1=y0, y2=y1, class_=kind)


def _line_across(review: Review, y: float) -> Html:
    return h("line", x1=0, x2=review.bins.count, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="line")


def _bands(series: Series, color: str) -> list[Html]:
    """The confidence from its least to its greatest in each bin, and under it the presence."""
    band: list[str] = []
    whole: list[str] = []
    partly: list[str] = []
    for first, end in _stretches(series):
        edges = [(series.low[x], series.high[x]) for x in range(first, end)]
        up = "".join(f"V{_y(high) - 0.7:.1f}H{first + i + 1}" for i, (_, high) in enumerate(edges))
        down = "".join(f"V{_y(low) + 0.7:.1f}H{end - i - 1}" for i, (low, _) in enumerate(reversed(edges)))
        band.append(f"M{first},{_y(edges[0][1]):.1f}{up}{down}Z")
        for x in range(first, end):
            every = series.seen[x] == series.frames[x]
            (whole if every else partly).append(f"M{x},{FLOOR - 8 if every else FLOOR - 4}h1V{FLOOR}h-1Z")
    drawn = []
    for paths, opacity in ((band, "0.85"), (whole, "1"), (partly, "1")):
        if paths:
            drawn.append(h("path", d="".join(paths), fill=color, fill_opacity=opacity))
    return drawn


def _y(confidence: float) -> float:
    return BOTTOM - min(max(confidence, 0.0), 1.0) * (BOTTOM - TOP)


def _stretches(series: Series) -> list[tuple[int, int]]:
    """The runs of bins in which the object is visible."""
    found: list[tuple[int, int]] = []
    for x, seen in enumerate(series.seen):
        if seen and found and found[-1][1] == x:
            found[-1] = found[-1][0], x + 1
        elif seen:
            found.append((x, x + 1))
    return found


def _axis(review: Review) -> Html:
    length = review.bins.count * review.bins.width_s
    step = next((step for step in TICKS if length / step <= 5), length)
    marks = [i * step for i in range(int(length / step) + 1)]
    tenths = step < 1
    spans = [
        h("span", clock(mark, tenths), style=f"left:{100 * mark / length:.2f}%")
        for mark in marks
        if mark <= 0.85 * length
    ]
    return h("div", *spans, h("span", clock(review.end_s - review.start_s, True), style="left:100%"), class_="axis")


def _legend() -> Html:
    def sample(*content: Html) -> Html:
        return h("svg", *content, viewBox="0 0 28 14", aria_hidden="true")

    grey = "#9fb0bf"
    items = (
        (
            sample(h("path", d="M0,4V2H28V7H14V9H0Z", fill=grey)),
            "confidence, least to greatest; the dotted line is at 0.5",
        ),
        (sample(h("rect", x=0, y=6, width=28, height=8, fill=grey)), "in view on every frame (half as high: on some)"),
        (sample(h("line", x1=14, x2=14, y1=0, y2=8, class_="mark")), "worth a second look"),
        (sample(h("line", x1=14, x2=14, y1=0, y2=14, class_="cut")), "scene cut"),
        (sample(h("rect", x=10, y=0, width=8, height=14, class_="gap")), "frames missing"),
    )
    return h("p", *(h("span", *item) for item in items), class_="legend")


def object_label(review: Review, object_id: int | None) -> Html:
    """An object's colour and name; nothing for None."""
    found = next((each.object for each in review.objects if each.object.id == object_id), None)
    return Html("") if found is None else join(swatch(found.id), name(found.name))
