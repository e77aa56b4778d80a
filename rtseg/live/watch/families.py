"""One snapshot of a feed as Prometheus metrics: their names, units and labels.

A value that the snapshot lacks gives no metric. Times are in seconds, memory in bytes; counters only grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)

from ...base.timing import Histogram

STATES = ("running", "recovering", "paused", "opening", "stalled", "frozen", "lost", "ended", "failed")
BOUNDS_MS = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 500, 1000)  # of the buckets
QUANTILES = (0.5, 0.95, 0.99)
Snapshot = Mapping[str, Any]


def _bin_of(ms: float) -> int:
    one = Histogram()
    one.add(ms)
    return int(np.flatnonzero(one.counts)[0])


_BINS = tuple(_bin_of(ms) for ms in BOUNDS_MS)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All metrics of a snapshot."""
    yield InfoMetricFamily(
        "rtseg", "The feed and its engine.", {key: str(snapshot.get(key, "")) for key in ("stream", "engine")}
    )
    yield from _states(snapshot)
    yield from _processes(snapshot.get("processes") or {})
    yield from _frames(snapshot)
    yield from _published(snapshot.get("published") or {})
    yield from _times(snapshot)
    yield from _now(snapshot)


def _states(snapshot: Snapshot) -> Iterator[Metric]:
    source = snapshot.get("source") or {}
    found = (("rtseg_state", "What the feed does", snapshot), ("rtseg_source_state", "What its source does", source))
    for name, text, holder in found:
        if "state" in holder:
            state = str(holder["state"])
            known = dict.fromkeys((*STATES, state), False) | {state: True}
            yield StateSetMetricFamily(name, f"{text}: one of these is 1.", known)
    events = {(event,): count for event, count in (source.get("counts") or {}).items()}
    yield from _counter("rtseg_source_events", "What happened to the source, by kind.", ("event",), events)


_PROCESS = (  # of each process: the key, the metric, the factor to its unit, and its help text
    ("up", "rtseg_process_up", 1, "1 if the process runs."),
    ("beat_age_ms", "rtseg_process_beat_age_seconds", 1e-3, "Time since the last heartbeat."),
    ("rss_bytes", "rtseg_process_resident_memory_bytes", 1, "Memory of the process, what it shares included."),
    ("open_files", "rtseg_process_open_fds", 1, "Open file descriptors of the process."),
    ("pid", "rtseg_process_pid", 1, "Process id."),
)


def _processes(processes: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    for key, name, unit, text in _PROCESS:
        yield from _gauge(name, text, "process", {who: p.get(key) for who, p in processes.items()}, unit)
    restarts = {(who,): p["restarts"] for who, p in processes.items() if "restarts" in p}
    yield from _counter("rtseg_process_restarts", "How often the process was started again.", ("process",), restarts)


def _frames(snapshot: Snapshot) -> Iterator[Metric]:
    frames = snapshot.get("frames") or {}
    fates = {("dropped", cause): n for cause, n in (frames.get("dropped") or {}).items()}
    if "shown" in frames:
        fates["shown", ""] = frames["shown"]
    text = "Frames whose fate is known: shown, or dropped by cause."
    yield from _counter("rtseg_frames", text, ("fate", "cause"), fates)
    for key, text in (("in", "Frames that the source gave."), ("segmented", "Frames that the network saw.")):
        if key in frames:
            yield from _counter(f"rtseg_frames_{key}", text, (), {(): frames[key]})
    states = {(state,): n for state, n in (snapshot.get("mask_states") or {}).items()}
    yield from _counter("rtseg_frames_by_mask", "Frames shown, by the state of their masks.", ("state",), states)


def _published(published: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    sent = {(topic,): p["sent"] for topic, p in published.items() if "sent" in p}
    dropped = {(topic, cause): n for topic, p in published.items() for cause, n in (p.get("dropped") or {}).items()}
    yield from _counter("rtseg_messages_sent", "Messages that were sent to a subscriber.", ("topic",), sent)
    yield from _counter("rtseg_messages_dropped", "Messages that were dropped, by cause.", ("topic", "cause"), dropped)


def _times(snapshot: Snapshot) -> Iterator[Metric]:
    stages = {name.replace(" ", "_"): h for name, h in (snapshot.get("stages") or {}).items()}
    yield from _histogram("rtseg_stage", "How long each stage took.", {(name,): h for name, h in stages.items()})
    if snapshot.get("jitter") is not None:
        yield from _histogram("rtseg_jitter", "How far frames came from their due time.", {(): snapshot["jitter"]})


def _now(snapshot: Snapshot) -> Iterator[Metric]:
    ages = snapshot.get("ages") or {}
    for key in ("frame", "mask"):
        age = {"": ages.get(f"{key}_ms")}
        yield from _gauge(f"rtseg_{key}_age_seconds", f"Time since the capture of the newest {key}.", "", age, 1e-3)
    yield from _gauge("rtseg_queue_length", "Length of each queue.", "queue", snapshot.get("queues") or {})
    yield from _gauge("rtseg_objects", "Tracked objects.", "", {"": snapshot.get("objects")})
    text = "Frames a second lately: in, shown, segmented."
    yield from _gauge("rtseg_frames_per_second", text, "kind", snapshot.get("fps") or {})


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Iterator[Metric]:
    if counts:
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in counts.items():
            family.add_metric(values, float(count))
        yield family


def _gauge(name: str, text: str, label: str, values: Mapping[str, Any], unit: float = 1) -> Iterator[Metric]:
    """A gauge for each value that is not None, in `unit`; with one label, or with none if that is ""."""
    known = {key: value for key, value in values.items() if value is not None}
    if known:
        family = GaugeMetricFamily(name, text, labels=(label,) if label else ())
        for key, value in known.items():
            family.add_metric((key,) if label else (), float(value) * unit)
        yield family


def _histogram(name: str, text: str, stages: Mapping[tuple[str, ...], Histogram]) -> Iterator[Metric]:
    """Buckets, which can be added over time and machines, and quantiles since the start, exact to 1%."""
    found = {values: h for values, h in stages.items() if h.counts.any()}
    if not found:
        return
    labels = ("stage",) if name == "rtseg_stage" else ()
    whole = HistogramMetricFamily(f"{name}_seconds", text, labels=labels)
    exact = GaugeMetricFamily(
        f"{name}_quantile_seconds", f"{text} Quantiles since the start.", labels=(*labels, "quantile")
    )
    for values, histogram in found.items():
        counts = np.cumsum(histogram.counts)  # one copy: another process keeps counting
        buckets = [(f"{ms / 1e3:g}", float(counts[bin_])) for ms, bin_ in zip(BOUNDS_MS, _BINS, strict=True)]
        whole.add_metric(values, [*buckets, ("+Inf", float(counts[-1]))], histogram.total / 1e3)
        for quantile in QUANTILES:
            exact.add_metric((*values, f"{quantile:g}"), histogram.percentile(100 * quantile) / 1e3)
    yield whole
    yield exact
