from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from rtseg.base.errors import OutputError
from rtseg.publish.mp4_writer import Mp4Writer

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 60, 40), (20, 120, 220), (128,) * 3]


def _bars(height: int = 64, width: int = 256, shift: int = 0) -> np.ndarray:
    image_hwc = np.zeros((height, width, 3), np.uint8)
    for i, color in enumerate(COLORS):
        image_hwc[:, i * 32 : (i + 1) * 32] = color
    return np.roll(image_hwc, shift, axis=1)


def _frames(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0)), container.streams.video[0].average_rate


def test_pictures_come_back_in_order_and_in_colour(tmp_path):
    path = tmp_path / "a.mp4"
    pictures = [_bars(shift=16 * i) for i in range(8)]
    with Mp4Writer(path, 256, 64, 25) as recorder:
        for image_hwc in pictures:
            recorder.write(image_hwc)
    frames, rate = _frames(path)
    assert (len(frames), rate) == (8, 25)
    assert {(f.colorspace, f.color_range, f.format.name) for f in frames} == {
        (Colorspace.ITU709, ColorRange.MPEG, "yuv420p")
    }
    for i, (frame, image_hwc) in enumerate(zip(frames, pictures, strict=True)):
        noise = (frame.to_ndarray(format="rgb24").astype(float) - image_hwc) ** 2
        inside_bars = np.roll(np.arange(256) % 32, 16 * i)
        noise = noise[:, (inside_bars > 4) & (inside_bars < 28)]  # edges are blurred by 4:2:0, whatever the codec
        assert 10 * np.log10(255**2 / noise.mean()) > 38
    red_luma = frames[0].to_ndarray()[32, 16]
    assert abs(int(red_luma) - 63) <= 1  # BT.709, limited range; BT.601 would be 81, full range 54


@pytest.mark.parametrize(("width", "height", "fps"), [(33, 17, 30000 / 1001), (2, 2, 1), (64, 31, 59.94)])
def test_any_size_and_rate(tmp_path, width, height, fps):
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, width, height, fps) as recorder:
        for _ in range(3):
            recorder.write(np.full((height, width, 3), 90, np.uint8))
    frames, rate = _frames(path)
    assert (len(frames), frames[0].width, frames[0].height) == (3, width + width % 2, height + height % 2)
    assert float(rate) == pytest.approx(fps, rel=1e-3)


def test_nothing_is_there_before_close_nor_after_abort(tmp_path):
    path = tmp_path / "a.mp4"
    recorder = Mp4Writer(path, 256, 64, 25)
    recorder.write(_bars())
    assert not path.exists()
    recorder.abort()
    recorder.abort()
    recorder.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="mine"), Mp4Writer(path, 256, 64, 25) as recorder:
        recorder.write(_bars())
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_an_older_recording_survives_a_failure(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    recorder = Mp4Writer(path, 256, 64, 25)
    recorder.write(_bars())
    recorder.abort()
    assert path.read_bytes() == b"older"


def test_misuse_is_one_line(tmp_path):
    with Mp4Writer(tmp_path / "a.mp4", 256, 64, 25) as recorder:
        with pytest.raises(OutputError, match=r"32x64; expected 256x64"):
            recorder.write(_bars(width=256)[:, :32])
        recorder.write(_bars())
    for path in (tmp_path / "missing" / "a.mp4", tmp_path, tmp_path / "a.mp4" / "b.mp4"):
        with pytest.raises(OutputError) as caught:
            Mp4Writer(path, 256, 64, 25)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(OutputError, match="closed"):
        recorder.write(_bars())


_FULL = """
import resource, sys
sys.dont_write_bytecode = True  # Python would leave half a file of each module that it imports from now on
from pathlib import Path
import numpy as np
from rtseg.base.errors import OutputError
from rtseg.publish.mp4_writer import Mp4Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
rng = np.random.default_rng(0)
try:
    with Mp4Writer(Path(sys.argv[1]), 64, 48, 25) as recorder:
        for _ in range(20):
            recorder.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    print("written")
except OutputError as e:
    print(e)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_leaves_nothing_wherever_it_strikes(tmp_path):
    path = tmp_path / "a.mp4"

    def record(limit: int) -> str:
        command = [sys.executable, "-c", _FULL, str(path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert record(1 << 24) == "written\n"  # the control
    size = path.stat().st_size
    path.unlink()
    for limit in (10, size // 2, size - 1):  # the header, the pictures, the index at the end
        said = record(limit)
        assert "cannot be written (file too large)" in said
        assert said.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


EVEN = [i / 25 for i in range(40)]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    "times",
    [
        [0.0, 0.04, 0.5, 0.5, 2.0],  # the same time twice: the second comes a tick later
        [*EVEN[:39], 3.0],  # a gap before the last, which the encoder holds back
        [*EVEN[:38], 3.0, 3.04],
        EVEN,
        [0.0],
    ],
)
def test_uneven_times_are_kept(tmp_path, times, at_once):
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, 256, 64, 25, at_once=at_once) as recorder:
        for i, seconds in enumerate(times):
            recorder.write(_bars(shift=i), seconds)
    frames, _ = _frames(path)
    assert [f.time for f in frames] == pytest.approx(times, abs=1e-3)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(times[-1] + 0.04, abs=2e-3)


def test_no_picture_no_file(tmp_path):
    with Mp4Writer(tmp_path / "a.mp4", 256, 64, 25):
        pass
    assert list(tmp_path.iterdir()) == []


_AT_ONCE = """
import os, resource, sys
sys.dont_write_bytecode = True
from pathlib import Path
import numpy as np
from rtseg.base.errors import OutputError
from rtseg.publish.mp4_writer import Mp4Writer
path, limit, kill = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
try:
    with Mp4Writer(path, 64, 48, 25, at_once=True) as recorder:
        for i in range(100):
            if i == kill:
                os.kill(os.getpid(), 9)
            recorder.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    print("written")
except OutputError as e:
    print(e)
"""


def _at_once(path, limit: int = 1 << 24, kill: int = -1) -> str:
    command = [sys.executable, "-c", _AT_ONCE, str(path), str(limit), str(kill)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_what_lies_there_at_once_plays_whenever_its_writer_ends(tmp_path):
    """Killed, or on a full disk: in the pictures, in the index at the end, and just before its last byte."""
    path = tmp_path / "10:20.mp4"  # a colon, as in a time, is no protocol
    assert _at_once(path) == "written\n"
    frames, _ = _frames(path)
    assert len(frames) == 100 and frames[0].time == 0  # the control: all of it, from the beginning
    size = path.stat().st_size
    path.unlink()
    assert _at_once(path, kill=80) == ""
    assert 55 <= len(_frames(path)[0]) <= 80
    path.unlink()
    for limit, least in ((size // 2, 30), (size - 1000, 85), (size - 1, 85)):
        assert "cannot be written (file too large)" in _at_once(path, limit)
        frames, _ = _frames(path)
        assert least <= len(frames) <= 100 and [f.time for f in frames[:3]] == [0, 0.04, 0.08]
        path.unlink()


def test_what_lies_there_at_once_is_kept_when_it_is_given_up_and_not_without_a_picture(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(RuntimeError, match="mine"), Mp4Writer(path, 256, 64, 25, at_once=True) as recorder:
        for _ in range(50):
            recorder.write(_bars())
        raise RuntimeError("mine")
    assert 25 <= len(_frames(path)[0]) <= 50
    path.unlink()
    Mp4Writer(path, 256, 64, 25, at_once=True).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(1)])
def test_pixels_that_are_not_square_are_said(tmp_path, aspect):
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, 256, 64, 25, sample_aspect=aspect) as recorder:
        recorder.write(_bars())
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
