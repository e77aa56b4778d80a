"""Fetching weights from a server that cuts, stalls, lies and serves other files: what stays, and the one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request

import pytest

from rtseg.base.errors import OutputError, RtsegError, WeightsError
from rtseg.engine.catalogue import download, fetch, find_cached, take_file
from tests.engine.catalogue.conftest import SHA256, WHOLE, Server, Shelf

ROOT = Path(__file__).parents[3]
OTHER = b"PK" + bytes(len(WHOLE) - 2)
BY_HAND = "fetched elsewhere, it is taken with: rtseg weights get w --from FILE"


def refusal(name: str = "w", error: type[RtsegError] = WeightsError, **keys: Any) -> str:
    """The one line with which fetching fails."""
    with pytest.raises(error) as caught:
        fetch(name, **{"note": lambda line: None, **keys})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def not_fetched(server: Server, why: str) -> str:
    return f"w: not fetched: 127.0.0.1:{server.port}: {why}; {BY_HAND}"


@pytest.mark.parametrize("path", ["ranges", "plain", "moved", "unsized"])
def test_a_file_is_fetched_whole_and_with_its_record(server: Server, shelf: Shelf, path: str) -> None:
    shelf.add("w", server.address(path))
    seen: list[tuple[int, int | None]] = []
    assert find_cached("w") is None
    found = fetch("w", progress=lambda done, total: seen.append((done, total)))
    assert found == find_cached("w") == shelf.folder / "w.pt"
    assert found.read_bytes() == WHOLE
    assert shelf.files == ["w.json", "w.pt"]
    record = json.loads((shelf.folder / "w.json").read_text())
    assert record == {"address": server.address(path), "sha256": SHA256, "bytes": len(WHOLE), "accepted": ""}
    assert seen[0] == (0, len(WHOLE)) and seen[-1] == (len(WHOLE), len(WHOLE)) and seen == sorted(seen)
    asked = len(server.asked)
    assert fetch("w") == found and len(server.asked) == asked  # from the cache
    assert fetch("w", force=True) == found and len(server.asked) > asked


def test_a_cut_connection_goes_on_where_it_ended(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-cut"))
    server.cut = 600_000
    assert fetch("w").read_bytes() == WHOLE
    assert [asked for _, asked in server.asked] == [None, "bytes=600000-", "bytes=1200000-", "bytes=1800000-"]


def test_tries_are_counted_again_after_enough_came(
    server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add("w", server.address("ranges-cut"))
    server.cut = 200_000
    refusal()
    monkeypatch.setattr(download, "ENOUGH", 150_000)
    assert fetch("w").read_bytes() == WHOLE
    assert len(server.asked) > 2 * download.TRIES


def test_without_ranges_it_starts_again(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("plain-cut"))
    server.cut = 600_000
    assert refusal() == not_fetched(server, f"ends after 600000 of {len(WHOLE)} bytes")
    server.cut = 0
    assert fetch("w").read_bytes() == WHOLE


def test_a_server_that_always_cuts_is_given_up_and_what_came_stays(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-cut"))
    server.cut = 1000
    assert refusal() == not_fetched(server, f"ends after 4000 of {len(WHOLE)} bytes")
    assert len(server.asked) == download.TRIES and shelf.files == ["w.pt.part", "w.pt.part.json"]
    server.cut = 0
    assert fetch("w").read_bytes() == WHOLE
    assert server.asked[-1][1] == "bytes=4000-" and shelf.files == ["w.json", "w.pt"]


@pytest.mark.parametrize("path", ["ranges-cut", "ranges-cut-stubborn"])
def test_a_part_of_another_version_is_not_mixed_in(server: Server, shelf: Shelf, path: str) -> None:
    """Without a published hash the server's tag alone tells versions apart; a stubborn server ignores If-Range."""
    shelf.add("w", server.address(path), known=False)
    server.cut, server.content = 1000, OTHER
    refusal()
    server.cut, server.content, server.tag = 0, WHOLE, '"two"'
    assert fetch("w").read_bytes() == WHOLE
    assert server.asked[download.TRIES][1] == "bytes=4000-"


def test_a_part_without_any_mark_starts_again(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-untagged-cut"), known=False)
    server.cut = 1000
    refusal()
    server.cut = 0
    assert fetch("w").read_bytes() == WHOLE
    assert {asked for _, asked in server.asked} == {None}


def test_a_part_that_is_longer_than_the_file_is_dropped(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-cut"), known=False)
    server.cut = 100_000
    refusal()
    server.cut, server.content = 0, WHOLE[:5000]
    assert fetch("w").read_bytes() == WHOLE[:5000]


def test_a_stall_is_noticed_and_named(server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 2)
    shelf.add("w", server.address("ranges-stall"))
    assert refusal() == not_fetched(server, "no answer for 0.3 s")
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-"]


def test_a_server_that_is_busy_is_asked_again(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"))
    server.failing = 2
    assert fetch("w").read_bytes() == WHOLE
    server.failing = 9
    assert refusal(force=True) == not_fetched(server, "503, service unavailable")
    assert (shelf.folder / "w.pt").read_bytes() == WHOLE  # the old one stays


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("404", "404, no such file there"),
        ("403", "403, refuses"),
        ("401", "401, asks for a password"),
        ("page", "answers with a web page instead of the file (a login, or a page for people)"),
        ("liar", f"has another file of {len(WHOLE) + 1000} bytes, expected {len(WHOLE)}"),
    ],
)
def test_what_will_not_change_is_asked_once(server: Server, shelf: Shelf, path: str, why: str) -> None:
    shelf.add("w", server.address(path))
    assert refusal() == not_fetched(server, why)
    assert len(server.asked) == 1 and shelf.files == []


def test_a_length_that_is_a_lie_is_found_at_its_end(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("liar"), known=False)
    assert refusal() == not_fetched(server, f"ends after {len(WHOLE)} of {len(WHOLE) + 1000} bytes")


def test_a_file_of_no_known_length_and_hash_is_refused(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("unsized"), known=False)
    why = "does not say how long the file is, and its size is not known: it cannot be checked"
    assert refusal() == not_fetched(server, why)


def test_another_range_than_was_asked_for_is_refused(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-cut-wrong"))
    server.cut = 1000
    assert refusal() == not_fetched(server, "answers with bytes from 1007, asked for those from 1000")


def test_another_file_is_removed_and_named(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"))
    server.content = OTHER
    found = hashlib.sha256(OTHER).hexdigest()[:12]
    why = f"is not the published file (SHA-256 {found}..., expected {SHA256[:12]}...); it was removed"
    assert refusal() == not_fetched(server, f"what came {why}")
    assert shelf.files == []


def test_a_part_that_was_damaged_on_disk_is_found_by_its_hash(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges-cut"))
    server.cut = 1000
    refusal()
    part = shelf.folder / "w.pt.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    server.cut = 0
    assert "it was removed" in refusal()
    assert fetch("w").read_bytes() == WHOLE


def test_without_a_published_hash_the_first_file_is_trusted_and_no_other(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"), known=False)
    path = fetch("w")
    path.unlink()  # the record stays
    server.content, server.tag = OTHER, '"two"'
    line = refusal()
    assert "is not the file that was fetched before" in line and f"to trust it, remove {shelf.folder}/w.json" in line
    (shelf.folder / "w.json").unlink()
    assert fetch("w").read_bytes() == OTHER


def test_what_is_no_file_of_weights_is_not_trusted(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"), known=False)
    server.content = b"Sorry, quota exceeded"
    assert refusal() == not_fetched(server, "what came is no file of weights (it starts with b'So'); it was removed")
    assert shelf.files == []


def test_the_next_address_is_tried_and_all_failures_are_named(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("404"), server.address("ranges"))
    assert fetch("w").read_bytes() == WHOLE
    shelf.add("v", server.address("404"), server.address("403"))
    place = f"127.0.0.1:{server.port}"
    assert f"{place}: 404, no such file there; {place}: 403, refuses; " in refusal("v")


# No network.


def test_no_network_is_named(server: Server, shelf: Shelf) -> None:
    shelf.add("w", "http://no-such-host.invalid/w.pt")
    shelf.add("v", "http://127.0.0.1:9/v.pt")
    assert refusal() == f"w: not fetched: no-such-host.invalid: its name is not known here (no network?); {BY_HAND}"
    assert "127.0.0.1:9: cannot be reached (connection refused)" in refusal("v")


def test_a_proxy_that_refuses_is_named_without_its_password(
    server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"127.0.0.1:{server.port}"
    remedy = "https_proxy=http://USER:PASSWORD@HOST:PORT names the proxy"
    for scheme, host in (("http", "a.example"), ("https", "b.example")):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{proxy}")
        shelf.add("w", f"{scheme}://{host}/w.pt")
        why = f"the proxy {proxy} refuses (407 Proxy Authentication Required); {remedy}"
        assert refusal() == f"w: not fetched: {host}: {why}; {BY_HAND}"
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert "b.example: the proxy 127.0.0.1:9 cannot be reached (connection refused)" in refusal()
    monkeypatch.setenv("https_proxy", "socks5h://127.0.0.1:9")
    assert "the proxy 127.0.0.1:9 is socks5h; expected an HTTP proxy in https_proxy" in refusal()


def test_an_address_that_needs_no_proxy_goes_by_it(
    server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add("w", server.address("ranges"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch("w").read_bytes() == WHOLE
    shelf.add("v", "http://127.0.0.1:9/v.pt")
    assert "127.0.0.1:9: cannot be reached (connection refused)" in refusal("v")


def test_offline_nothing_is_asked(server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add("w", server.address("ranges"))
    monkeypatch.setenv("RTSEG_OFFLINE", "1")
    assert refusal() == f"w: not fetched: RTSEG_OFFLINE is set; {BY_HAND}"
    assert server.asked == []
    monkeypatch.setenv("RTSEG_OFFLINE", "0")
    fetch("w")
    monkeypatch.setenv("RTSEG_OFFLINE", "1")
    assert fetch("w") == shelf.folder / "w.pt"


def test_a_certificate_that_is_not_trusted_is_named(
    server: Server, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a proxy opens TLS. With the certificate in SSL_CERT_FILE the same address works."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    assert server.http is not None
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    shelf.add("w", server.address("ranges").replace("http://", "https://"))
    line = refusal()
    assert "its certificate is not trusted (self-signed certificate)" in line
    assert "; if this network opens TLS, SSL_CERT_FILE has to name its certificate; " in line
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch("w").read_bytes() == WHOLE


def test_https_is_never_left_for_http() -> None:
    handler, request = download._SafeRedirects(), Request("https://a.example/w.pt")
    with pytest.raises(download.FetchError, match="redirects from https to http, which is not safe"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://b.example/w.pt")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://b.example/w.pt") is not None


# The disk.


def test_a_disk_that_is_too_small_is_found_before(
    server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add("w", server.address("ranges"))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    line = refusal(error=OutputError)
    assert line == (f"{shelf.folder}: 3 MB are free, 19 MB are needed; free some, or set RTSEG_CACHE to another folder")
    assert shelf.files == []


def test_a_disk_that_fills_up_meanwhile_is_freed(server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add("w", server.address("ranges"))
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **keys: Any) -> Any:
        file = opened(path, mode, *args, **keys)
        if path.name == "w.pt.part" and "b" in mode and mode != "rb":
            real = file

            def write(data: bytes) -> int:
                if real.tell() > 500_000:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(real.write(data))

            return SimpleNamespace(
                write=write, seek=real.seek, truncate=real.truncate, flush=real.flush, close=real.close
            )
        return file

    monkeypatch.setattr(Path, "open", full)
    line = refusal(error=OutputError)
    assert "w.pt.part: cannot be written (no space left on device)" in line
    assert shelf.files == []


def test_a_cache_that_cannot_be_made_is_named(server: Server, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add("w", server.address("ranges"))
    shelf.folder.parent.mkdir()
    shelf.folder.write_text("a file")
    assert refusal(error=OutputError) == (
        f"{shelf.folder}: cannot be made (File exists); RTSEG_CACHE may name another folder"
    )


# Licences, and files that a person fetched.


def test_a_licence_has_to_be_accepted_by_its_name(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"), licence="strict")
    command = "rtseg weights get w --accept-licence strict"
    line = f"w: a licence has to be accepted: for research only (https://x/strict); then: {command}"
    assert refusal() == line
    assert refusal(accepted="free") == "w: its licence is strict, not free; read https://x/strict"
    assert server.asked == []
    fetch("w", accepted="strict")
    assert json.loads((shelf.folder / "w.json").read_text())["accepted"] == "strict"
    fetch("w", force=True)  # it was accepted before


def test_weights_without_an_address_are_taken_from_a_file(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("w", known=False, licence="strict", page="https://x/page")
    command = "rtseg weights get w --accept-licence strict --from FILE"
    assert refusal(accepted="strict") == f"w: a person has to fetch it, from https://x/page; then: {command}"
    file = tmp_path / "mine.pth"
    with pytest.raises(WeightsError, match=r"mine\.pth: no such file; expected the weights w, from https://x/page"):
        take_file("w", file, accepted="strict")
    file.write_bytes(WHOLE)
    with pytest.raises(WeightsError, match="a licence has to be accepted"):
        take_file("w", file)
    assert take_file("w", file, accepted="strict").read_bytes() == WHOLE == file.read_bytes()
    assert shelf.files == ["w.json", "w.pt"]


def test_a_wrong_file_is_not_taken(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("w", "https://x/w.pt")
    file = tmp_path / "mine.pt"
    for content, why in (
        (WHOLE[:-1], f"it has {len(WHOLE) - 1} bytes, expected {len(WHOLE)}"),
        (OTHER, "it is not the published file"),
        (b"<h" + WHOLE[2:], r"it is no file of weights \(it starts with b'<h'\)"),
    ):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"mine\.pt: not the weights w: {why}"):
            take_file("w", file)
        assert shelf.files == []


def test_an_unknown_name_is_told_the_nearest(shelf: Shelf) -> None:
    shelf.add("edgetam", "https://x/w.pt")
    assert refusal("edgetan") == "weights 'edgetan': no published weights of this name; did you mean 'edgetam'?"


def test_a_damaged_record_says_what_to_do(server: Server, shelf: Shelf) -> None:
    shelf.add("w", server.address("ranges"))
    fetch("w")
    (shelf.folder / "w.json").write_text('{"address": 3')
    assert "w.json: cannot be read" in refusal(force=True)
    assert refusal(force=True).endswith("remove it, and run: rtseg weights get w --force")


# Processes.

FETCH = """
import sys
from rtseg.engine.catalogue import Entry, Licence, fetch, table
entry = Entry("w", "nano", 320, "free", "a paper", (sys.argv[1],), bytes=int(sys.argv[2]), sha256=sys.argv[3])
table._read = lambda path: table.Table({"w": entry}, {"free": Licence("free", "https://x")})
print("begun", flush=True)
print(fetch("w", note=lambda line: print(line, file=sys.stderr, flush=True)))
"""


def start(server: Server, path: str) -> subprocess.Popen[str]:
    """A process that fetches."""
    command = [sys.executable, "-c", FETCH, server.address(path), str(len(WHOLE)), SHA256]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def wait_for(condition: Any, what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_stopped_process_has_fetched_is_used(server: Server, shelf: Shelf, number: signal.Signals) -> None:
    shelf.add("w", server.address("ranges"))
    process = start(server, "ranges-stall")
    part = shelf.folder / "w.pt.part"
    wait_for(lambda: part.exists() and part.stat().st_size == 1000, "no part came")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert "w: 0.0 MB are kept; the same command goes on from there" in errors.splitlines()
    assert fetch("w").read_bytes() == WHOLE
    assert server.asked[-1][1] == "bytes=1000-"


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_fetch_once(server: Server, shelf: Shelf, killed: bool) -> None:
    """If the one that fetches is killed, the one that waits goes on with its part."""
    first = start(server, "ranges-stall")
    part = shelf.folder / "w.pt.part"
    wait_for(lambda: part.exists() and part.stat().st_size == 1000, "no part came")
    notes: list[str] = []
    shelf.add("w", server.address("ranges"))
    thread = threading.Thread(target=lambda: fetch("w", note=notes.append))
    thread.start()
    wait_for(lambda: notes, "nobody waits")
    assert notes[:1] == [f"{shelf.folder}/w.pt: another process is fetching it; waiting"]
    assert len(server.asked) == 1
    if killed:
        first.kill()
    else:
        server.ended.set()
    first.communicate(timeout=60)
    thread.join(timeout=60)
    assert (shelf.folder / "w.pt").read_bytes() == WHOLE
    assert [asked for _, asked in server.asked] == [None] + ["bytes=1000-"] * killed
