"""The page of a report: what to look at again, objects over time, entries and exits, and what was read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .html import Html, clock, counted, h, join, lasting, name, page
from .moments import LOW, Moment, of_kinds
from .pictures import Thumbnail
from .reading import GAPS, STAYS, ObjectReview, Review
from .style import REPORT
from .timeline import object_label, swatch, timeline
from .values import as_lines, as_list, as_map, as_whole, ended_of

CONSOLE = "http://127.0.0.1:8080/"  # where `rtseg console SOURCE` answers unless it is told otherwise
RESEARCH = "For research only; not a medical device."


def report_page(review: Review, pictures: Mapping[float, Thumbnail], no_picture: str) -> str:
    """The whole page. `pictures`: thumbnails by time from the start; `no_picture`: why some are missing."""
    moments = review.moments
    body = join(
        _header(review),
        h(
            "main",
            _second_look(review, moments, pictures),
            _section("Objects over time", timeline(review, moments)),
            _section("Objects", _table(review), _stays(review)),
            _turns(review, pictures),
            _section("The recording", _recording(review, no_picture)),
            _section("What made this", _made_by(review)),
        ),
        h("footer", h("p", RESEARCH, " rtseg ", str(as_map(review.run.get("versions")).get("rtseg", "")))),
    )
    return page(f"Review: {review.video.source}", REPORT, body)


def _section(title: str, *content: Html) -> Html:
    return h("section", h("h2", title), *content)


def source_of(run: Mapping[str, Any]) -> str | None:
    """The recording that `rtseg console` can open again; None for a stream, several files, or stdin."""
    source = run.get("source")
    return source if isinstance(source, str) and source != "-" and "://" not in source else None


def _link(review: Review, frame: int, seconds: float) -> Html:
    """A time, as a link to the console at that frame where there can be one."""
    shown = clock(seconds - review.start_s)
    if source_of(review.run) is None:
        return h("strong", shown)
    return h("a", shown, href=f"{CONSOLE}#frame={review.number_in_source(frame)}", target="_blank", rel="noreferrer")


def _header(review: Review) -> Html:
    run, complete = review.run, review.run.get("complete") is True
    state = h("span", "Complete" if complete else "Ended early", class_=f"state {'good' if complete else 'bad'}")
    why = None if complete else h("p", ended_of(run))
    facts = {
        "Length": lasting(review.end_s - review.start_s),
        "Frames": f"{review.count:,}",
        "Size": f"{review.video.width} x {review.video.height}",
        "Objects": str(len(review.objects)),
        "Scene cuts": str(len(review.cuts)),
        "Frames missing": f"{review.missing:,}",
    }
    files = [h("a", file, href=f"./{file}") for file in ("overlay.mp4", "masks.json", "run.json")]
    return h(
        "header", h("p", state), h("h1", name(review.video.source)), why,
        h("dl", *(h("div", h("dt", key), h("dd", value)) for key, value in facts.items()), class_="facts"),
        h("p", "In this folder: ", *_between(files, ", "), class_="quiet"), _how_to_open(review),
    )  # fmt: skip


def _how_to_open(review: Review) -> Html:
    source = source_of(review.run)
    if source is None:
        return h("p", "Times have no links: the console opens one file, or one folder of images.", class_="quiet")
    paths = [as_map(file).get("path") for file in as_list(review.run.get("files"))]
    path = next((path for path in paths if isinstance(path, str)), source)
    command = f"rtseg console {'RECORDING' if 'deidentified' in review.run else shlex.quote(path)}"
    text = "Times are links to the console, at that frame. They work while it runs: "
    shifted = " Where frames are missing, its own numbers may differ." if review.missing else ""
    return h("p", text, h("code", command), shifted, class_="quiet")


def _between(items: Sequence[Html], separator: str) -> list[Html | str]:
    found: list[Html | str] = []
    for item in items:
        found += [separator, item] if found else [item]
    return found


def _second_look(review: Review, moments: Sequence[Moment], pictures: Mapping[float, Thumbnail]) -> Html:
    counts, shown = review.found.counts, len(moments)
    if not moments:
        checked = "Nothing stands out: confidence, areas, absences, cuts and the recording were checked."
        return _section("Worth a second look", h("p", checked))
    total = sum(counts.values())
    listed = f"The {shown} most serious of {total}" if total > shown else counted(total, "moment")
    kinds = ", ".join(of_kinds(counts))
    items = [_moment(review, moment, pictures) for moment in moments]
    return _section(
        "Worth a second look", h("p", f"{listed}: {kinds}.", class_="quiet"), h("ol", *items, class_="moments")
    )


def _moment(review: Review, moment: Moment, pictures: Mapping[float, Thumbnail]) -> Html:
    about = object_label(review, moment.object)
    when = h("p", _link(review, moment.frame, moment.seconds), f", frame {moment.frame}", class_="when")
    words = h("div", when, h("p", about) if about else None, h("p", moment.reason), class_="words")
    picture = _picture(review, moment, pictures)
    return h("li", h("div", picture, class_="picture") if picture else None, words, data_kind=moment.kind)


def _picture(review: Review, moment: Moment, pictures: Mapping[float, Thumbnail]) -> Html | None:
    found = pictures.get(place_of(review, moment))
    if found is None:
        return None
    return h(
        "img", src=found.address, width=found.width, height=found.height, alt=f"Frame {moment.frame} with its masks"
    )


def place_of(review: Review, moment: Moment) -> float:
    """A moment's time from the start, by which its thumbnail is known."""
    return round(max(moment.seconds - review.start_s, 0.0), 6)


def _table(review: Review) -> Html:
    heads = (
        "Object",
        "In view",
        "Share",
        "Intervals",
        "First",
        "Last",
        "Mean score",
        "Mean confidence",
        "Lowest",
        "Mean area",
    )
    rows = [_object_row(review, each) for each in review.objects]
    head = h("tr", *(h("th", title, scope="col", class_="number" if i else None) for i, title in enumerate(heads)))
    what = "score x the network's own estimate of IoU" if review.iou else "the object score"
    told = h("p", f"Means are over the frames where the object is visible. Confidence: {what}, 0 to 1.", class_="quiet")
    table = h("table", h("thead", head), h("tbody", *rows))
    return join(told, h("div", table, class_="wide", tabindex=0, role="region", aria_label="Table of objects"))


def _object_row(review: Review, each: ObjectReview) -> Html:
    length, pixels = review.end_s - review.start_s, review.video.width * review.video.height
    lowest = (
        None
        if each.lowest is None
        else join(f"{each.lowest[0]:.2f} at ", _link(review, each.lowest[1].frame, each.lowest[1].seconds))
    )
    cells: tuple[str | Html | None, ...] = (
        lasting(each.in_view_s),
        f"{100 * each.in_view_s / length:.0f}%" if length else None,
        str(each.intervals),
        None if each.first is None else _link(review, each.first.frame, each.first.seconds),
        None if each.last is None else _link(review, each.last.frame, each.last.seconds),
        _number(each.score),
        _number(each.confidence),
        lowest,
        None if each.area is None else f"{100 * each.area / pixels:.1f}%",
    )
    head = h("th", swatch(each.object.id), name(each.object.name), scope="row")
    return h("tr", head, *(h("td", "–" if cell is None else cell, class_="number") for cell in cells))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _stays(review: Review) -> Html:
    """The intervals in which each object is in view, folded."""
    parts = []
    for each in review.objects:
        if not each.stays:
            continue
        items = [
            h("li", _link(review, a.frame, a.seconds), f" to {clock(b.end_s - review.start_s)}") for a, b in each.stays
        ]
        more = f" (the first {STAYS})" if each.intervals > STAYS else ""
        head = h("summary", counted(each.intervals, "interval"), " of ", name(each.object.name), more)
        parts.append(h("details", head, h("ul", *items, class_="notes")))
    return h("div", *parts)


def _turns(review: Review, pictures: Mapping[float, Thumbnail]) -> Html | None:
    turns = review.turns.heaviest(len(pictures) + 1000)
    if not turns:
        return None
    items = []
    for turn in turns:
        when = h("p", _link(review, turn.frame, turn.seconds), f" {turn.reason}")
        items.append(h("li", _picture(review, turn, pictures), h("p", object_label(review, turn.object)), when))
    total = sum(review.turns.counts.values())
    first = (
        f"The first {len(turns)} of {total}."
        if total > len(turns)
        else counted(total, "entry or exit", "entries and exits") + "."
    )
    return _section("Entries and exits", h("p", first, class_="quiet"), h("ul", *items, class_="turns"))


def _recording(review: Review, no_picture: str) -> Html:
    run = review.run
    notes: list[Html] = []
    for key, title in (("faults", "Fault"), ("warnings", "Prompt")):
        notes += [h("li", f"{title}: {line}") for line in as_lines(run.get(key))[:GAPS]]
    gaps = review.gaps
    for gap in gaps[:GAPS]:
        lost = counted(gap["lost"], "frame") if gap["lost"] else "some frames"
        notes.append(
            h(
                "li",
                _link(review, gap["before"], gap["seconds"]),
                f": {lost} missing before frame {gap['before']} ({gap['why']})",
            )
        )
    if len(gaps) > GAPS:
        notes.append(h("li", f"{len(gaps) - GAPS} more gaps; run.json lists them"))
    notes += [h("li", line) for line in (*_account(run), *_hidden(run))]
    if no_picture:
        notes.append(h("li", f"Pictures are missing here: {no_picture}"))
    if review.cuts:
        links = [_link(review, frame, seconds) for frame, seconds in review.cuts[:GAPS]]
        more = f", and {len(review.cuts) - GAPS} more" if len(review.cuts) > GAPS else ""
        notes.append(h("li", "Scene cuts at ", *_between(links, ", "), more))
    return h("ul", *notes, class_="notes") if notes else h("p", "Read whole: nothing missing, repaired or assumed.")


def _account(run: Mapping[str, Any]) -> list[str]:
    """What was repaired in the source, or assumed about it."""
    account = as_map(run.get("source_account"))
    return [
        f"{key.capitalize()} {what}: {how}"
        for key in ("repaired", "assumed")
        for what, how in as_map(account.get(key)).items()
    ]


def _hidden(run: Mapping[str, Any]) -> list[str]:
    """What was hidden on request."""
    found = as_map(run.get("deidentified"))
    hidden = as_whole(found.get("hidden"))
    return [f"De-identified: {counted(hidden or 0, 'frame')} blurred; {found.get('note', '')}"] if found else []


def _made_by(review: Review) -> Html:
    run = review.run
    hashes = as_map(run.get("sha256"))
    facts = {
        "Source": run.get("source"), "Engine": run.get("engine"), "Weights (SHA-256)": hashes.get("weights"),
        "Prompts (SHA-256)": hashes.get("prompts"), "Source (SHA-256)": hashes.get("source"),
    }  # fmt: skip
    shown = [h("div", h("dt", key), h("dd", _shown(value))) for key, value in facts.items() if value]
    low = (
        f"A mask below a confidence of {LOW} is worth a look; it need not be wrong, and one above it need not be right."
    )
    return join(h("dl", *shown, class_="facts"), h("p", low, class_="quiet"))


def _shown(value: object) -> Html:
    if isinstance(value, list):
        return join(*_between([name(Path(str(each)).name) for each in value], ", "))
    return name(value)
