"""Pixels that are not square: what a source says of them goes with its pictures to every display and file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.base.types import Frame
from rtseg.grab import open_source
from rtseg.live.ipc.packing import pack_frame_id, unpack_frame_id
from rtseg.publish import Mp4Writer, draw_overlay
from rtseg.publish.recording import Recording
from rtseg.publish.viewer import displayed
from rtseg.publish.wire import aspect_of, decode, encode_overlay, encode_video

PAL = Fraction(64, 45)  # 720x576 shown at 16:9


def video(path: Path, aspect: Fraction | None, rotation: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        codec = "mpeg2video" if path.suffix == ".mpg" else "libx264"
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 72, 58, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((58, 72, 3), 99, np.uint8), "rgb24")))
        container.mux(stream.encode())
    return path


def shown_at(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].sample_aspect_ratio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_video_says_how_wide_its_pixels_are(tmp_path: Path, suffix: str) -> None:
    source = open_source(video(tmp_path / f"a{suffix}", PAL))
    assert source.sample_aspect == PAL
    assert {frame.sample_aspect for frame in source} == {PAL}
    for aspect in (None, Fraction(1), Fraction(5000)):  # what is no aspect is damage
        assert open_source(video(tmp_path / f"b{suffix}", aspect)).sample_aspect == 1


def test_pictures_files_have_square_pixels(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", dpi=(72, 144))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", dpi=(72, 144))
    for name in ("a.png", "a.jpg"):
        assert open_source(tmp_path / name).sample_aspect == 1


def frame(aspect: Fraction) -> Frame:
    return Frame(np.full((58, 72, 3), 99, np.uint8), 0, "s", sample_aspect=aspect)


@pytest.mark.parametrize("aspect", [PAL, Fraction(1), Fraction(8, 9)])
def test_it_goes_through_rings_over_the_wire_and_into_recordings(tmp_path: Path, aspect: Fraction) -> None:
    there = unpack_frame_id(pack_frame_id(frame(aspect).id))
    assert there.sample_aspect == aspect
    drawn = draw_overlay(frame(aspect), None)
    message = decode(encode_overlay(frame(aspect), drawn, "demo"))
    assert aspect_of(message.header) == aspect
    assert ("sample_aspect" in message.header) == (aspect != 1)
    assert aspect_of(decode(encode_video(frame(aspect), "demo")).header) == aspect
    about = {"stream": "demo", "engine": "none", "config_hash": "c", "recipe_hash": "e", "fps": 25.0}
    recording = Recording(tmp_path / "run", **about)
    for seq in range(3):
        made = decode(encode_overlay(replace(frame(aspect), seq=seq), drawn, "demo"))
        recording.show({**made.header, "captured_ns": 10**15 + seq * 40_000_000}, made.image_hwc())
    recording.close()
    assert (shown_at(recording.folder / "video-001.mp4") or 1) == aspect
    with Mp4Writer(tmp_path / "a.mp4", 72, 58, 25, sample_aspect=aspect) as recorder:
        recorder.write(frame(aspect).image_hwc)
    assert (shown_at(tmp_path / "a.mp4") or 1) == aspect


def test_another_aspect_begins_another_file(tmp_path: Path) -> None:
    about = {"stream": "demo", "engine": "none", "config_hash": "c", "recipe_hash": "e", "fps": 25.0}
    recording = Recording(tmp_path / "run", **about)
    for seq, aspect in enumerate((PAL, PAL, Fraction(16, 15))):
        made = decode(encode_overlay(frame(aspect), draw_overlay(frame(aspect), None), "demo"))
        recording.show({**made.header, "captured_ns": 10**15 + seq * 40_000_000}, made.image_hwc())
    recording.close()
    assert shown_at(recording.folder / "video-001.mp4") == PAL
    assert shown_at(recording.folder / "video-002.mp4") == Fraction(16, 15)


def test_a_window_shows_square_pixels() -> None:
    image_hwc = frame(PAL).image_hwc
    assert displayed(image_hwc, PAL).shape == (58, 102, 3)
    assert displayed(image_hwc, Fraction(1, 2)).shape == (116, 72, 3)
    assert displayed(image_hwc, Fraction(1)) is image_hwc


@pytest.mark.parametrize("said", [[0, 1], [1, 0], [-1, 1], [10**9, 1]])
def test_an_aspect_that_makes_no_sense_is_none(said: list[int]) -> None:
    assert aspect_of({"sample_aspect": said}) == 1


def test_files_of_different_shapes_are_no_one_recording(tmp_path: Path) -> None:
    parts = [video(tmp_path / "a.mp4", PAL), video(tmp_path / "b.mp4", PAL)]
    assert open_source(parts).sample_aspect == PAL
    with pytest.raises(SourceError, match=r"c\.mp4: 72x58 at 25 .*, but .*a\.mp4 is 72x58 with pixels of 64:45"):
        open_source([*parts, video(tmp_path / "c.mp4", None)])
