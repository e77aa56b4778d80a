"""What a recording may be: of any container, joined, in parts, through a pipe, or on a web server; and its length."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.account import PartStart
from rtseg.base.errors import SourceError
from rtseg.base.types import Frame
from rtseg.grab import open_source

from .test_damage import COUNT, GROUP, recording, said

STEP = 1 / 25


def copied(source: Path, target: Path, *, first_s: float = 0.0, later_s: float = 0.0, **options: str) -> Path:
    """The packets of a file in another container, from `first_s` on, `later_s` later."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size and packet.time_base and (packet.pts or 0) * packet.time_base >= first_s - 0.1:
                later = round(later_s / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + later, (packet.dts or 0) + later
                packet.stream = stream
                written.mux(packet)
    return target


def steady(frames: list[Frame]) -> bool:
    return np.allclose(np.diff([frame.seconds for frame in frames]), STEP, atol=1e-3)


def test_b_frames_in_avi_come_in_order_and_are_counted(tmp_path: Path) -> None:
    source = open_source(recording(tmp_path / "a.avi"))
    frames = list(source)
    assert source.frame_count == source.account.count == COUNT == len(frames) and said(source) == []
    assert steady(frames) and 0 < frames[0].seconds < 0.13
    for one, other in zip(frames, open_source(recording(tmp_path / "a.mp4")), strict=True):
        np.testing.assert_array_equal(one.image_hwc, other.image_hwc)


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mkv", "h264", "avi", "mp4", "flv"])
def test_recordings_that_were_joined_by_cat_play_through(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg2video" if suffix == "mpg" else "libx264"
    one = recording(tmp_path / f"one.{suffix}", codec)
    both = tmp_path / f"both.{suffix}"
    both.write_bytes(2 * one.read_bytes())
    first, source = list(open_source(one)), open_source(both)
    frames = list(source)
    assert len(frames) == 2 * COUNT == source.account.count == source.frame_count and steady(frames)
    assert [f.seq for f in frames] == list(range(2 * COUNT)) and not source.account.gaps
    assert ("times" in source.account.repaired) == (suffix in ("ts", "mpg", "mkv"))
    for a, b in zip(first, frames[COUNT:], strict=True):
        np.testing.assert_array_equal(a.image_hwc, b.image_hwc)


def test_files_that_are_one_recording(tmp_path: Path) -> None:
    one, two = recording(tmp_path / "one.ts"), copied(recording(tmp_path / "a.mp4"), tmp_path / "two.mkv")
    source = open_source([one, str(two)])
    frames = list(source)
    assert (source.frame_count, len(frames), source.account.shown) == (2 * COUNT,) * 3 and steady(frames)
    assert [f.seq for f in frames] == list(range(2 * COUNT)) and {f.session for f in frames} == {source.session}
    own_s = next(iter(open_source(two))).seconds
    assert source.account.parts == [
        PartStart(str(one), 0, frames[0].seconds),
        PartStart(str(two), COUNT, frames[COUNT].seconds, frames[COUNT].seconds - own_s),
    ]
    assert source.uri == f"{one} + {two}" and said(source) == []
    assert len(list(source)) == 2 * COUNT and len(source.account.parts) == 2, "a second pass is the same"
    assert open_source([one]).uri == str(one)


def test_files_that_do_not_fit_are_refused_when_opened(tmp_path: Path) -> None:
    one = recording(tmp_path / "one.ts")
    other = tmp_path / "other.mp4"
    with av.open(str(other), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame(160, 120, "yuv420p")))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match=r"other\.mp4: 160x120 at 30 .*one\.ts is 160x120 at 25"):
        open_source([one, other])
    with pytest.raises(SourceError, match=r"gone\.ts: no such file; expected video files to join"):
        open_source([one, tmp_path / "gone.ts"])
    with pytest.raises(SourceError, match="a folder; expected video files to join"):
        open_source([one, tmp_path])
    with pytest.raises(SourceError, match="no files to join"):
        open_source([])


def test_a_part_that_was_cut_off_is_a_gap_and_the_next_one_goes_on(tmp_path: Path) -> None:
    one, two = recording(tmp_path / "one.mkv"), recording(tmp_path / "two.mkv")
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    source = open_source([one, two])
    frames = list(source)
    (gap,) = source.account.gaps
    assert gap.before == len(frames) - COUNT and "cut off" in gap.why
    with pytest.raises(SourceError, match="cut off"):
        list(open_source([one, two], damaged="stop"))


def test_the_count_is_what_is_shown(tmp_path: Path) -> None:
    whole = recording(tmp_path / "whole.mp4")
    fragmented = copied(whole, tmp_path / "fragmented.mp4", movflags="frag_keyframe")
    # A group in front that an edit list leaves out, as `ffmpeg -ss 0.1 -c copy` writes it: negative times.
    trimmed = copied(whole, tmp_path / "trimmed.mp4", later_s=-6 * STEP)
    for path, count in ((whole, COUNT), (fragmented, COUNT), (trimmed, None), (recording(tmp_path / "a.ts"), COUNT)):
        source = open_source(path)
        before = source.frame_count
        frames = list(source)
        assert before == source.account.count == len(frames) == (count or len(frames)), path.name
        assert steady(frames)


def test_a_recording_that_starts_at_one_hour_says_so(tmp_path: Path) -> None:
    path = copied(recording(tmp_path / "a.mp4"), tmp_path / "late.mkv", later_s=3600)
    source = open_source(path)
    frames = list(source)
    assert source.account.start_s == frames[0].seconds == pytest.approx(3600, abs=0.2) and steady(frames)


def test_a_pipe_with_a_name_is_a_source(tmp_path: Path) -> None:
    whole, pipe = recording(tmp_path / "a.ts"), tmp_path / "pipe"
    data = whole.read_bytes()
    os.mkfifo(pipe)
    torn = data[: 188 * 60] + data[188 * 61 :]
    for sent, complete in ((data, True), (torn, False)):
        writer = threading.Thread(target=lambda sent=sent: pipe.write_bytes(sent))
        writer.start()
        source = open_source(pipe)
        frames = list(source)
        writer.join()
        assert (len(frames) == COUNT) == complete == (source.account.damaged == 0)
        assert source.account.count == len(frames) == source.account.shown
        with pytest.raises(SourceError, match="a pipe can be read only once"):
            list(source)


def test_standard_input_is_a_source(tmp_path: Path) -> None:
    code = "from rtseg import open_source; s = open_source('-'); print(sum(1 for _ in s), s.uri)"
    for suffix in ("ts", "mkv", "mp4"):  # of which the last has its index at its end
        with recording(tmp_path / f"a.{suffix}").open("rb") as file:
            done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(COUNT), "-"]
    code = "from rtseg import open_source; open_source('-')"
    done = subprocess.run([sys.executable, "-c", code], input=b"no video" * 99, capture_output=True, check=False)
    assert b"SourceError: -: not a readable video" in done.stderr


class _Web(http.server.BaseHTTPRequestHandler):
    """Gives `data`, but breaks off after `most` bytes of an answer; goes on in the middle if it `ranges`."""

    data, most, ranges, length = b"", 1 << 30, True, True
    asked: tuple[int, ...] = ()

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0]) if self.ranges else 0
        type(self).asked += (start,)
        self.send_response(206 if self.ranges else 200)
        if self.length:
            self.send_header("Content-Length", str(len(self.data) - start))
        if self.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(self.data[start : start + self.most])

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def web(data: bytes, *, most: int = 1 << 30, ranges: bool = True, length: bool = True) -> Iterator[tuple[str, type]]:
    handler = type("Handler", (_Web,), {"data": data, "most": most, "ranges": ranges, "length": length})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:hunter22@127.0.0.1:{server.server_port}/a.ts", handler
        server.shutdown()


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv"])
def test_a_web_server_that_breaks_off_is_asked_for_the_rest(tmp_path: Path, suffix: str) -> None:
    path = recording(tmp_path / f"a.{suffix}")
    data = path.read_bytes()
    expected = [f.image_hwc for f in open_source(path)]
    with web(data, most=len(data) // 2) as (uri, handler):
        source = open_source(uri)
        frames = list(source)
        assert max(handler.asked) >= len(data) // 2
    assert said(source) == [] and "hunter22" not in source.uri
    for frame, image_hwc in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image_hwc, image_hwc)


def test_a_web_server_that_does_not_go_on_leaves_what_is_whole(tmp_path: Path) -> None:
    data = recording(tmp_path / "a.ts").read_bytes()
    expected = {f.seconds: f.image_hwc for f in open_source(tmp_path / "a.ts")}
    with web(data, most=int(0.7 * len(data)), ranges=False) as (uri, _):
        source, frames = open_source(uri), []
        with pytest.raises(SourceError, match=r"the server broke off after \d+ of \d+ bytes") as error:
            for frame in source:
                frames.append(frame)
    assert "hunter22" not in str(error.value) and "the server broke off" in source.account.ended
    assert COUNT // 2 <= len(frames) < COUNT
    for frame in frames:
        np.testing.assert_array_equal(frame.image_hwc, expected[frame.seconds])


def test_an_answer_without_a_length_is_a_live_feed(tmp_path: Path) -> None:
    with web(recording(tmp_path / "a.ts").read_bytes(), ranges=False, length=False) as (uri, _):
        source = open_source(uri)
        with pytest.raises(SourceError, match="ended by its sender|reading failed"):
            list(source)
    assert source.frame_count is None


def test_a_gap_in_time_is_no_joint(tmp_path: Path) -> None:
    """A camera that was paused: its times stay its own."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(GROUP)})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 160, 120, "yuv420p", Fraction(1, 1000)
        for index in range(20):
            picture = av.VideoFrame(160, 120, "yuv420p")
            picture.pts, picture.time_base = 40 * index + 5000 * (index >= 10), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    source = open_source(path)
    times = [f.seconds for f in source]
    assert len(times) == 20 and said(source) == [] and max(np.diff(times)) == pytest.approx(5.04, abs=0.002)
