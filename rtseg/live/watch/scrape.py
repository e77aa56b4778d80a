"""Reads the metrics of an endpoint back into plain values: the counterpart of `families.py`."""

from __future__ import annotations

import http.client
import math
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ...base.errors import OutputError

_PATIENCE_S = 1.0
_MOST_BYTES = 4 << 20
Key = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Scrape:
    """The samples of one scrape, by name and labels; `taken_s` is when, on the monotonic clock."""

    samples: dict[str, dict[Key, float]] = field(default_factory=lambda: defaultdict(dict))
    taken_s: float = field(default_factory=time.monotonic)

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get(name, {}).get(tuple(sorted(labels.items())))

    def labelled(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for key, value in self.samples.get(name, {}).items():
            yield dict(key), value

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric with one label, by that label's value."""
        return {labels.get(label, ""): value for labels, value in self.labelled(name)}

    def state(self, name: str) -> str | None:
        """Which state of a state set is on; None if none is."""
        return next((labels[name] for labels, value in self.labelled(name) if value == 1 and name in labels), None)


def url_of(address: str) -> str:
    """The URL of HOST:PORT or http://HOST:PORT/...; `OutputError` if it is neither."""
    bare = address.removeprefix("http://").removesuffix("/").removesuffix("/metrics")
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", bare, re.ASCII)
    if match is None or not 0 < int(match[1]) < 65536:
        raise OutputError(f"metrics address {address!r}: expected HOST:PORT like 127.0.0.1:9464; correct it")
    return f"http://{bare}/metrics"


def scrape(url: str) -> Scrape:
    """Request the metrics once; `OutputError`, in one line, if nothing answers, or not a feed."""
    try:
        # No proxy: the endpoint is this machine's own.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_PATIENCE_S) as answer:
            text = answer.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as e:
        reason: Any = getattr(e, "reason", None) or e
        why = str(getattr(reason, "strerror", None) or reason or type(e).__name__).lower()
        raise OutputError(f"{url}: {why:.80}; expected the metrics of a running feed; is `rtseg live` there?") from e
    found = Scrape()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not math.isnan(sample.value):
                    key = tuple(sorted((label, _printable(text)) for label, text in sample.labels.items()))
                    found.samples[sample.name][key] = float(sample.value)
    except (ValueError, KeyError, IndexError) as e:
        raise OutputError(f"{url}: not the metrics of a feed; expected an rtseg endpoint; correct the address") from e
    if "rtseg_up" not in found.samples:
        raise OutputError(f"{url}: another program's metrics; expected an rtseg endpoint; correct the address")
    return found


def _printable(text: str) -> str:
    """A text without control characters, which a terminal would execute."""
    return "".join(c for c in text if c.isprintable())[:200]
