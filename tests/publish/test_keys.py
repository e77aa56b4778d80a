"""Keys, the allow list, and the addresses that need it."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from rtseg.base.errors import ConfigError, OutputError
from rtseg.base.types import Frame
from rtseg.publish import keys
from rtseg.publish.keys import allow_list
from rtseg.publish.keys.files import read_pair, read_public
from rtseg.publish.publisher import Publisher
from rtseg.publish.subscriber import Subscriber
from rtseg.publish.subscriptions import Subscriptions
from rtseg.publish.viewer import view

ANYWHERE = "tcp://127.0.0.1:*"


def _wait(condition, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not (met := bool(condition())) and time.monotonic() < until:
        time.sleep(0.005)
    return met


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server, anna who is allowed, and bert who is not."""
    home = tmp_path / "keys"
    for name in ("server", "anna", "bert"):
        keys.new(home, name)
    keys.allow(home, "anna")
    return home


def test_private_keys_are_private_and_never_shown(folder, capsys):
    secret = read_pair(folder / "anna.key_secret")[1].decode()
    shown = str([keys.new(folder, "carl"), keys.allow(folder, "carl"), keys.list_keys(folder), capsys.readouterr()])
    secrets = {read_pair(file)[1].decode() for file in folder.glob("*.key_secret")}
    assert len(secrets) == 4
    assert secret in secrets
    assert not any(one in shown for one in secrets)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.glob("*.key_secret"))
    assert all(secret not in file.read_text() for file in folder.rglob("*.key"))
    assert set(keys.list_keys(folder)["keys"]) == {"server", "anna", "bert", "carl"}
    assert set(keys.list_keys(folder)["allowed"]) == {"anna", "carl"}


def test_the_files_are_those_of_zmq_auth(folder):
    from zmq.auth import load_certificate

    assert load_certificate(folder / "anna.key_secret") == read_pair(folder / "anna.key_secret")
    assert load_certificate(folder / "anna.key")[0] == read_public(folder / "anna.key")


@pytest.mark.parametrize("name", ["", ".", "../anna", "a/b", "a b", "-x", "a\n", "ä", "x" * 65])
def test_names_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="key name"):
        keys.new(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


def test_every_mistake_costs_one_line(folder, tmp_path):
    def said(call, *args) -> str:
        with pytest.raises(ConfigError) as caught:
            call(*args)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is there already" in said(keys.new, folder, "anna")
    assert "cannot be read" in said(keys.allow, folder, "nobody")
    assert "a private key" in said(keys.allow, folder, folder / "anna.key_secret")
    assert "the server's key" in said(keys.allow, folder, "server")
    assert "server" not in keys.list_keys(folder)["allowed"]
    (tmp_path / "renamed.key").write_bytes((folder / "anna.key_secret").read_bytes())
    assert "holds a private key" in said(keys.allow, folder, tmp_path / "renamed.key")
    (tmp_path / "anna.key").write_bytes((folder / "bert.key").read_bytes())
    assert "another key of this name" in said(keys.allow, folder, tmp_path / "anna.key")
    (tmp_path / "junk.key").write_text("junk")
    assert "no public key" in said(keys.allow, folder, tmp_path / "junk.key")
    (tmp_path / "junk.key").write_text('public-key = "' + "~" * 40 + '"')
    assert "is no key" in said(keys.allow, folder, tmp_path / "junk.key")
    assert "no such folder" in said(keys.list_keys, tmp_path / "nowhere")
    (folder / "bert.key_secret").write_text((folder / "bert.key_secret").read_text().replace("secret-key", "other"))
    assert "no private key" in said(read_pair, folder / "bert.key_secret")
    mixed = (folder / "anna.key").read_text() + (folder / "server.key_secret").read_text().splitlines()[-1]
    (folder / "bert.key_secret").write_text(mixed)
    assert "no pair" in said(read_pair, folder / "bert.key_secret")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_private_key_that_others_may_read_is_refused(folder, mode):
    (folder / "server.key_secret").chmod(mode)
    with pytest.raises(OutputError, match="chmod 600") as caught:
        Publisher(ANYWHERE, keys=folder)
    assert "\n" not in str(caught.value)
    (folder / "anna.key_secret").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Subscriber("tcp://127.0.0.1:1", keys=folder / "anna.key_secret")


@pytest.mark.parametrize("inner", ["", "allowed"])
def test_a_folder_that_others_may_write_is_refused(folder, inner):
    (folder / inner).chmod(0o777)
    with pytest.raises(OutputError, match="chmod 700"):
        keys.check_bind(ANYWHERE, folder)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.5", "[::]", "[2001:db8::1]", "127.0.0.1", "[::1]"])
def test_any_address_may_be_bound_behind_an_allow_list(folder, host):
    assert keys.check_bind(f"tcp://{host}:5555", folder) == f"tcp://{host}:5555"
    if not host.startswith(("127", "[::1")):
        with pytest.raises(OutputError, match="rtseg keys new server"):
            keys.check_bind(f"tcp://{host}:5555", None)


def test_an_allow_list_without_names_is_none(folder, tmp_path):
    (folder / "allowed/anna.key").unlink()
    with pytest.raises(OutputError, match="nobody is on the allow list"):
        keys.check_bind("tcp://0.0.0.0:5555", folder)
    (folder / "server.key_secret").unlink()
    with pytest.raises(OutputError, match=r"server\.key_secret"):
        keys.check_bind("tcp://0.0.0.0:5555", folder)
    with pytest.raises(OutputError, match="no such folder"):
        keys.check_bind("tcp://0.0.0.0:5555", tmp_path / "nowhere")


@pytest.mark.parametrize("bind", ["tcp://eth0:5555", "tcp://example.com:5555", "tcp://127.0.0.1;0.0.0.0:5555"])
def test_names_of_interfaces_are_refused_with_keys_too(folder, bind):
    with pytest.raises(OutputError, match="no IP address"):
        keys.check_bind(bind, folder)


def _status(endpoint: str, seconds: float, **with_keys) -> tuple[bool, str | None]:
    with Subscriber(endpoint, ["status"], "demo", **with_keys) as subscriber:
        heard: list[object] = []
        _wait(
            lambda: subscriber.refused or heard or heard.extend(filter(None, [subscriber.get("status", 0.01)])), seconds
        )
        return bool(heard), subscriber.refused


@pytest.mark.parametrize("ipc", [False, True])
def test_only_an_allowed_key_gets_anything(folder, tmp_path, ipc):
    bind = f"ipc://{tmp_path}/s" if ipc else ANYWHERE
    strangers = tmp_path / "strangers"
    keys.new(strangers, "server")
    with Publisher(bind, keys=folder) as publisher:
        end, anna = publisher.endpoint, folder / "anna.key_secret"
        with Subscriber(end, ["status"], "demo", keys=anna) as watching:
            assert watching.get("status", timeout=30) is not None
            got, why = _status(end, 30, keys=folder / "bert.key_secret")
            assert not got
            assert "not on the allow list" in why
            assert _status(end, 0.4)[0] is False
            got, why = _status(end, 30, keys=anna, server_key=strangers / "server.key")
            assert not got
            assert "the server's own public key" in why
            assert watching.get("status", timeout=30) is not None  # the others cost it nothing
            assert watching.refused is None
        assert _status(end, 30, keys=anna, server_key=keys.list_keys(folder)["keys"]["server"]) == (True, None)


def test_keys_on_one_side_only_are_named(folder):
    with Publisher(ANYWHERE) as open_, Publisher(ANYWHERE, keys=folder) as closed:
        assert "both sides or on neither" in _status(open_.endpoint, 30, keys=folder / "anna.key_secret")[1]
        assert "both sides or on neither" in _status(closed.endpoint, 30)[1]


def test_the_allow_list_may_change_while_it_is_used(folder):
    bert = {"keys": folder / "bert.key_secret"}
    with Publisher(ANYWHERE, keys=folder) as publisher:
        (folder / "allowed/broken.key").write_text("junk")  # lets nobody in, and keeps nobody out
        with Subscriber(publisher.endpoint, ["status"], "demo", **bert) as patient:
            assert _wait(lambda: patient.refused)
            keys.allow(folder, "bert")
            assert patient.get("status", timeout=30) is not None  # it asks again by itself
            assert patient.refused is None
        assert _status(publisher.endpoint, 30, keys=folder / "anna.key_secret")[0]
        (folder / "allowed/bert.key").unlink()
        assert "not on the allow list" in _status(publisher.endpoint, 30, **bert)[1]
        (folder / "allowed").chmod(0o777)
        assert not _status(publisher.endpoint, 0.5, keys=folder / "anna.key_secret")[0]


@pytest.mark.slow
@pytest.mark.parametrize("ipc", [False, True])
def test_who_is_taken_off_the_list_is_out_and_nobody_else(folder, tmp_path, monkeypatch, ipc):
    keys.allow(folder, "bert")
    hung_up: list[bool] = []
    real = Subscriptions._disconnect
    monkeypatch.setattr(Subscriptions, "_disconnect", lambda self, peer: hung_up.append(real(self, peer)))
    frame = Frame(np.zeros((4, 6, 3), np.uint8), 0)
    with Publisher(f"ipc://{tmp_path}/s" if ipc else ANYWHERE, keys=folder) as publisher:
        anna = Subscriber(publisher.endpoint, ["video"], "demo", keys=folder / "anna.key_secret")
        bert = Subscriber(publisher.endpoint, ["video"], "demo", keys=folder / "bert.key_secret")
        with anna, bert:
            seqs = itertools.count()

            def show(until, seconds: float) -> bool:
                def step() -> bool:
                    publisher.publish_video(replace(frame, seq=next(seqs)))
                    return until()

                return _wait(step, seconds)

            assert show(lambda: anna.received["video"] and bert.received["video"], 30)
            assert not show(lambda: hung_up or anna.refused or bert.refused, 1.2)  # the control: a look costs nothing
            before = {known.inode for known in publisher._subscriptions._peers.values()}
            (folder / "allowed/anna.key").unlink()
            assert show(lambda: "not on the allow list" in (anna.refused or ""), 30)
            had, others = anna.received["video"], bert.received["video"]
            show(lambda: False, 0.3)
            assert anna.received["video"] == had
            assert bert.received["video"] > others
            after = {known.inode for known in publisher._subscriptions._peers.values()}
            assert (hung_up, bert.refused, len(before), len(after & before)) == ([True], None, 2, 1)  # one is as it was
            keys.allow(folder, "anna")
            assert show(lambda: anna.received["video"] > had, 30)  # it asks again by itself
            assert hung_up == [True]


def test_a_list_that_cannot_be_read_throws_nobody_out(folder, monkeypatch):
    anna, bert = (read_public(folder / f"{name}.key").decode() for name in ("anna", "bert"))
    (folder / "allowed/broken.key").write_text("junk")
    assert keys.revoked(folder, [anna, bert]) == {bert}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with os.scandir(folder) as listing:  # as when strangers use up what may be open
        assert next(listing)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert keys.revoked(folder, [anna, bert]) == set()
            monkeypatch.setattr(keys.files, "_entries", lambda home: [home / "anna.key"])
            assert keys.revoked(folder, [anna, bert]) == set()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert keys.revoked(folder, [anna, bert]) == {bert}
    monkeypatch.undo()
    (folder / "allowed").chmod(0o777)
    assert keys.revoked(folder, [anna, bert]) == set()
    shutil.rmtree(folder / "allowed")
    assert keys.revoked(folder, [anna, bert]) == {anna, bert}


def test_without_a_handler_nobody_comes_in(folder, monkeypatch):
    monkeypatch.setattr(allow_list, "_serve", lambda handler: handler.close(linger=0))
    with Publisher(ANYWHERE, keys=folder) as publisher:
        assert not _status(publisher.endpoint, 0.5, keys=folder / "anna.key_secret")[0]


def test_a_view_that_is_refused_says_so(folder):
    with Publisher(ANYWHERE, keys=folder) as publisher:
        for with_keys in ({"keys": folder / "bert.key_secret"}, {}):
            with pytest.raises(OutputError, match=r"allow list there|both sides"):
                view(publisher.endpoint, headless=True, seconds=5, **with_keys)
        with pytest.raises(ConfigError, match="several keys"):
            view(publisher.endpoint, headless=True, seconds=5, keys=folder)


def test_a_key_that_goes_while_it_waits_is_named(folder):
    with Publisher(ANYWHERE, keys=folder) as publisher:
        with Subscriber(publisher.endpoint, ["status"], "demo", keys=folder / "bert.key_secret") as subscriber:
            assert _wait(lambda: subscriber.refused)
            (folder / "bert.key_secret").unlink()
            assert _wait(lambda: "no key to show" in (subscriber.refused or ""))


def test_an_ipc_file_is_private_and_goes_with_its_owner(tmp_path):
    path = tmp_path / "feed"
    with Publisher(f"ipc://{path}") as publisher:
        assert path.stat().st_mode & 0o777 == 0o600
        assert _status(publisher.endpoint, 5)[0]
        with pytest.raises(OutputError, match="is in use"):
            Publisher(f"ipc://{path}")
        assert _status(publisher.endpoint, 5)[0]
    assert not path.exists()
    umask = os.umask(0o022)
    os.umask(umask)
    (tmp_path / "file").touch()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask  # as it was before


def test_a_stale_ipc_file_is_replaced_and_no_other_file_is(tmp_path):
    path = tmp_path / "feed"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    Publisher(f"ipc://{path}").close()
    path.write_text("precious")
    with pytest.raises(OutputError, match="another kind of file"):
        Publisher(f"ipc://{path}")
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("bind", "said"),
    [("ipc://@feed", "no file"), ("ipc://*", "no file"), ("ipc://", "no file"), ("ipc:///nowhere/feed", "no folder"),
     ("ipc:///tmp/" + "x" * 200, "over 107 bytes")],
)  # fmt: skip
def test_ipc_names_that_protect_nobody_are_refused(bind, said):
    with pytest.raises(OutputError, match=said):
        keys.check_bind(bind)


def test_a_port_that_is_taken_is_one_line_with_keys_too(folder):
    with Publisher(ANYWHERE, keys=folder) as publisher:
        for _ in range(20):
            with pytest.raises(OutputError, match="port is in use"):
                Publisher(publisher.endpoint, keys=folder)


def test_one_handler_serves_two_sockets_with_different_lists(folder, tmp_path):
    other = tmp_path / "other"
    for name in ("server", "bert"):
        keys.new(other, name)
    keys.allow(other, "bert")
    with zmq.Context() as context:
        ends, sockets = [], []
        for home in (folder, other):
            sockets.append(context.socket(zmq.XPUB))
            ends.append(keys.listen(context, sockets[-1], ANYWHERE, home))

        def let_in(who: Path, where: int) -> bool:
            with context.socket(zmq.SUB) as sub:
                keys.present(sub, who, (folder, other)[where] / "server.key")
                sub.setsockopt_string(zmq.SUBSCRIBE, "")
                sub.connect(ends[where])
                return bool(sockets[where].poll(400)) and sockets[where].recv() == b"\1"

        anna, bert = folder / "anna.key_secret", other / "bert.key_secret"
        assert [let_in(anna, 0), let_in(anna, 1), let_in(bert, 1), let_in(bert, 0)] == [True, False, True, False]
        for one in sockets:
            one.close(linger=0)
