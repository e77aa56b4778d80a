"""Kills what the console stands on, with its page open: what the page says, how soon, and what becomes of orders.

    python -m bench.console_kills [--times 10] [--only "console,feed"] [--port 8520] [--json FILE]

Each fault comes `--times` times: SIGKILL of the console, of the feed's network process and of the feed; the browser's
connections reset, and stalled so that nobody is told. Console and feed are started again when they end, as a service
manager does. A page in Chromium, which is never loaded again, notes each word that it says, and each time that its
canvas is painted. Told are: how long until it says what happened (asked: 1 s), the longest time that a picture stood
still and was not grey (asked: 1 s), how long until it shows live pictures again, and what became of three orders that
were given just before: each names an object anew, so the feed's log says how often it was carried out. The control has
no fault: the page says nothing then.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.relay import Relay
from bench.room import ROOT
from rtseg.base.errors import RtsegError
from rtseg.live.control import Client

CHROMIUM = "/usr/bin/chromium"
MOST_MS = 1000.0
PATIENCE_S = 120.0
AWAY_S = 2.0  # how long a connection stays away
WELL = ("Fresh", "Stale", "Late", "Behind", "No masks", "Ready")  # the picture is live, and the network is there
PROFILE = """source = "synthetic:laparoscopy?width=640&height=360&fps=25&seconds=3600&seed={seed}"
engine = "{engine}"
target_fps = 25
[publish]
bind = "tcp://127.0.0.1:{port}"
[control]
bind = "tcp://127.0.0.1:{control}"
[[object]]
id = 1
label = "tool"
box = [20.0, 20.0, 400.0, 300.0]
"""
WATCH = """(() => {
  const seen = (window.seen = { words: [], paintedMs: {}, still: [], orders: {} });
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...args) {
    const view = this.canvas.matches(".over canvas.picture") && this.canvas.closest(".view");
    if (view) seen.paintedMs[view.getAttribute("aria-label")] = performance.now();
    return draw.apply(this, args);
  };
  const words = {};
  const look = () => {
    const now = performance.now();
    for (const view of document.querySelectorAll(".view")) {
      const [name, word] = [view.getAttribute("aria-label"), view.dataset.word];
      const still = now - (seen.paintedMs[name] ?? now);
      const alive = !view.querySelector(".stage").classList.contains("old");
      if (still > 200) seen.still.push([now, name, still, alive]);
      if (word && words[name] !== word) seen.words.push([now, name, (words[name] = word)]);
    }
  };
  setInterval(look, 20);
})();"""
HOOK = """async () => {
  const { Link } = await import(new URL("page/link.js", location.href).href);
  const painted = Link.prototype.painted;
  Link.prototype.painted = function (...args) { window.link = this; return painted.apply(this, args); };
}"""
GIVE = """([feed, labels]) => labels.forEach((label) => {
  window.seen.orders[label] = "";
  window.link.order(feed, "rename", { id: 1, label }).then(
    () => (window.seen.orders[label] = "done"),
    (error) => (window.seen.orders[label] = error.message),
  );
})"""


class Kept:
    """A command that is started again whenever it ends, as a service manager does. Its errors go into a file."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._words, self.log, self._over = words, log, threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._run, daemon=True)
        self._keeper.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "rtseg", *self._words]
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            if self._process.poll() is not None and not self._over.is_set():
                self._process = self._start()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._over.set()
        self._keeper.join()
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self._process.kill()
        self._process.wait()


class Stand:
    """Feeds, a console, a network between it and a page in Chromium; a context manager. All ports begin at `port`."""

    def __init__(self, folder: Path, browser: Any, feeds: int = 1, engine: Path | None = None, port: int = 0) -> None:
        ports = [_free(port and port + n) for n in range(1 + 2 * feeds)]
        self.feeds: list[Kept] = []
        self.clients = [Client(f"tcp://127.0.0.1:{control}", timeout=10.0) for control in ports[2::2]]
        self.names = [f"127.0.0.1:{publish}" for publish in ports[1::2]]
        for n, (publish, control) in enumerate(zip(ports[1::2], ports[2::2], strict=True)):
            profile = folder / f"room{n}.toml"
            engine = engine or ROOT / "engines" / "nano-cpu.toml"
            profile.write_text(PROFILE.format(seed=7 + n, engine=engine, port=publish, control=control))
            self.feeds.append(Kept(("live", str(profile)), folder / f"feed{n}.log"))
        addresses = [f"tcp://{name}" for name in self.names]
        self.console = Kept(("console", *addresses, "--bind", f"127.0.0.1:{ports[0]}"), folder / "console.log")
        self.relay = Relay(ports[0])
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})

    def __enter__(self) -> Self:
        self.page.add_init_script(WATCH)
        self.until(self._opened)
        self.page.evaluate(HOOK)
        self.until(lambda: self.page.evaluate("Boolean(window.link)") and all(map(self.well, self.names)))
        return self

    def __exit__(self, *error: object) -> None:
        self.page.close()
        self.relay.close()
        for client in self.clients:
            client.close()
        for one in (self.console, *self.feeds):
            one.close()

    def _opened(self) -> bool:
        try:
            self.page.goto(f"http://127.0.0.1:{self.relay.port}/")
        except Exception:  # the console is not up yet
            return False
        return True

    def until(self, true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:g} s; the page noted {self.seen()['words'][-5:]}")
            self.page.wait_for_timeout(50)

    def now(self) -> float:
        return float(self.page.evaluate("performance.now()"))

    def seen(self) -> dict[str, Any]:
        return dict(self.page.evaluate("window.seen"))

    def word(self, name: str) -> str:
        return str(
            self.page.evaluate("name => document.querySelector(`[aria-label='Feed ${name}']`).dataset.word", name)
        )

    def well(self, name: str) -> bool:
        """Whether the page shows live pictures of this feed, and its network is there."""
        find = "name => performance.now() - (window.seen.paintedMs[`Feed ${name}`] ?? -1e9)"
        return self.page.evaluate(find, name) < 700 and self.word(name) in WELL

    def network(self, n: int = 0) -> int:
        """The process of a feed's network."""
        while True:
            with suppress(RtsegError):
                found = self.clients[n].status()["processes"]["segment"]
                if found["up"]:
                    return int(found["pid"])
            time.sleep(0.05)

    def give(self, *labels: str) -> None:
        """Give orders by the page's own connection, which are not waited for."""
        self.page.evaluate(GIVE, [self.names[0], list(labels)])

    def carried_out(self, label: str) -> int:
        """How often the feed carried out an order."""
        return self.feeds[0].log.read_text().count(f"control order: rename id 1 label {label}, ")


@dataclass(frozen=True, slots=True)
class Fault:
    """`do` injects it; `words` are those that say what happened; `end` ends it, where it does not end by itself."""

    name: str
    do: Callable[[Stand], None]
    words: tuple[str, ...]
    end: Callable[[Stand], None] = field(default=lambda stand: None)


def _stall(stand: Stand) -> None:
    stand.relay.stalled = True


FAULTS = (
    Fault("console", lambda stand: stand.console.kill(), ("Connection lost",)),
    Fault("network", lambda stand: os.kill(stand.network(), signal.SIGKILL), ("Recovering",)),
    Fault("feed", lambda stand: stand.feeds[0].kill(), ("No signal",)),
    Fault("reset", lambda stand: stand.relay.cut(refuse=True), ("Connection lost",), lambda stand: stand.relay.mend()),
    Fault("stalled", _stall, ("Connection lost",), lambda stand: stand.relay.mend()),
)
NONE = Fault("none", lambda stand: None, ())


def trial(stand: Stand, fault: Fault, number: int) -> dict[str, Any]:
    """Inject a fault once; what the page said and showed, in ms, and what became of the orders."""
    labels = [f"{fault.name}-{number}-{n}" for n in range(3)]
    name = stand.names[0]
    stand.until(lambda: stand.well(name))
    stand.network()
    stand.give(*labels)
    since = stand.now()
    fault.do(stand)
    done = stand.now()

    def told() -> list[float]:
        words = stand.seen()["words"]
        return [at - since for at, _, word in words if at >= since and word in fault.words]

    if fault.words:
        stand.until(told)
    stand.page.wait_for_timeout(1000 * AWAY_S)
    fault.end(stand)
    stand.until(lambda: stand.well(name))
    well = stand.now()
    stand.until(lambda: all(stand.seen()["orders"][label] for label in labels))
    seen = stand.seen()
    orders = [_outcome(seen["orders"][label], stand.carried_out(label)) for label in labels]
    still = [(ms, alive) for at, view, ms, alive in seen["still"] if at >= since and view == f"Feed {name}"]
    long = [alive for ms, alive in still if ms > MOST_MS]
    return {
        "fault": fault.name, "told_ms": told()[0] if fault.words else None, "injecting_ms": done - since,
        "alive_ms": max((ms for ms, alive in still if alive), default=0.0),
        "alive_share": sum(long) / max(20, len(long)),
        "back_ms": well - since, "orders": orders,
        "words": [word for at, _, word in seen["words"] if at >= since],
    }  # fmt: skip


def _outcome(said: str, times: int) -> str:
    """What became of an order: what the page was told of it, against how often the feed carried it out."""
    if times > 1:
        return "done twice"
    if said == "done":
        return "done once" if times == 1 else "said done, but was not"
    if "not known" in said or "may still" in said:
        return "said not known"
    return "said not done, but was" if times else "said not done"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one fault."""
    told = [row["told_ms"] for row in rows if row["told_ms"] is not None]
    figures = {"told_p50_ms": _middle(told), "told_max_ms": max(told, default=0.0)}
    figures |= {"alive_max_ms": max(row["alive_ms"] for row in rows), "back_max_ms": max(r["back_ms"] for r in rows)}
    orders = Counter(outcome for row in rows for outcome in row["orders"])
    good = figures["told_max_ms"] <= MOST_MS and figures["alive_max_ms"] <= MOST_MS and not wrong(orders)
    if not told:  # the control
        good = good and not {"Connection lost", "Recovering", "Failed"} & {
            word for row in rows for word in row["words"]
        }
    rounded = {name: round(value) for name, value in figures.items()}
    return {"fault": rows[0]["fault"], "times": len(rows), **rounded, "orders": dict(orders), "ok": good}


def wrong(orders: Counter[str]) -> int:
    """How many orders were done twice, or were not what the page was told."""
    return orders["done twice"] + orders["said done, but was not"] + orders["said not done, but was"]


def _middle(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0


def _free(wanted: int) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", wanted))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--only", help="of: " + ",".join(fault.name for fault in FAULTS))
    parser.add_argument("--port", type=int, default=8520)
    parser.add_argument("--json", type=Path, help="write every trial there")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chosen = [fault for fault in FAULTS if not args.only or fault.name in args.only.split(",")]
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with Stand(Path(folder), browser, port=args.port) as stand:
            for fault in (NONE, *chosen):
                rows[fault.name] = [trial(stand, fault, n) for n in range(1 if fault is NONE else args.times)]
                print(json.dumps(summary(rows[fault.name])), flush=True)
        browser.close()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(summary(found)["ok"] for found in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
