"""What Prometheus reads is what the feed did; and whoever asks badly costs the feed nothing."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rtseg.base.errors import OutputError
from rtseg.base.timing import Histogram
from rtseg.live.watch import exporter, serve
from rtseg.live.watch.families import BOUNDS_MS, families

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def text_of(address: str, path: str = "/metrics", timeout: float = 30) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=timeout) as answer:
        return str(answer.read().decode())


def values_of(text: str) -> Values:
    found = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in found for s in family.samples}


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, tuple(sorted(labels.items()))]


def test_every_figure_of_a_snapshot_is_there(snapshot: dict[str, Any]) -> None:
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        got = values_of(text_of(endpoint.address))
    assert value(got, "rtseg_up") == 1
    assert value(got, "rtseg_info", stream="room1", engine="nano, cpu") == 1
    states = {labels[0][1]: on for (name, labels), on in got.items() if name == "rtseg_state"}
    assert [state for state, on in states.items() if on] == ["running"] and len(states) == 9
    assert value(got, "rtseg_source_state", rtseg_source_state="running") == 1
    assert value(got, "rtseg_source_events_total", event="reconnects") == 2
    assert value(got, "rtseg_process_up", process="segment") == 0
    assert value(got, "rtseg_process_restarts_total", process="segment") == 3
    assert value(got, "rtseg_process_beat_age_seconds", process="grab") == pytest.approx(0.012)
    assert value(got, "rtseg_process_resident_memory_bytes", process="grab") == 120e6
    assert ("rtseg_process_pid", (("process", "segment"),)) not in got  # None: it has none now
    fates = {dict(labels)["cause"]: n for (name, labels), n in got.items() if name == "rtseg_frames_total"}
    assert fates == {"": 950, "slot": 30, "late": 20} and sum(fates.values()) == value(got, "rtseg_frames_in_total")
    assert value(got, "rtseg_frames_by_mask_total", state="fresh") == 900
    assert value(got, "rtseg_messages_sent_total", topic="video") == 940
    assert value(got, "rtseg_messages_dropped_total", topic="video", cause="slot") == 10
    assert value(got, "rtseg_frame_age_seconds") == pytest.approx(0.033)
    assert value(got, "rtseg_queue_length", queue="frames") == 2
    assert value(got, "rtseg_frames_per_second", kind="shown") == 23.5
    assert not any(name.startswith(("python_", "process_")) for name, _ in got)  # its own registry, and no other


def test_buckets_and_quantiles_are_those_of_the_fine_bins() -> None:
    histogram, times = Histogram(), [0.05, 0.7, 3.0, 11.0, 11.0, 25.0, 90.0, 7000.0]
    for ms in times:
        histogram.add(ms)
    with serve("127.0.0.1:0", lambda: {"stages": {"mask age": histogram}, "jitter": histogram}) as endpoint:
        got = values_of(text_of(endpoint.address))
    for ms in BOUNDS_MS:
        expected = sum(t <= ms for t in times)
        assert value(got, "rtseg_stage_seconds_bucket", stage="mask_age", le=f"{ms / 1e3:g}") == expected
        assert value(got, "rtseg_jitter_seconds_bucket", le=f"{ms / 1e3:g}") == expected
    assert value(got, "rtseg_stage_seconds_bucket", stage="mask_age", le="+Inf") == len(times)
    assert value(got, "rtseg_stage_seconds_count", stage="mask_age") == len(times)
    assert value(got, "rtseg_stage_seconds_sum", stage="mask_age") == pytest.approx(sum(times) / 1e3)
    half = value(got, "rtseg_stage_quantile_seconds", stage="mask_age", quantile="0.5")
    assert half == pytest.approx(0.011, rel=0.01)


@pytest.mark.parametrize(
    "key", ["stream", "state", "source", "processes", "frames", "published", "stages", "ages", "fps"]
)
def test_what_is_missing_is_a_missing_metric(snapshot: dict[str, Any], key: str) -> None:
    full = {family.name for family in families(snapshot)}
    for less in ({k: v for k, v in snapshot.items() if k != key}, {**snapshot, key: {}}):
        names = {family.name for family in families(less)}
        assert names <= full and (names < full or key in ("stream", "state"))
    assert "rtseg_objects" in {family.name for family in families(snapshot)}
    assert {family.name for family in families({})} == {"rtseg"}


@pytest.mark.parametrize(
    "broken", [{"frames": {"in": None}}, {"frames": 3}, {"stages": {"grab": 1}}, {"queues": {"x": "y"}}]
)
def test_a_snapshot_that_makes_no_sense_is_not_up(broken: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    with serve("127.0.0.1:0", lambda: broken) as endpoint:
        assert value(values_of(text_of(endpoint.address)), "rtseg_up") == 0
    assert capfd.readouterr().err == ""


def test_each_scrape_takes_a_snapshot_and_a_failed_one_is_loud() -> None:
    count = 0

    def snapshot() -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 2:
            raise RuntimeError("torn")
        return {"frames": {"in": count}}

    with serve("127.0.0.1:0", snapshot) as endpoint:
        assert count == 0  # nothing is asked for before somebody asks
        got = [values_of(text_of(endpoint.address)) for _ in range(3)]
    assert [value(values, "rtseg_up") for values in got] == [1, 0, 1]
    assert value(got[0], "rtseg_frames_in_total") == 1 and value(got[2], "rtseg_frames_in_total") == 3
    assert len(got[1]) == 1


@pytest.mark.parametrize("bind", ["0.0.0.0:9464", "192.168.1.2:9464", "[::]:9464", "example.org:80"])
def test_another_host_is_refused_in_one_line(bind: str) -> None:
    with pytest.raises(OutputError, match=r"not loopback.*expected 127.0.0.1:PORT") as error:
        serve(bind, dict)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bind", ["", "9464", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:-1", "http://127.0.0.1:1", "a:b"]
)
def test_an_address_that_is_none_is_refused_in_one_line(bind: str) -> None:
    with pytest.raises(OutputError, match="expected HOST:PORT like 127.0.0.1:9464"):
        serve(bind, dict)


def test_a_port_in_use_is_one_line_and_a_closed_one_is_free() -> None:
    with serve("localhost:0", dict) as endpoint:
        with pytest.raises(OutputError, match="address already in use; expected a free port"):
            serve(endpoint.address, dict)
    endpoint.close()
    with serve(endpoint.address, dict) as again:
        assert "rtseg_up 1.0" in text_of(again.address)


def connected(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def said(connection: socket.socket) -> bytes:
    try:
        return connection.recv(200)
    except ConnectionResetError:
        return b""


def test_fifty_hanging_connections_do_not_keep_the_next_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 600.0)  # so that no silence of theirs lets the next one in
    before = threading.active_count()
    with serve("127.0.0.1:0", lambda: {"objects": 1}) as endpoint:
        hanging = [connected(endpoint.address) for _ in range(50)]
        for connection in hanging[::2]:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")  # a header that never ends
        assert "rtseg_objects 1.0" in text_of(endpoint.address)
        assert threading.active_count() - before <= 12  # not 50
        assert said(hanging[0]) == b""  # the oldest was cut off
        for connection in hanging:
            connection.close()


def test_rubbish_is_answered_or_dropped_and_the_next_scrape_is_served() -> None:
    rubbish: list[tuple[bytes, bytes]] = [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"\0\xff\xfe\r\n\r\n", b""),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", b" 405 "),
        (b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", b" 431 "),
        (b"", b""),
    ]
    with serve("127.0.0.1:0", dict) as endpoint:
        for request, answer in rubbish:
            with connected(endpoint.address) as connection:
                connection.sendall(request)
                if not request:
                    connection.shutdown(socket.SHUT_WR)
                assert answer in said(connection), request[:30]
            assert "rtseg_up 1.0" in text_of(endpoint.address)


def test_a_flood_of_scrapes_takes_few_snapshots_and_few_threads() -> None:
    taken: list[float] = []
    before = threading.active_count()

    def snapshot() -> dict[str, Any]:
        taken.append(time.monotonic())
        return {}

    with serve("127.0.0.1:0", snapshot) as endpoint:
        flood = [connected(endpoint.address) for _ in range(40)]
        for connection in flood:
            with suppress(OSError):  # cut off already
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        time.sleep(0.1)
        assert threading.active_count() - before <= 10
        assert "rtseg_up 1.0" in text_of(endpoint.address)
        for connection in flood:
            connection.close()
    assert 2 <= len(taken) <= 12 and min(b - a for a, b in pairwise(taken)) > 0.04


def test_who_reads_nothing_of_a_long_answer_keeps_nobody_out(snapshot: dict[str, Any]) -> None:
    snapshot["queues"] = {f"queue{i}": i for i in range(60_000)}  # some megabytes: more than a socket holds
    with serve("127.0.0.1:0", lambda: snapshot) as endpoint:
        with connected(endpoint.address) as lazy:
            lazy.sendall(b"GET / HTTP/1.1\r\n\r\n")
            time.sleep(0.1)
            snapshot["queues"] = {}
            assert "rtseg_up 1.0" in text_of(endpoint.address)
