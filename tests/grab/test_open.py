"""Where a uri leads, and what is said when it leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere/clip.mp4", "no such file or folder"),
        ("rtsp://127.0.0.1:1/1", "rtsp://127.0.0.1:1/1: cannot be opened (Connection refused)"),
        ("TCP://127.0.0.1:1", "cannot be opened (Connection refused)"),
        ("/dev/video99", "/dev/video99: cannot be opened (No such file or directory)"),
        ("rtsp://", "no host; expected rtsp://HOST/PATH"),
        ("rtsp:camera", "expected rtsp://HOST/PATH"),
        ("udp://239.0.0.1", "no port; expected udp://HOST:PORT"),
        ("tcp://host:99999", "tcp://host:99999: not a uri; expected tcp://HOST:PORT"),
        ("rtsp://camera/1 ", "spaces around it"),
        ("v4l2:///dev/video0?widht=640", "unknown key 'widht'; did you mean 'width'"),
        ("v4l2:///dev/video0?width=640", "width and height go together"),
        ("v4l2:///dev/video0?fps=fast", "fps='fast'; expected a whole number from 1 to 1000"),
        ("v4l2:///dev/video0?format=M JPEG", "expected FFmpeg's name of a format"),
        ("v4l2://video0", "no device; expected v4l2:///dev/video0"),
        ("srt://h:1?passphrase=short", "the passphrase is too short or too long; expected 10 to 79 bytes"),
        ("srt://h:1?mode=rendezvous", "expected caller or listener"),
        ("srt://h:1?latncy=20", "unknown key 'latncy'; did you mean 'latency'"),
        ("srt://h:1?latency=fast", "expected milliseconds from 0 to 60000"),
        ("srt://:1", "no host to call"),
        ("rstp://camera/1", "unknown scheme 'rstp'; did you mean 'rtsp'"),
        ("rstp://me:hunter22@camera/1", "rstp://***@camera/1: unknown scheme 'rstp'"),
        ("rstp:me:hunter22@camera", "rstp:***: unknown scheme 'rstp'"),
        ("synthetik:laparoscopy", "unknown scheme 'synthetik'; did you mean 'synthetic'"),
        ("", "no such file or folder"),
    ],
)
def test_what_cannot_be_opened_is_one_line(uri: str, says: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert says in str(error.value)
    assert "\n" not in str(error.value) and "hunter22" not in str(error.value) and "short" not in str(error.value)[:20]


def test_a_rate_for_a_live_input_is_refused() -> None:
    with pytest.raises(SourceError, match="a live input has its own times"):
        open_source("tcp://127.0.0.1:1", fps=25)


def test_a_file_may_be_called_what_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon does not make a uri: the file is looked into, and found to be none."""
    monkeypatch.chdir(tmp_path)
    for name in ("rtp:a@b.mp4", "a?password=hunter.mp4"):
        Path(name).write_bytes(b"no video")
        with pytest.raises(SourceError) as error:
            open_source(name)
        assert str(error.value).startswith(f"{name}: not a readable video")


@pytest.mark.parametrize("fps", [0, -1, 5000, float("nan")])
def test_an_impossible_rate_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(SourceError, match="expected a number from"):
        open_source(tmp_path, fps=fps)


@pytest.mark.parametrize("uri", [None, 7, b"a.mp4", object(), ["a.mp4", None]])
def test_what_is_no_uri_is_one_line(uri: Any) -> None:
    with pytest.raises(SourceError, match="expected a uri, a path, or several in a list") as error:
        open_source(uri)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fps": "25"}, "fps='25'; expected a number"), ({"fps": True}, "expected a number"),
        ({"fps": float("inf")}, "expected a number"), ({"bits": 12.0}, "bits=12.0; expected a whole number"),
        ({"bits": 7}, "expected a whole number from 8 to 16"), ({"deinterlace": "yes"}, "deinterlace 'yes'; expected"),
        ({"damaged": "skipp"}, "damaged 'skipp'; did you mean 'skip'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("uri", ["a.mp4", ["a.mp4", "b.mp4"], "rtsp://u:hunter22@127.0.0.1:1/"])
def test_an_option_that_makes_no_sense_is_one_line(uri: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri, **options)
    assert says in str(error.value) and "hunter22" not in str(error.value) and "\n" not in str(error.value)


def test_a_rate_for_a_bare_stream_is_taken_and_one_that_is_missing_is_told(tmp_path: Path) -> None:
    from .test_video_file import moving, write

    path = write(tmp_path / "a.h264", moving(6), "libx264")
    source = open_source(path, fps=50)
    assert [frame.seconds for frame in source][:3] == [0.0, 0.02, 0.04] and source.fps == 50
    assert "rate" not in source.account.assumed
    source = open_source(path)
    assert [frame.seconds for frame in source][:3] == [0.0, 0.04, 0.08]
    assert "25 frames a second" in source.account.assumed["rate"]
    mp4 = write(tmp_path / "a.mp4", moving(6), "libx264")
    assert "rate" not in open_source(mp4).account.assumed
    with pytest.raises(SourceError, match="a video has its own times; leave fps out"):
        open_source(mp4, fps=50)


def test_the_synthetic_source_needs_no_pyav() -> None:
    code = (
        "import sys; from rtseg.grab import open_source; "
        "next(iter(open_source('synthetic:laparoscopy?width=64&height=64'))); sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
