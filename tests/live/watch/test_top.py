"""What a person reads of a feed is what its endpoint says, in 80 columns; and what is stale says so."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from rich.console import Console

from rtseg.base.errors import OutputError
from rtseg.live.watch import serve
from rtseg.live.watch.scrape import scrape, url_of
from rtseg.live.watch.top import _Watch, draw, top


def shown(thing: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(thing)
    return console.export_text()


def row(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_all_figures_are_shown_and_fit_into_80_columns(snapshot: dict[str, Any]) -> None:
    snapshot["engine"] = "sam2.1-tiny, cuda: a plan of TensorRT, fp16, on a graphics card with a very long name"
    snapshot["frames"]["dropped"]["late"] = 12_345_678
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        text = shown(draw(scrape(url_of(endpoint.address))))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "RUNNING  room1" in text and "in 25.0  shown 23.5  segmented 17.5" in text
    assert "frame 33 ms old, mask 61 ms old; 2 objects" in text and "frames 2, masks 0" in text
    assert row(text, "segment  ")[1:] != row(text, "grab")[1:]
    histogram = snapshot["stages"]["mask age"]
    expected = [f"{histogram.percentile(p):.1f}" for p in (50, 95, 99)]
    assert row(text, "mask_age")[1:4] == expected and row(text, "mask_age")[-1] == "200"
    assert row(text, "frames: late") == ["frames:", "late", "-", "12,345,678"]
    assert row(text, "video: slot")[-1] == "10"
    dead = [line for line in text.splitlines() if "DOWN" in line]
    assert [line.split()[:3] for line in dead] == [["segment", "DOWN", "3"]]


def test_rates_are_since_the_scrape_before(snapshot: dict[str, Any]) -> None:
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        url = url_of(endpoint.address)
        before = scrape(url)
        snapshot["frames"]["dropped"]["late"] += 30
        snapshot["frames"]["dropped"]["slot"] = 4  # it shrank: the feed was started again
        snapshot["stages"]["segment"].add(300)
        now = scrape(url)
    now.taken_s = before.taken_s + 2.0
    text = shown(draw(now, before))
    assert row(text, "frames: late")[2:] == ["15.0", "50"] and row(text, "frames: slot")[2:] == ["2.0", "4"]
    assert row(text, "segment  ")[4] == "300.0" and row(text, "overlay")[4] == "-"


def test_a_feed_that_went_away_is_loudly_stale_and_comes_back(snapshot: dict[str, Any]) -> None:
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        watch = _Watch(url_of(endpoint.address))
        watch.look()
        assert not watch.stale and "NO ANSWER" not in shown(watch.draw())
    watch.look()
    assert watch.now is not None
    watch.now.taken_s -= 7
    text = shown(watch.draw())
    assert watch.stale and "NO ANSWER: these figures are 7 s old" in text and "refused" in text and "room1" in text
    with serve(endpoint.address, lambda: snapshot):
        watch.look()
    assert not watch.stale and (watch.scrapes, watch.failed) == (2, 1)


def test_a_feed_that_was_never_there_is_waited_for(snapshot: dict[str, Any]) -> None:
    watch = _Watch("http://127.0.0.1:1/metrics")
    watch.look()
    assert "NO ANSWER" in shown(watch.draw()) and "Asking again" in shown(watch.draw())


def test_without_a_terminal_it_is_printed_once(snapshot: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        report = top(f"http://{endpoint.address}/metrics")
        assert report["ok"] and report["state"] == "running" and report["fps"]["shown"] == 23.5
        out = capsys.readouterr().out
        assert out.count("room1") == 1 and "\x1b" not in out
    with pytest.raises(OutputError, match="refused; expected the metrics of a running feed") as error:
        top(endpoint.address, once=True)
    assert "\n" not in str(error.value)


def test_in_a_terminal_it_goes_on(snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.live.watch.top._PERIOD_S", 0.1)
    console = Console(width=80, height=50, file=io.StringIO(), force_terminal=True)
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        report = top(endpoint.address, seconds=0.45, console=console)
        assert report["ok"] and 3 <= report["scrapes"] <= 6
    report = top(endpoint.address, seconds=0.2, console=console)
    assert not report["ok"] and report["failed"] >= 1 and report["state"] is None


def test_a_feed_that_cannot_say_how_it_is_is_not_ok() -> None:
    with serve("127.0.0.1:0", lambda: {"frames": 3}) as endpoint:
        console = Console(width=80, file=io.StringIO(), record=True)
        assert not top(endpoint.address, once=True, console=console)["ok"]
        assert "CANNOT REPORT" in console.export_text()


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [body]

    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\0\x1b[2J", b"a{b=", b"up 1\n", b'x{y="z"} nonsense\n'])
def test_what_is_no_feed_is_one_line(body: bytes) -> None:
    with answering(body) as address, pytest.raises(OutputError, match="expected an rtseg endpoint") as error:
        top(address, once=True)
    assert "\n" not in str(error.value)


def test_names_are_neither_markup_nor_orders_to_the_terminal() -> None:
    body = b'rtseg_up 1\nrtseg_info{stream="[/red]\x1b[2J[bold]x"} 1\nrtseg_process_up{process="[/a]"} 1\n'
    with answering(body) as address:
        text = shown(draw(scrape(url_of(address))))
    assert "[/red][2J[bold]x" in text and "[/a]" in text and "\x1b" not in text


@pytest.mark.parametrize("address", ["", "nine", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "https://a:1", "a b:1"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(OutputError, match="expected HOST:PORT like"):
        top(address)
