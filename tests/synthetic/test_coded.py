"""A picture's number is read wherever the picture has been, or not at all: never wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.base.types import ImageU8, now_ns
from rtseg.synthetic.coded import CodedSource, plate_box, read, read_stamps, stamp

SIZES = ((160, 120), (320, 240), (640, 360), (1280, 720), (1920, 1080))


def picture(width: int, height: int, number: int) -> ImageU8:
    image_hwc = CodedSource(f"coded:?width={width}&height={height}").render(3)
    stamp(image_hwc, number)
    return image_hwc


def jpeg(image_hwc: ImageU8, quality: int = 50) -> ImageU8:
    coded = cv2.imencode(".jpg", image_hwc, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def scaled(image_hwc: ImageU8, x: float, y: float) -> ImageU8:
    how = cv2.INTER_AREA if x < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_hwc, None, fx=x, fy=y, interpolation=how), np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("number", [0, 1, 2**31 + 5, 2**32 - 1])
def test_a_number_comes_back(width: int, height: int, number: int) -> None:
    image_hwc = picture(width, height, number)
    assert read(image_hwc) == number
    assert read(image_hwc[..., ::-1]) == number  # not contiguous


def test_through_scaling_and_jpeg() -> None:
    rng = np.random.default_rng(1)
    for width, height in SIZES[:-1]:
        for k in range(12):
            number = int(rng.integers(2**32))
            x = rng.uniform(0.5, 2) if k else 0.5
            y = x * rng.uniform(0.9, 1.1) if k % 3 == 0 and x > 0.6 else x
            assert read(jpeg(scaled(picture(width, height, number), x, y))) == number, (width, x, y)


def test_through_cropping_and_drawing_elsewhere() -> None:
    image_hwc = picture(1280, 720, 99)
    height, width = plate_box(720, 1280)
    image_hwc[height + 5 :, ::3] = 0
    cv2.rectangle(image_hwc, (width + 10, 5), (1270, 700), (0, 255, 90), 7)
    assert read(image_hwc) == 99
    assert read(image_hwc[: height + 40, : width + 40]) == 99
    moved_hwc = np.roll(image_hwc, (531, 777), axis=(0, 1))  # as if a border had been added
    assert read(moved_hwc) == 99
    assert read(image_hwc[:, width // 2 :]) is None  # half a plate says nothing
    assert read(image_hwc[:, ::-1]) is None and read(image_hwc[::-1]) is None


def test_through_h264(tmp_path: Path) -> None:
    source, path = CodedSource("coded:?width=640&height=360&seconds=0.6"), tmp_path / "x.mp4"
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=25, options={"crf": "32", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for frame in source:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image_hwc, "rgb24")))
        box.mux(stream.encode(None))
    with av.open(str(path)) as box:
        assert [read(frame.to_ndarray(format="rgb24")) for frame in box.decode(video=0)] == list(range(15))


@pytest.mark.slow
def test_no_wrong_number_of_10000_wrong_pictures() -> None:
    rng = np.random.default_rng(2)
    height, width = plate_box(120, 160)
    block = height // 6
    clean_hwc, other_hwc = (picture(160, 120, n)[: height + 2] for n in (123456, 123457))
    for k in range(10_000):
        kind = k % 4
        if kind == 0:
            wrong_hwc = rng.integers(0, 256, (26, 120, 3), dtype=np.uint8)
        elif kind == 1:  # plain bits, of any pattern, between sound bars
            wrong_hwc = clean_hwc.copy()
            bits = rng.integers(0, 2, (4, 16), dtype=np.uint8) * 255 if k > 7 else np.full((4, 16), 255 * (k // 4))
            wrong_hwc[block:-block, 7 * block : 23 * block][: 4 * block] = np.kron(bits, np.ones((block, block)))[
                ..., None
            ]
        elif kind == 2:  # some blocks of a sound plate are painted over
            wrong_hwc = clean_hwc.copy()
            for _ in range(rng.integers(1, 6)):
                x, y = rng.integers(0, width), rng.integers(0, height)
                wrong_hwc[y : y + block, x : x + block] = rng.integers(0, 2) * 255
        else:  # two pictures in one, as an interlaced or a blended one
            cut = rng.integers(block, height - block)
            wrong_hwc = np.concatenate([clean_hwc[:cut], other_hwc[cut:]])
            if k % 8 == 3:
                wrong_hwc = cv2.addWeighted(clean_hwc, rng.uniform(0.3, 0.7), other_hwc, 0.5, 0).astype(np.uint8)
        assert read(np.ascontiguousarray(wrong_hwc)) in (None, *((123456, 123457) if kind >= 2 else ())), k


def fastest_ns(act: Callable[[], object]) -> int:
    times = []
    for _ in range(9):
        start_ns = now_ns()
        act()
        times.append(now_ns() - start_ns)
    return min(times)


def test_reading_costs_next_to_nothing() -> None:
    """Of what it takes to code the picture as JPEG: about 0.02, and 0.2 where noise looks like a plate all over."""
    noise_hwc = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    picture_hwc = picture(1280, 720, 5)
    coding_ns = fastest_ns(lambda: cv2.imencode(".jpg", noise_hwc))
    assert fastest_ns(lambda: read(picture_hwc)) < 0.2 * coding_ns
    assert fastest_ns(lambda: read(noise_hwc)) < coding_ns


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (720, 2, 3), (3, 4000, 3)])
def test_pictures_of_no_size_have_no_number(shape: tuple[int, ...]) -> None:
    for value in (0, 255):
        assert read(np.full(shape, value, np.uint8)) is None


def test_what_cannot_be_stamped_is_refused() -> None:
    for number in (-1, 2**32):
        with pytest.raises(ValueError, match="expected 0 to"):
            stamp(np.zeros((120, 160, 3), np.uint8), number)
    with pytest.raises(SourceError, match="119x48: too small.*expected at least 120x48"):
        stamp(np.zeros((48, 119, 3), np.uint8), 1)


def test_the_source_numbers_its_pictures() -> None:
    source = CodedSource("coded:?seconds=0.2&width=160&height=120&fps=50")
    frames = list(source)
    assert [read(f.image_hwc) for f in frames] == [f.seq for f in frames] == list(range(10))
    assert frames[3].time_base == Fraction(1, 50) and source.frame_count == 10
    assert np.array_equal(frames[4].image_hwc, list(source)[4].image_hwc)


def test_with_stamps_it_is_a_camera_with_a_clock(tmp_path: Path) -> None:
    path = tmp_path / "stamps"
    source = CodedSource(f"coded:?seconds=0.3&width=160&height=120&fps=50&stamps={path}")
    got = []
    for frame in source:
        got.append((read_stamps(path)[frame.seq], frame.captured_ns, now_ns()))
        if frame.seq == 4:
            assert (read_stamps(path)[5:] == 0).all()
            time.sleep(0.05)  # who asks late gets the next at once, and its stamp says when that was
    stamps = [released for released, _, _ in got]
    assert all(released <= captured <= seen for released, captured, seen in got)
    assert len(got) == 15 and (stamps[-1] - stamps[0]) / 1e9 > 0.26  # 14 periods of 20 ms; a busy machine takes longer
    assert stamps[5] - stamps[4] > 49e6


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("fps=0", "fps=0; expected a number from 0 to 1000, above 0"),
        ("fps=x", "expected a number"),
        ("width=100", "expected a whole number from 120"),
        ("heihgt=100", "did you mean 'height'"),
        ("width=120&height=50&seconds=1/0", "seconds='1/0'"),
        ("width=7680&height=48", None),
        ("stamps=/nowhere/at/all", "No such file or directory; expected a file that can be written"),
    ],
)
def test_a_bad_uri_is_one_line(query: str, said: str | None) -> None:
    if said is None:
        assert read(CodedSource(f"coded:?{query}").render(7)) == 7
        return
    with pytest.raises(SourceError, match=said) as error:
        next(iter(CodedSource(f"coded:?seconds=1&{query}")))
    assert "\n" not in str(error.value)
