"""Recordings: colours, orientation, times and failures, on media made here with known content."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from rtseg.base.errors import SourceError
from rtseg.base.types import Color, now_ns
from rtseg.grab import open_source
from rtseg.grab.decode.color import FULL, SCALING, SWSCALE, to_rgb

WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}  # red, blue
NUMBERS = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9, "unmarked": 2}
COLOURS = ((200, 30, 40), (20, 160, 60), (60, 70, 220), (255, 255, 255), (0, 0, 0), (128, 128, 128))
WIDTH, HEIGHT = 64, 48


def coded(rgb: Sequence[int], matrix: str, full: bool, bits: int) -> tuple[int, int, int]:
    """Y, Cb, Cr by the textbook."""
    red, green, blue = (c / 255 for c in rgb)
    kr, kb = WEIGHTS[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    if full:
        top = 2**bits - 1
        return round(y * top), round(cb * top + 2 ** (bits - 1)), round(cr * top + 2 ** (bits - 1))
    unit = 2 ** (bits - 8)
    return round((16 + 219 * y) * unit), round((128 + 224 * cb) * unit), round((128 + 224 * cr) * unit)


def flat(values: Sequence[int], pixfmt: str, width: int = WIDTH, height: int = HEIGHT) -> av.VideoFrame:
    """A picture of one colour, given plane by plane."""
    picture = av.VideoFrame(width, height, pixfmt)
    kind = "<u2" if pixfmt.endswith("le") else "u1"
    for plane, value in zip(picture.planes, values, strict=False):
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind).tobytes())
    return picture


def write(path: Path, pictures: Sequence[av.VideoFrame], codec: str = "ffv1", **settings: Any) -> Path:
    """Encode pictures, one a 25th of a second unless they have pts in ms; `settings` are the codec context's."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, pictures[0].format.name
        for name, value in settings.items():
            setattr(stream if name == "options" else stream.codec_context, name, value)
        for index, picture in enumerate(pictures):
            if picture.pts is None:
                picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def moving(count: int, width: int = 160, height: int = 120) -> list[av.VideoFrame]:
    noise_hwc = np.random.default_rng(0).integers(0, 256, (height, width + 2 * count, 3), np.uint8)
    views = (np.ascontiguousarray(noise_hwc[:, 2 * i : 2 * i + width]) for i in range(count))
    return [av.VideoFrame.from_ndarray(view, "rgb24").reformat(format="yuv420p") for view in views]


def error_by(pixels_hwc: np.ndarray, rgb: Sequence[int]) -> int:
    return int(np.abs(pixels_hwc.astype(int) - np.array(rgb)).max())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("pixfmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_colours_are_what_was_coded(tmp_path: Path, pixfmt: str, matrix: str, full: bool) -> None:
    bits = 10 if "10" in pixfmt else 8
    pictures = [flat(coded(rgb, matrix, full, bits), pixfmt) for rgb in COLOURS]
    path = write(tmp_path / "a.mkv", pictures, colorspace=NUMBERS[matrix], color_range=2 if full else 1)
    frames = list(open_source(path))
    assert frames[0].color == Color(matrix, "full" if full else "limited")
    for frame, rgb in zip(frames, COLOURS, strict=True):
        assert error_by(frame.image_hwc, rgb) <= 1
        assert frame.image_hwc.dtype == np.uint8 and frame.image_hwc.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(("marked", "range_"), [("smpte170m", 1), ("bt2020nc", 1), ("bt709", 2)])
def test_a_wrong_mark_shows(tmp_path: Path, marked: str, range_: int) -> None:
    """The negative control: BT.709 limited that claims to be something else comes out wrong."""
    picture = flat(coded(COLOURS[0], "bt709", False, 8), "yuv420p")
    frame = next(
        iter(open_source(write(tmp_path / "a.mkv", [picture], colorspace=NUMBERS[marked], color_range=range_)))
    )
    assert error_by(frame.image_hwc, COLOURS[0]) > 5


@pytest.mark.parametrize(("height", "matrix"), [(48, "smpte170m"), (718, "smpte170m"), (720, "bt709")])
def test_an_unmarked_video_is_601_when_small_and_709_when_large(tmp_path: Path, height: int, matrix: str) -> None:
    picture = flat(coded(COLOURS[0], matrix, False, 8), "yuv420p", 32, height)
    (frame,) = open_source(write(tmp_path / "a.mkv", [picture]))
    assert frame.color == Color(matrix, "limited")
    assert error_by(frame.image_hwc, COLOURS[0]) <= 1


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mjpeg")])
def test_yuvj_is_full_range(tmp_path: Path, name: str, codec: str) -> None:
    pictures = [flat(coded(rgb, "smpte170m", True, 8), "yuvj420p") for rgb in COLOURS]
    frames = list(open_source(write(tmp_path / name, pictures, codec, options={"qmin": "1", "qmax": "1"})))
    assert frames[0].color.range == "full"
    assert all(error_by(f.image_hwc, rgb) <= 3 for f, rgb in zip(frames, COLOURS, strict=True))


@pytest.mark.parametrize(("pixfmt", "bits"), [("gray", 8), ("gray10le", 10)])
@pytest.mark.parametrize(("range_", "name"), [(1, "limited"), (2, "full"), (0, "full")])
def test_grey_is_grey_in_its_range(tmp_path: Path, pixfmt: str, bits: int, range_: int, name: str) -> None:
    levels = (0, 60, 128, 255)
    pictures = [flat(coded((v, v, v), "bt709", name == "full", bits)[:1], pixfmt) for v in levels]
    frames = list(open_source(write(tmp_path / "a.mkv", pictures, color_range=range_)))
    assert frames[0].color.range == name
    assert all(error_by(f.image_hwc, (v, v, v)) <= 1 for f, v in zip(frames, levels, strict=True))


@pytest.mark.parametrize("pixfmt", ["yuv420p", "nv12", "yuv422p10le", "yuv444p", "gray"])
def test_through_planes_the_pixels_are_the_same(pixfmt: str) -> None:
    picture = av.VideoFrame(322, 242, pixfmt)
    noise = np.random.default_rng(0)
    for plane in picture.planes:
        if "10" in pixfmt:
            plane.update(noise.integers(0, 1024, plane.buffer_size // 2, np.uint16).tobytes())
        else:
            plane.update(noise.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    direct = VideoReformatter().reformat(
        picture, format="rgb24", interpolation=SCALING, threads=1, src_colorspace=SWSCALE["bt709"],
        dst_colorspace=SWSCALE["bt709"], src_color_range=FULL, dst_color_range=FULL,
    )  # fmt: skip
    image_hwc = to_rgb(picture, Color("bt709", "full"), VideoReformatter())
    np.testing.assert_array_equal(image_hwc, direct.to_ndarray())


def test_rgb_video_is_passed_through(tmp_path: Path) -> None:
    image_hwc = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(image_hwc, "rgb24")
    (frame,) = open_source(write(tmp_path / "a.mkv", [picture], "libx264rgb", options={"qp": "0"}))
    np.testing.assert_array_equal(frame.image_hwc, image_hwc)
    assert frame.color.matrix == "rgb" and frame.color.range == "full"


def test_primaries_and_transfer_are_carried(tmp_path: Path) -> None:
    (frame,) = open_source(write(tmp_path / "a.mkv", [flat((90, 128, 128), "yuv420p")], color_primaries=1, color_trc=1))
    assert (frame.color.primaries, frame.color.transfer) == ("bt709", "bt709")


def test_an_unknown_matrix_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", [flat((90, 128, 128), "yuv444p")], colorspace=8)
    with pytest.raises(SourceError, match=r"a\.mkv: colour matrix 8 .* not supported"):
        list(open_source(path))


# Where the picture's red top-left and green top-right corners go, for a turn to the left in degrees, and mirrors.
TURNS = [
    (0, False, (0, 0), (0, -1)),
    (90, False, (-1, 0), (0, 0)),
    (-90, False, (0, -1), (-1, -1)),
    (180, False, (-1, -1), (-1, 0)),
    (0, True, (0, -1), (0, 0)),
]


@pytest.mark.parametrize(("degrees", "mirrored", "red_at", "green_at"), TURNS)
def test_the_display_matrix_is_obeyed(
    tmp_path: Path, degrees: int, mirrored: bool, red_at: tuple[int, int], green_at: tuple[int, int]
) -> None:
    image_hwc = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image_hwc[:16, :16], image_hwc[:16, -16:] = (255, 0, 0), (0, 255, 0)
    picture = av.VideoFrame.from_ndarray(image_hwc, "rgb24").reformat(format="yuv444p")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.set_display_rotation(degrees, hflip=mirrored)
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    source = open_source(tmp_path / "a.mp4")
    (frame,) = source
    assert (source.width, source.height) == ((HEIGHT, WIDTH) if abs(degrees) == 90 else (WIDTH, HEIGHT))
    assert (frame.width, frame.height) == (source.width, source.height)
    assert frame.image_hwc.flags.c_contiguous
    assert frame.image_hwc[red_at].argmax() == 0 and frame.image_hwc[red_at].max() > 200
    assert frame.image_hwc[green_at].argmax() == 1 and frame.image_hwc[green_at].max() > 200


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times_ms = [0, 40, 47, 200, 1000, 1001]
    pictures = moving(len(times_ms))
    for picture, ms in zip(pictures, times_ms, strict=True):
        picture.pts, picture.time_base = ms, Fraction(1, 1000)
    path = write(tmp_path / "a.mkv", pictures, time_base=Fraction(1, 1000))
    frames = list(open_source(path))
    assert [f.seq for f in frames] == list(range(6))
    assert [f.pts * f.time_base for f in frames] == [Fraction(ms, 1000) for ms in times_ms]


def test_a_bare_stream_is_counted(tmp_path: Path) -> None:
    frames = list(open_source(write(tmp_path / "a.h264", moving(8), "libx264", options={"bf": "2"})))
    assert len(frames) == 8
    assert np.allclose(np.diff([f.seconds for f in frames]), 1 / 25)


@pytest.mark.parametrize("flag", [False, True])
def test_interlacing_is_carried(tmp_path: Path, flag: bool) -> None:
    options = {"x264-params": "interlaced=1"} if flag else {}
    frames = list(open_source(write(tmp_path / "a.mp4", moving(3), "libx264", options=options)))
    assert [f.interlaced for f in frames] == [flag] * 3


def test_identity_stamps_and_a_second_pass(tmp_path: Path) -> None:
    before = now_ns()
    source = open_source(write(tmp_path / "a.mp4", moving(10), "libx264"))
    first, second = list(source), list(source)
    assert (source.fps, source.frame_count, source.uri) == (25, 10, str(tmp_path / "a.mp4"))
    assert [f.seq for f in first] == [f.seq for f in second] == list(range(10))
    assert {f.session for f in first + second} == {source.session}
    stamps = [f.captured_ns for f in first + second]
    assert before < stamps[0] and stamps == sorted(set(stamps))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image_hwc, b.image_hwc)
    assert not np.shares_memory(first[0].image_hwc, first[1].image_hwc)


def test_pictures_are_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    """Reference cycles would hold a hundred big pictures until the collector happens to run."""
    source = open_source(write(tmp_path / "a.mp4", moving(60), "libx264"))
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in source) == 60
        assert gc.collect() < 30
    finally:
        gc.enable()


def test_close_ends_the_iteration(tmp_path: Path) -> None:
    with open_source(write(tmp_path / "a.mp4", moving(10), "libx264")) as source:
        frames = iter(source)
        next(frames)
    assert list(frames) == []


def test_a_rate_for_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a video has its own times"):
        open_source(write(tmp_path / "a.mp4", moving(2), "libx264"), fps=10)


@pytest.mark.parametrize("content", [b"", b"this is no video " * 50, bytes(5000)])
def test_a_file_that_is_no_video_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a readable video") as error:
        open_source(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="has no video stream"):
        open_source(path)


def _cut(coded_bytes: bytes) -> bytes:
    return coded_bytes[: int(len(coded_bytes) * 0.6)]


def _scratched(coded_bytes: bytes) -> bytes:
    middle = len(coded_bytes) // 2
    return coded_bytes[:middle] + np.random.default_rng(1).bytes(400) + coded_bytes[middle + 400 :]


@pytest.mark.parametrize("harm", [_cut, _scratched])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_a_broken_file_gives_its_good_frames_then_says_where(tmp_path: Path, name: str, codec: str, harm: Any) -> None:
    whole = tmp_path / f"whole{name[1:]}"
    with av.open(str(whole), "w", options={"movflags": "faststart"} if name == "a.mp4" else {}) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index, picture in enumerate(moving(60)):
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    expected = [f.image_hwc for f in open_source(whole)]
    assert len(expected) == 60
    broken = tmp_path / name
    broken.write_bytes(harm(whole.read_bytes()))
    good = []
    with pytest.raises(SourceError) as error:
        good.extend(f.image_hwc for f in open_source(broken, damaged="stop"))
    assert 5 <= len(good) < 60
    assert f"{broken}: frame {len(good)}: " in str(error.value)
    assert "\n" not in str(error.value)
    for a, b in zip(good, expected, strict=False):
        np.testing.assert_array_equal(a, b)


def test_a_recording_that_starts_between_key_frames_begins_at_the_first_good_one(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.ts", moving(40), "libx264", options={"g": "10", "bf": "0"})
    expected = [f.image_hwc for f in open_source(path)]
    packets = path.read_bytes()
    tail = tmp_path / "tail.ts"
    tail.write_bytes(packets[: 188 * 3] + packets[188 * (len(packets) // 188 // 3) :])
    got = [f.image_hwc for f in open_source(tail)]
    assert 10 <= len(got) < 40
    for a, b in zip(reversed(got), reversed(expected), strict=False):
        np.testing.assert_array_equal(a, b)
