"""Frames read in any order are those of `open_source`; what cannot be read so is refused in one line."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.base.types import Frame
from rtseg.grab import open_source
from rtseg.grab.random_access import VideoFrames, open_frames

COUNT = 60


def write_clip(path: Path, codec: str = "libx264", bframes: int = 3, group: int = 20, is_open: bool = True) -> Path:
    """A clip in which each picture differs from all others: noise that moves. `is_open`: groups need those before."""
    count = COUNT
    generator = np.random.default_rng(3)
    scene_hwc = cv2_smooth(generator.integers(0, 255, (96, 160 + 4 * count, 3), dtype=np.uint8))
    with av.open(str(path), "w") as container:
        options = {"g": str(group), "bf": str(bframes), "preset": "veryfast"}
        options |= {"x264-params": f"open-gop={int(is_open)}:scenecut=0"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for at in range(count):
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(scene_hwc[:, 4 * at : 4 * at + 160]), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def cv2_smooth(image_hwc: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.GaussianBlur(image_hwc, (0, 0), 3))


def same(one: Frame, other: Frame) -> bool:
    about = [(f.seq, f.pts, f.time_base, f.color, f.pixfmt, f.interlaced, f.sample_aspect) for f in (one, other)]
    return about[0] == about[1] and bool((one.image_hwc == other.image_hwc).all())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.mov"])
def test_frames_in_any_order_are_those_of_the_source(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name)
    in_order = list(open_source(path))
    frames = open_frames(path)
    assert frames.count == len(in_order) == COUNT
    numbers = random.Random(1).sample(range(COUNT), COUNT) + list(range(COUNT)) + list(range(COUNT - 1, -1, -1))
    for number in numbers:
        assert same(frames.frame(number), in_order[number])
        assert frames.number_at(in_order[number].seconds) == number
    assert not same(frames.frame(4), in_order[5])  # negative control: neighbours differ


def test_only_a_group_is_decoded_for_a_seek_and_nothing_for_a_step_back(tmp_path: Path) -> None:
    frames = open_frames(write_clip(tmp_path / "clip.mp4", group=20))
    assert isinstance(frames, VideoFrames)
    fed: list[int] = []
    feed = frames._decoder.feed
    frames._decoder.feed = lambda *args: fed.append(1) or feed(*args)  # type: ignore[method-assign,func-returns-value]
    frames.frame(39)
    assert 8 < len(fed) <= 20 + 4  # packets of its own group, and what B-frames delay
    fed.clear()
    for number in range(38, 38 - 8, -1):
        frames.frame(number)
    assert not fed
    frames.frame(40)
    assert len(fed) <= 5  # goes on from where it was


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.grab.random_access.CACHED_BYTES", 0)
    frames = open_frames(write_clip(tmp_path / "clip.mp4"))
    assert isinstance(frames, VideoFrames)
    for number in range(COUNT):
        frames.frame(number)
    assert len(frames._kept) == 8


def test_two_readers_share_one_index(tmp_path: Path) -> None:
    frames = open_frames(write_clip(tmp_path / "clip.mp4"))
    other = frames.again()
    assert other.session == frames.session
    assert same(other.frame(33), frames.frame(33))


def test_images_and_drawn_scenes_have_frames_in_any_order(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.full((20, 30, 3), number * 50, np.uint8)).save(tmp_path / f"{number}.png")
    for uri in (str(tmp_path), "synthetic:laparoscopy?seconds=0.12&seed=7&width=96&height=64&fps=25"):
        in_order = list(open_source(uri))
        frames = open_frames(uri)
        assert frames.count == 3
        assert all((frames.frame(n).image_hwc == in_order[n].image_hwc).all() for n in (2, 0, 1))
        assert frames.number_at(frames.seconds(2)) == 2


def test_damaged_frames_are_named_and_the_next_group_is_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", is_open=False)
    in_order = list(open_source(path))
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][25]
        place, size = packet.pos or 0, packet.size
    data = bytearray(path.read_bytes())
    data[place + 8 : place + size] = bytes(size - 8)
    path.write_bytes(data)
    frames = open_frames(path)
    with pytest.raises(SourceError, match="frame 25 is damaged"):
        frames.frame(25)
    assert same(frames.frame(45), in_order[45])
    assert same(frames.frame(3), in_order[3])


def test_what_cannot_be_read_so_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "clip.mp4"
    text.write_text("no video")
    avi = write_clip(tmp_path / "clip.avi", bframes=0)
    for uri, why in ((text, "not a readable video"), (avi, "no timestamps"), (tmp_path / "none.mp4", "no such file")):
        with pytest.raises(SourceError, match=why) as found:
            open_frames(uri)
        assert "\n" not in str(found.value)
    frames = open_frames(write_clip(tmp_path / "good.mp4"))
    for number in (-1, COUNT):
        with pytest.raises(SourceError, match=f"no frame {number}; expected 0 to {COUNT - 1}"):
            frames.frame(number)
