"""Who may do what: tokens and rights, other pages, limits; and what is refused is counted."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rtseg.base.errors import ConfigError
from rtseg.console.access import Bucket, Buckets, Hosts, Tokens, is_same_origin, read_tokens
from rtseg.console.serve import Place, parse_bind

from .publishing import Page, console, plain_feed

VIEWER, POINTER = "v" * 20, "p" * 20


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("console") / "tokens"
    path.write_text(f"# who may come\nviewer {VIEWER} The wall\n\npointer {POINTER} Dr. Ada\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def feed():
    with plain_feed(fps=20) as running:
        yield running


@pytest.fixture(scope="module")
def server(feed, tokens):
    with console(feed, tokens=tokens) as running:
        yield running


def _refused(page: Page) -> tuple[str, int]:
    why = page.hear("refused")["why"]
    with pytest.raises(ConnectionClosed) as closed:
        page.hear()
    return why, closed.value.rcvd.code


def _count(server, cause: str) -> int:
    found = httpx.get(f"{server.address}/api/feeds", headers={"Authorization": f"Bearer {VIEWER}"})
    return found.json()["refused"].get(cause, 0)


def test_tokens_have_rights_and_names(feed, server, caplog):
    feed.done.clear()
    with server.open(POINTER) as page:
        welcome = page.hear("welcome")
        assert (welcome["right"], welcome["name"]) == ("pointer", "Dr. Ada")
        page.order(1, "reset")
        assert page.hear("answer")["ok"]
    with server.open(VIEWER) as page:
        assert page.hear("welcome")["right"] == "viewer" and page.hear("picture")
        before = _count(server, "right")
        page.order(1, "reset")
        assert "may watch, not point" in page.hear("answer")["error"]
        page.order(2, "memory")  # changes nothing
        assert page.hear("answer", n=2)["ok"]
    assert feed.done == ["reset", "memory"]
    assert _count(server, "right") == before + 1
    assert any("The wall ordered reset" in record.message for record in caplog.records)
    assert POINTER not in caplog.text and VIEWER not in caplog.text


def test_a_wrong_token_or_none_is_refused_and_counted(server):
    before = _count(server, "token")
    for token in ("x" * 20, "", POINTER[:-1], POINTER + "p", None):
        with server.open(token) as page:
            why, code = _refused(page)
            assert (code, "token" in why) == (4401, True)
    url = f"{server.address}/api/feeds"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer nobody"}).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Basic {POINTER}"}).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {POINTER}"}).status_code == 200
    assert _count(server, "token") == before + 8


def test_a_viewer_cannot_order_by_http(feed, server):
    feed.done.clear()
    url = f"{server.address}/api/feeds/feed1/orders"
    answers = {
        token: httpx.post(url, json={"verb": "pause"}, headers={"Authorization": f"Bearer {token}"}).status_code
        for token in (VIEWER, POINTER)
    }
    assert answers == {VIEWER: 403, POINTER: 200} and feed.done == ["pause"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://", "http://127.0.0.1:1", "https://"])
def test_another_page_is_refused(server, origin):
    before = _count(server, "origin")
    with pytest.raises(InvalidStatus) as refused, server.open(POINTER, origin=origin):
        pass
    assert refused.value.response.status_code == 403
    headers = {"Authorization": f"Bearer {POINTER}", "Origin": origin}
    assert httpx.post(f"{server.address}/api/feeds/feed1/orders", json={}, headers=headers).status_code == 403
    assert _count(server, "origin") == before + 2


def test_our_own_page_is_let_in(server):
    with server.open(POINTER, origin=server.address) as page:
        assert page.hear("welcome")
    headers = {"Authorization": f"Bearer {POINTER}", "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{server.address}/api/feeds", headers=headers).status_code == 200
    headers["Sec-Fetch-Site"] = "cross-site"
    assert httpx.get(f"{server.address}/api/feeds", headers=headers).status_code == 403
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(f"{server.address}/", headers=visit).status_code in (200, 404)  # a link to the page


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "::1x"])
def test_another_name_is_refused(server, host):
    """DNS rebinding: a page of that name would have the console's origin."""
    assert httpx.get(f"{server.address}/api/feeds", headers={"Host": host}).status_code in (400, 403)


def test_names_that_are_ours():
    assert all(Hosts("127.0.0.1").knows(host) for host in ("localhost:9", "127.0.0.1", "[::1]:8080", "LOCALHOST"))
    assert not Hosts("127.0.0.1").knows("192.168.0.7:8080")
    assert Hosts("0.0.0.0").knows("192.168.0.7:8443") and not Hosts("0.0.0.0").knows("room1.example")
    assert Hosts("127.0.0.1", ("room1.example",)).knows("room1.example")
    assert is_same_origin("https://Room1.example", "room1.example")
    assert not is_same_origin("https://room1.example:444", "room1.example")


def test_every_answer_has_the_headers(server):
    for path in ("/", "/api/docs", "/api/feeds", "/nothing", "/page/../app.py"):
        headers = httpx.get(f"{server.address}{path}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers and "server" not in headers


@pytest.mark.parametrize("path", ["/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/.hidden", "/page/", "/page/a/b"])
def test_only_files_of_the_page_are_given(server, path):
    assert httpx.get(f"{server.address}{path}").status_code == 404


def test_a_proxy_without_tokens_is_refused(feed, server):
    with console(feed) as running:
        assert httpx.get(f"{running.address}/api/feeds").status_code == 200
        forwarded = {"X-Forwarded-For": "10.0.0.7"}
        assert httpx.get(f"{running.address}/api/feeds", headers=forwarded).status_code == 403
    forwarded["Authorization"] = f"Bearer {VIEWER}"
    assert httpx.get(f"{server.address}/api/feeds", headers=forwarded).status_code == 200


def test_a_token_that_is_taken_away_ends_its_connections(feed, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"pointer {POINTER} Ada\nviewer {VIEWER}\n")
    path.chmod(0o600)
    with console(feed, tokens=path) as running, running.open(POINTER) as page, running.open(VIEWER) as other:
        assert page.hear("welcome") and other.hear("welcome")
        path.write_text(f"viewer {VIEWER}\n")
        assert _refused(page)[1] == 4401
        assert other.hear("status")
        path.unlink()  # while the file cannot be read, nobody is let in
        assert _refused(other)[1] == 4401


def test_no_hello_is_refused(server):
    with server.open(hello=False) as page:
        page.say(type="ping", t=1)
        assert _refused(page)[1] == 4401


def test_too_many_messages_end_the_connection(server):
    with server.open(POINTER) as page:
        for _ in range(5000):
            try:
                page.say(type="ping", t=1)
            except ConnectionClosed:
                break
        assert _refused(page)[1] == 4429


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("", "0 tokens"),
        (f"admin {POINTER}", "line 1: begins with neither viewer nor pointer"),
        ("pointer short", "line 1: a token of 5 characters"),
        (f"pointer {POINTER}\nviewer {POINTER}", "line 2: a token that is there already"),
        (f"pointer {POINTER} {'x' * 65}", "line 1: a name of 65 characters"),
    ],
)
def test_a_wrong_token_file_costs_one_line_that_shows_no_token(tmp_path, body, line):
    path = tmp_path / "tokens"
    path.write_text(body)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=line) as refused:
        Tokens(path)
    assert POINTER not in str(refused.value) and "\n" not in str(refused.value)


def test_a_token_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"pointer {POINTER}")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(path)
    path.chmod(0o600)
    assert len(read_tokens(path)) == 1
    with pytest.raises(ConfigError, match="no such file"):
        read_tokens(tmp_path / "none")


def test_only_loopback_is_bound_without_tokens_and_tls(tokens):
    Place("127.0.0.1").check()
    for place in (Place("0.0.0.0"), Place("192.168.0.7", tokens=tokens), Place(hosts=("room1",)), Place(cert=tokens)):
        with pytest.raises(ConfigError, match="expected"):
            place.check()
    Place("0.0.0.0", tokens=tokens, cert=tokens, key=tokens).check()
    assert parse_bind("8080") == ("127.0.0.1", 8080) and parse_bind("[::1]:0") == ("::1", 0)
    with pytest.raises(ConfigError):
        parse_bind("127.0.0.1:http")


def test_a_bucket_fills_with_time():
    now = [0.0]
    bucket = Bucket(2, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    many = Buckets(1, 1, most=2)
    assert [many.take(address) for address in "aabca"] == [True, False, True, True, True]  # a was forgotten


def test_tls(feed, tokens, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    made = ["openssl", *words.split(), "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl makes no certificate here")
    trust = ssl.create_default_context(cafile=str(cert))
    with console(feed, tokens=tokens, cert=cert, key=key) as running:
        assert running.address.startswith("https://")
        assert httpx.get(f"{running.address}/api/docs", verify=trust).status_code == 200
        with running.open(POINTER, ssl=trust, origin=running.address) as page:
            assert page.hear("picture")
        with pytest.raises(httpx.HTTPError):
            httpx.get(running.address.replace("https", "http"))
        with pytest.raises(ssl.SSLError), connect(running.address.replace("https", "wss") + "/ws"):
            pass
    with pytest.raises(ConfigError, match="expected a certificate and its key"):
        from rtseg.console.serve import serve

        serve([], Place(port=0, tokens=tokens, cert=key, key=cert))
