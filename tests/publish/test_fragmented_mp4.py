from __future__ import annotations

import hashlib
import signal
import subprocess
import sys

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from rtseg.base.errors import OutputError
from rtseg.publish import fragmented_mp4 as fragments
from rtseg.publish.fragmented_mp4 import FragmentedMp4, Seal, count_frames, seal_rest

MS = 10**6


def _picture(shade: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (shade, 60, 200 - shade), np.uint8)


def _open(path, width=64, height=48):
    seals: list[Seal] = []
    return FragmentedMp4(path, width, height, 25, seals.append), seals


def _decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_pictures_come_back_at_the_times_of_their_capture(tmp_path):
    times_ms = [0, 40, 83, 500, 1500, 1540, 3700, 3700, 3740]  # uneven, and the same twice
    video, _ = _open(tmp_path / "a.mp4")
    for i, ms in enumerate(times_ms):
        video.write(_picture(20 * i), 10**15 + ms * MS)
    video.close()
    frames = _decoded(tmp_path / "a.mp4")
    assert [f.time for f in frames] == pytest.approx([ms / 1e3 for ms in times_ms], abs=1e-4)
    assert [f.key_frame for f in frames] == [ms in (0, 1500, 3700) and i != 7 for i, ms in enumerate(times_ms)]
    assert {(f.format.name, f.colorspace, f.color_range) for f in frames} == {
        ("yuv420p", Colorspace.ITU709, ColorRange.MPEG)
    }
    for i, frame in enumerate(frames):
        assert np.abs(frame.to_ndarray(format="rgb24")[10, 10].astype(int) - _picture(20 * i)[0, 0]).max() <= 4
    assert (tmp_path / "a.mp4").stat().st_mode & 0o777 == 0o600


def test_every_byte_is_sealed_when_its_second_is_over(tmp_path):
    video, seals = _open(tmp_path / "a.mp4")
    held = []
    for i in range(60):
        video.write(_picture(i), i * 40 * MS)
        held.append(sum(seal.frames for seal in seals))
    assert held[24:26] == [0, 25]
    assert held[49:51] == [25, 50]
    assert len(_decoded(tmp_path / "a.mp4")) == 50  # without its end, it plays
    video.close()
    video.close()
    data = (tmp_path / "a.mp4").read_bytes()
    assert [seal.start for seal in seals] == [0, *(seal.end for seal in seals[:-1])]
    assert (seals[-1].end, [seal.closed for seal in seals]) == (len(data), [False] * (len(seals) - 1) + [True])
    assert all(hashlib.sha256(data[s.start : s.end]).hexdigest() == s.sha256 for s in seals)
    assert count_frames(data) == sum(seal.frames for seal in seals) == 60


def test_what_is_cut_off_or_is_no_video_holds_no_frames(tmp_path):
    path = tmp_path / "a.mp4"
    video, seals = _open(path)
    for i in range(60):
        video.write(_picture(i), i * 40 * MS)
    video.close()
    data = path.read_bytes()
    assert count_frames(data[: seals[2].end]) == 50
    assert count_frames(data[: seals[2].end - 1]) == 25
    assert [count_frames(junk) for junk in (b"", b"\0" * 64, b"\xff" * 64, data[5:99])] == [0] * 4
    assert seal_rest(path, len(data)) is seal_rest(tmp_path / "none.mp4", 0) is None
    assert seal_rest(path, seals[1].end).frames == 35


_KILLED = """
import sys
from pathlib import Path
import numpy as np
from rtseg.publish.fragmented_mp4 import FragmentedMp4
video = FragmentedMp4(Path(sys.argv[1]), 64, 48, 25, lambda seal: None)
rng = np.random.default_rng(0)
for i in range(10**9):
    video.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), i * 40_000_000)
    print(i + 1, flush=True)
"""


def test_a_killed_writer_loses_less_than_a_second(tmp_path):
    path = tmp_path / "a.mp4"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 140:
            process.send_signal(signal.SIGKILL)
            break
    said = [line for line in process.stdout.read().split("\n") if line]
    process.wait()
    written = int(said[-1]) if said else 140
    frames = _decoded(path)
    assert written - 26 <= len(frames) <= written + 1
    assert len(frames) % 25 == 0
    assert [f.time for f in frames] == pytest.approx([i * 0.04 for i in range(len(frames))], abs=1e-4)


@pytest.mark.parametrize("codec", ["mpeg4"])
def test_another_codec_where_there_is_no_h264(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(fragments, "_CODECS", {"none": {}, codec: fragments._CODECS[codec]})
    video, seals = _open(tmp_path / "a.mp4")
    for i in range(60):
        video.write(_picture(i), i * 40 * MS)
    video.close()
    assert [seal.frames for seal in seals if seal.frames] == [25, 25, 10]
    assert [f.time for f in _decoded(tmp_path / "a.mp4")] == pytest.approx([i * 0.04 for i in range(60)], abs=1e-4)


def test_misuse_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"older")
    for path in (tmp_path / "a.mp4", tmp_path / "missing" / "b.mp4", tmp_path):
        with pytest.raises(OutputError) as caught:
            _open(path)
        assert str(caught.value).startswith(f"{path}: cannot be written (")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "a.mp4").read_bytes() == b"older"
    monkeypatch.setattr(fragments, "_CODECS", {"none": {}})
    with pytest.raises(OutputError, match="no encoder of none"):
        _open(tmp_path / "c.mp4")
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize(("width", "height"), [(33, 17), (2, 2), (64, 31)])
def test_odd_sizes(tmp_path, width, height):
    video, _ = _open(tmp_path / "a.mp4", width, height)
    video.write(_picture(90, height, width), 0)
    video.close()
    (frame,) = _decoded(tmp_path / "a.mp4")
    assert (frame.width, frame.height) == (width + width % 2, height + height % 2)
