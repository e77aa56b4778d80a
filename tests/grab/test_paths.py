"""What exists as a file is a file, whatever it is called; and how a secret that ends a uri is to be written."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.cli import main
from rtseg.grab import open_source
from rtseg.grab.capture import Capture
from rtseg.grab.redact import UnescapedError
from rtseg.live.profile import load_stream
from rtseg.publish import Mp4Writer

NAMES = ("2024-01-01T10:20:30.mp4", "rtsp:x.mp4", "a:b/c.mp4", "-a.mp4", "--force.mp4", "x%03d.mp4", "a#b.mp4",
         "a?b=c.mp4", "pipe:1.mp4", "concat:a|b.mp4", "synthetic:laparoscopy", "file:a.mp4", "a b.mp4", "[1].mp4",
         "rtsp:/host/live.mp4", "coded:", "~a.mp4")  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    with Mp4Writer(path, 64, 48, 25) as recorder:
        for level in (40, 90, 140):
            recorder.write(np.full((48, 64, 3), level, np.uint8))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_exists_is_a_file_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, name)
    profile = tmp_path / "p.toml"
    profile.write_text(f"source = {json.dumps(name)}")
    for uri in (name, f"./{name}", str(tmp_path / name), load_stream(profile).source):
        assert len(list(open_source(uri))) == 3
        intake = Capture(uri, pace="flat-out")
        assert not intake.live and len(list(intake.frames())) == 3


def test_the_command_line_takes_a_name_that_looks_like_an_option_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "-a.mp4")
    Path("-p.json").write_text("[]")
    assert main(["segment", "-a.mp4", "--prompts", "-p.json", "--out", "out"]) == 2
    assert "-p.json" in capsys.readouterr().err  # the prompts are empty, but they were read


def test_folders_and_pictures_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("rtsp:a/1:1.png", "x%03d/%03d.jpg", "tcp:/h/-1.png"):
        Path(name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 6), (200, 0, 0)).save(name)
        for uri in (name, str(Path(name).parent)):
            (frame,) = open_source(uri, fps=25)
            assert frame.name == Path(name).name and frame.image_hwc[0, 0, 0] > 190


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b", "~nobody-of-this-name/a.mp4"])
def test_what_no_file_can_be_called_is_one_line(name: str) -> None:
    with pytest.raises(SourceError, match="no such file or folder") as error:
        open_source(name)
    assert "\n" not in str(error.value)


def test_a_file_that_may_not_be_looked_at_says_so(tmp_path: Path) -> None:
    import os

    if os.geteuid() == 0:
        pytest.skip("root may look at everything")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match="check the permissions"):
        open_source(tmp_path / "closed" / "a.mp4")


UNESCAPED = [
    ("rtsp://admin:pass!@#word@10.0.0.5/live", "pass!@#word", "pass%21%40%23word"),
    ("rtsp://admin:pa/ss@host", "pa/ss", "pa%2Fss"),
    ("rtsp://admin:12/34@10.0.0.5", "12/34", "12%2F34"),
    ("rtsp://admin:12#34@cam", "12#34", "12%2334"),
    ("http://admin:pa?ss@host:8080/x", "pa?ss", "pa%3Fss"),
    ("rtsps://u:p#w d@[::1]:554/a", "p#w d", "p%23w%20d"),
    ("rtmp://u:p%#w@host/app/key", "p%#w", "p%25%23w"),
    ("srt://h:1?passphrase=abcdefghij#klm", "abcdefghij#klm", "abcdefghij%23klm"),
    ("srt://h:1?passphrase=abcdefghij&k=lm&latency=20", "abcdefghij&k=lm", "abcdefghij%26k%3Dlm"),
]


@pytest.mark.parametrize(("uri", "secret", "escaped"), UNESCAPED)
def test_a_secret_that_ends_a_uri_is_told_escaped_to_who_typed_it_and_to_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, uri: str, secret: str,
    escaped: str,
) -> None:  # fmt: skip
    with pytest.raises(UnescapedError) as error:
        open_source(uri)
    what = "passphrase" if uri.startswith("srt") else "password"
    assert str(error.value).endswith(f"escape the {what}: {escaped}") and "\n" not in str(error.value)
    assert secret not in str(error.value) and escaped not in error.value.public
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SourceError) as refused:  # what a feed says of itself is logged, sent and kept
        Capture(uri)
    assert escaped not in str(refused.value) and f"escape the {what}" in str(refused.value)
    profile = tmp_path / "p.toml"
    profile.write_text(f"source = {json.dumps(uri)}")
    assert main(["live", str(profile), "--seconds", "1", "--json"]) == 2
    told = capsys.readouterr()
    assert escaped in told.err and escaped not in told.out and secret not in told.err + told.out
    assert f"escape the {what}" in json.loads(told.out)["error"]
    assert escaped not in caplog.text and secret not in caplog.text


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://u:p%21%40%23w@127.0.0.1:1/", "rtsp://u:p@ss@127.0.0.1:1/", "rtsp://127.0.0.1:1/user:pw@stream",
        "rtsp://127.0.0.1:1/a@b.c", "rtsp://u@127.0.0.1:1/", "http://127.0.0.1:1/?mail=a@b.c", "rtsp://", "tcp://h",
        "srt://h:1?passphrase=abcdefghijk&latncy=20",
    ],
)  # fmt: skip
def test_what_can_be_taken_apart_is_not_advised_on(uri: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert not isinstance(error.value, UnescapedError)
