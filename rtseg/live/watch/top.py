"""`rtseg top`: a feed's metrics, once a second, in a terminal of 80 columns; stale figures are marked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...base.errors import OutputError
from .scrape import Scrape, scrape, url_of

ADDRESS = "127.0.0.1:9464"
_PERIOD_S = 1.0
_GOOD, _BAD, _MIDDLING = "bold green", "bold white on red", "bold yellow"
_STATE_STYLE = {"running": _GOOD, "recovering": _MIDDLING, "paused": _MIDDLING, "opening": _MIDDLING, "ended": "bold"}
_DASH = "-"


def top(
    address: str = ADDRESS, seconds: float | None = None, once: bool = False, *, console: Console | None = None
) -> dict[str, Any]:
    """Show the feed whose metrics are at `address`, until Ctrl-C or for so many seconds.

    With `once`, or without a terminal, it is printed once, with an `OutputError` if nothing answers; otherwise it keeps
    asking. Returns what was shown last; `ok` is false if the last request got no answer, or the feed could not report
    its state. `OutputError` also for a malformed address.
    """
    url = url_of(address)
    console = console or Console()
    if once or not console.is_terminal:
        now = scrape(url)
        console.print(draw(now))
        return _summary(url, now, scrapes=1, failed=0, stale=False)
    watch, end_s = _Watch(url), time.monotonic() + (seconds or float("inf"))
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            start_s = time.monotonic()
            watch.look()
            live.update(watch.draw(), refresh=True)
            pause_s = min(start_s + _PERIOD_S, end_s) - time.monotonic()
            if time.monotonic() + pause_s >= end_s:
                break
            time.sleep(max(0.0, pause_s))
    return _summary(url, watch.now, watch.scrapes, watch.failed, watch.stale)


class _Watch:
    """The last two scrapes that succeeded, and why the latest failed, if it did."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.now: Scrape | None = None
        self._before: Scrape | None = None
        self._why = ""
        self.scrapes = self.failed = 0

    def look(self) -> None:
        try:
            fresh = scrape(self._url)
        except OutputError as e:
            self.failed += 1
            self._why = str(e)
            return
        self.scrapes += 1
        self._before, self.now, self._why = self.now, fresh, ""

    @property
    def stale(self) -> bool:
        return bool(self._why)

    def draw(self) -> RenderableType:
        if self.now is None:
            return Group(Text(" NO ANSWER ", _BAD), Text(self._why), Text("Asking again every second.", "dim"))
        if not self.stale:
            return draw(self.now, self._before)
        old_s = time.monotonic() - self.now.taken_s
        notice = Text(f" NO ANSWER: these figures are {old_s:.0f} s old ", _BAD)
        return Group(notice, Text(self._why), draw(self.now, stale=True))


def draw(now: Scrape, before: Scrape | None = None, *, stale: bool = False) -> RenderableType:
    """All tables of one scrape, with rates since the one before it (None: since the start)."""
    parts: list[RenderableType] = [_headline(now, stale), *_rates(now)]
    parts += [table for table in (_stages(now, before), _drops(now, before), _processes(now)) if table.row_count]
    group = Group(*parts)
    if stale:
        for part in parts[1:]:
            if isinstance(part, Table):
                part.style = "dim"
            elif isinstance(part, Text):
                part.stylize("dim")
    return group


def _headline(now: Scrape, stale: bool) -> Text:
    info = next(now.labelled("rtseg_info"), ({}, 0.0))[0]
    state = now.state("rtseg_state") or "unknown"
    if now.value("rtseg_up") != 1:
        state = "the feed cannot report its state"
    line = Text(overflow="ellipsis", no_wrap=True)
    line.append(f" {state.upper()} ", "dim strike" if stale else _STATE_STYLE.get(state, _BAD))
    line.append(f" {info.get('stream', _DASH)}", "bold")
    source = now.state("rtseg_source_state")
    if source is not None and source != state:
        line.append(f"  source {source}", _STATE_STYLE.get(source, _BAD))
    line.append(f"  {info.get('engine', '')}", "dim")
    return line


def _rates(now: Scrape) -> Iterable[Text]:
    fps = now.by("rtseg_frames_per_second", "kind")
    rates = "  ".join(f"{kind} {fps[kind]:.1f}" for kind in ("in", "shown", "segmented") if kind in fps)
    ages = [f"{kind} {1e3 * age:.0f} ms old" for kind in ("frame", "mask") if (age := _age(now, kind)) is not None]
    queues = [f"{queue} {n:.0f}" for queue, n in now.by("rtseg_queue_length", "queue").items()]
    objects = now.value("rtseg_objects")
    if rates:
        yield Text(f"fps       {rates}")
    if ages or objects is not None:
        yield Text(f"newest    {', '.join(ages) or _DASH}" + ("" if objects is None else f"; {objects:.0f} objects"))
    if queues:
        yield Text(f"waiting   {', '.join(queues)}")


def _age(now: Scrape, kind: str) -> float | None:
    return now.value(f"rtseg_{kind}_age_seconds")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=False, padding=(0, 2, 0, 0))
    table.add_column(first, style="cyan", no_wrap=True, overflow="ellipsis", max_width=28, min_width=18)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _stages(now: Scrape, before: Scrape | None) -> Table:
    """Stage times: percentiles since the start; "mean now" since the scrape before."""
    table = _table("stage, ms", "p50", "p95", "p99", "mean now" if before else "mean", "count")
    rows = [(stage, "rtseg_stage", {"stage": stage}) for stage in now.by("rtseg_stage_seconds_count", "stage")]
    if now.value("rtseg_jitter_seconds_count") is not None:
        rows.append(("jitter", "rtseg_jitter", {}))
    for title, name, labels in rows:
        quantiles = [now.value(f"{name}_quantile_seconds", **labels, quantile=q) for q in ("0.5", "0.95", "0.99")]
        count, total = (_since(now, before, f"{name}_seconds_{what}", labels) for what in ("count", "sum"))
        mean = f"{1e3 * total / count:.1f}" if count > 0 else _DASH
        whole = now.value(f"{name}_seconds_count", **labels) or 0
        table.add_row(
            Text(title), *(_DASH if q is None else f"{1e3 * q:.1f}" for q in quantiles), mean, f"{whole:,.0f}"
        )
    return table


def _drops(now: Scrape, before: Scrape | None) -> Table:
    """Frames not shown and messages not sent, by cause; causes that never occurred are left out."""
    table = _table("dropped", "a second", "in all")
    found = [
        (f"{labels.get('topic', 'frames')}: {labels['cause']}", name, labels, count)
        for name in ("rtseg_frames_total", "rtseg_messages_dropped_total")
        for labels, count in now.labelled(name)
        if count and labels.get("cause")
    ]
    for title, name, labels, count in found:
        passed_s = now.taken_s - before.taken_s if before else 0.0
        rate = f"{_since(now, before, name, labels) / passed_s:.1f}" if passed_s > 0 else _DASH
        table.add_row(Text(title), rate, f"{count:,.0f}")
    return table


def _since(now: Scrape, before: Scrape | None, name: str, labels: dict[str, str]) -> float:
    """How much a counter grew; one that shrank was reset, and counts from 0."""
    value = now.value(name, **labels) or 0.0
    old = (before.value(name, **labels) or 0.0) if before else 0.0
    return value - old if value >= old else value


def _processes(now: Scrape) -> Table:
    table = _table("process", "state", "restarts", "MiB", "beat, ms", "files", "pid")
    columns = {
        name: now.by(f"rtseg_process_{name}", "process")
        for name in ("restarts_total", "resident_memory_bytes", "beat_age_seconds", "open_fds", "pid")
    }
    memory, beat = columns["resident_memory_bytes"], columns["beat_age_seconds"]
    for process, up in now.by("rtseg_process_up", "process").items():
        state = Text("up", _GOOD) if up == 1 else Text("DOWN", _BAD)
        restarts = columns["restarts_total"].get(process, 0)
        table.add_row(
            Text(process), state, Text(f"{restarts:.0f}", _MIDDLING if restarts else ""),
            _number(memory.get(process), 2**-20), _number(beat.get(process), 1e3),
            _number(columns["open_fds"].get(process)), _number(columns["pid"].get(process)),
        )  # fmt: skip
    return table


def _number(value: float | None, scale: float = 1) -> str:
    return _DASH if value is None else f"{value * scale:.0f}"


def _summary(url: str, now: Scrape | None, scrapes: int, failed: int, stale: bool) -> dict[str, Any]:
    fps = now.by("rtseg_frames_per_second", "kind") if now else {}
    return {
        "ok": now is not None and not stale and now.value("rtseg_up") == 1,
        "endpoint": url,
        "state": now.state("rtseg_state") if now else None,
        "fps": {kind: round(value, 2) for kind, value in fps.items()},
        "scrapes": scrapes,
        "failed": failed,
    }
