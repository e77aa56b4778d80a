"""Damaged recordings: no frame that differs from the clean file's is shown, and nothing is missing without a word."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bench.damage import CASES, PACKET, cut, flip, lose_many, lose_one, measured
from rtseg.base.errors import SourceError
from rtseg.base.source import Source
from rtseg.base.types import ImageU8
from rtseg.grab import open_source
from rtseg.grab.decode.slice_check import SliceCheck, _ProbeDecoder

COUNT, GROUP = 36, 9
Images = dict[float, ImageU8]


def recording(path: Path, codec: str = "libx264", *, sound: bool = False, **options: str) -> Path:
    """COUNT moving pictures with B-frames, a key frame every GROUP; with or without a track of sound."""
    noise_hwc = np.random.default_rng(0).integers(0, 256, (120, 160 + 2 * COUNT, 3), np.uint8)
    with av.open(str(path), "w") as container:
        settings = {"g": str(GROUP), "bf": "2", "qmin": "4", "qmax": "9", **options}
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = 160, 120, "yuv420p", 1
        heard = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for index in range(COUNT):
            view_hwc = np.ascontiguousarray(noise_hwc[:, 2 * index : 2 * index + 160])
            picture = av.VideoFrame.from_ndarray(view_hwc, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
            if heard is not None:
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.float32), "fltp", "mono")
                samples.rate, samples.pts = 8000, 320 * index
                container.mux(heard.encode(samples))
        container.mux(stream.encode())
        if heard is not None:
            container.mux(heard.encode())
    return path


def seen(source: Source) -> Images:
    return {round(frame.seconds, 3): frame.image_hwc for frame in source}


def said(source: Source) -> list[str]:
    """What the account says, but for colours, of which these files say nothing."""
    return [line for line in source.account.lines() if "colours" not in line and "rate" not in line]


def same(images: Images, clean: Images) -> None:
    for time, image_hwc in images.items():
        np.testing.assert_array_equal(image_hwc, clean[time], err_msg=f"at {time} s")


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_after_any_lost_packet_what_is_shown_is_whole_and_what_is_missing_is_said(tmp_path: Path, codec: str) -> None:
    whole = recording(tmp_path / "whole.ts", codec)
    data, torn = whole.read_bytes(), tmp_path / "torn.ts"
    source = open_source(whole)
    clean = seen(source)
    assert len(clean) == COUNT == source.account.count and said(source) == []
    video = [p for p in range(len(data) // PACKET) if data[PACKET * p + 1] & 31 == 1 and data[PACKET * p + 2] == 0]
    for place in video[:: max(1, len(video) // 40)]:
        torn.write_bytes(data[: PACKET * place] + data[PACKET * (place + 1) :])
        source = open_source(torn)
        images = seen(source)
        same(images, clean)
        account = source.account
        assert account.shown == len(images) == account.count
        assert account.damaged or account.leading, f"packet {place}: nothing was said"
        assert COUNT - len(images) <= GROUP + 2, f"packet {place}: {len(images)} frames are left"


def test_the_account_says_where_the_gap_is_and_numbers_and_times_stay_honest(tmp_path: Path) -> None:
    data = recording(tmp_path / "whole.ts").read_bytes()
    clean = list(open_source(tmp_path / "whole.ts"))
    torn = tmp_path / "torn.ts"
    place = len(data) // PACKET // 2
    torn.write_bytes(data[: PACKET * place] + data[PACKET * (place + 1) :])
    source = open_source(torn)
    frames = list(source)
    (gap,) = source.account.gaps
    assert [f.seq for f in frames] == list(range(len(frames)))
    assert gap.lost == len(clean) - len(frames) == source.account.damaged and "missing" in gap.why
    assert gap.seconds == frames[gap.before].seconds > frames[gap.before - 1].seconds + 1.5 / 25
    assert any(f"before frame {gap.before}" in line for line in source.account.lines())


def test_stop_hands_on_what_is_whole_and_names_the_place(tmp_path: Path) -> None:
    data = recording(tmp_path / "whole.ts").read_bytes()
    clean, torn = seen(open_source(tmp_path / "whole.ts")), tmp_path / "torn.ts"
    place = len(data) // PACKET // 2
    torn.write_bytes(data[: PACKET * place] + data[PACKET * (place + 1) :])
    source = open_source(torn, damaged="stop")
    images: Images = {}
    with pytest.raises(SourceError) as error:
        for frame in source:
            images[round(frame.seconds, 3)] = frame.image_hwc
    same(images, clean)
    assert len(images) >= GROUP and f"{torn}: frame {len(images)}: packets of the stream are missing" in str(
        error.value
    )
    assert source.account.ended == "packets of the stream are missing"
    assert len(seen(open_source(tmp_path / "whole.ts", damaged="stop"))) == COUNT


def test_frames_before_the_first_key_frame_are_counted_as_leading(tmp_path: Path) -> None:
    data = recording(tmp_path / "whole.ts", bf="0").read_bytes()
    tail = tmp_path / "tail.ts"
    with av.open(str(tmp_path / "whole.ts")) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    tail.write_bytes(data[: 3 * PACKET] + data[starts[4] :])
    source = open_source(tail)
    frames = list(source)
    assert (source.account.leading, source.account.damaged, len(frames)) == (GROUP - 4, 0, COUNT - GROUP)
    assert source.account.start_s == frames[0].seconds and source.account.count == COUNT - GROUP
    assert said(source) == [f"skipped {GROUP - 4} leading frames, which precede the first key frame"]


def test_a_decoder_that_ends_takes_nothing_from_another(tmp_path: Path) -> None:
    """PyAV once gave both decoders one table of small numbers: where one ended, good frames of the other were lost."""
    path = recording(tmp_path / "whole.mkv")
    source = open_source(path)
    frames = iter(source)
    images = {round(frame.seconds, 3): frame.image_hwc for _, frame in zip(range(4), frames, strict=False)}
    clean = seen(open_source(path))
    images |= {round(frame.seconds, 3): frame.image_hwc for frame in frames}
    same(images, clean)
    assert len(clean) == len(images) == COUNT and said(source) == []


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4"])
def test_a_file_that_was_cut_off_is_an_error_with_or_without_sound(tmp_path: Path, suffix: str, sound: bool) -> None:
    options = {} if suffix != "avi" else {"bf": "0"}
    whole = recording(tmp_path / f"whole.{suffix}", sound=sound, **options)
    if suffix == "mp4":
        front = tmp_path / "front.mp4"
        with av.open(str(whole)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as out:
            streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
        whole = front
    clean, data, broken = seen(open_source(whole)), whole.read_bytes(), tmp_path / f"cut.{suffix}"
    broken.write_bytes(data[: int(0.6 * len(data))])
    images, source = {}, open_source(broken)
    with pytest.raises(SourceError, match="the file was cut off"):
        for frame in source:
            images[round(frame.seconds, 3)] = frame.image_hwc
    same(images, clean)
    assert GROUP < len(images) < COUNT and source.account.ended


@pytest.mark.parametrize("damage", [lose_one, lose_many, flip, cut])
def test_harm_leaves_packets_of_its_own_size(damage: Callable[[bytes, random.Random], bytes]) -> None:
    data = bytes(range(256)) * 188
    assert damage(data, random.Random(1)) != data


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg to code HEVC")
@pytest.mark.parametrize(
    ("name", "harm"), [(n, h) for n, (_, _, harms) in CASES.items() for h in harms if "lose" in h.__name__]
)
def test_no_loss_in_a_transport_stream_passes(name: str, harm: Callable[[bytes, random.Random], bytes]) -> None:
    tally = measured(name, harm, 40, "")
    assert (tally.silent, tally.passed, tally.slight) == (0, 0, 0) and tally.kept > 0.8 * tally.whole


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_byte_that_was_changed_is_found(tmp_path: Path, suffix: str) -> None:
    """FFmpeg alone shows the noise of one change in six, and finds nothing wrong with it."""
    whole = recording(tmp_path / f"whole.{suffix}")
    data, harmed = whole.read_bytes(), tmp_path / f"harmed.{suffix}"
    clean, passed, silent = seen(open_source(whole)), 0, 0
    for run in range(12):
        harmed.write_bytes(flip(data, random.Random(run)))
        try:
            source = open_source(harmed)
            images = seen(source)
        except SourceError:
            continue
        wrong = sum(not np.array_equal(image_hwc, clean.get(time)) for time, image_hwc in images.items())
        passed += wrong
        silent += (wrong > 0 or len(images) < COUNT) and not (source.account.gaps or source.account.leading)
    assert silent <= 1 and passed <= GROUP + 2, "at most one that only a checksum would tell"


@pytest.mark.parametrize("options", [{}, {"x264-params": "slices=3"}, {"coder": "0"}, {"bf": "8", "crf": "40"}])
def test_slices_that_are_whole_hold(tmp_path: Path, options: dict[str, str]) -> None:
    """Also those that a decoder reads to their end without their last bytes: a picture that stands still."""
    path = recording(tmp_path / "a.mp4", **options)
    still = tmp_path / "still.mkv"
    with av.open(str(still), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "50"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        image_hwc = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_hwc, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    for each, count in ((path, COUNT), (still, 60)):
        source = open_source(each)
        assert len(list(source)) == count and said(source) == []


def test_the_checksums_of_matroska_are_used(tmp_path: Path) -> None:
    whole = recording(tmp_path / "whole.mkv", "mpeg4")
    data, harmed = whole.read_bytes(), tmp_path / "harmed.mkv"
    clean = seen(open_source(whole))
    assert len(clean) == COUNT
    for run in range(12):
        place = random.Random(run).randrange(2000, len(data) - 2000)
        harmed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            source = open_source(harmed)
        except SourceError:
            continue  # all of it is in one cluster
        same(seen(source), clean)
        assert source.account.gaps


def test_no_alarm_where_the_log_of_ffmpeg_is_silenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recording(tmp_path / "whole.mp4")
    asked, misses = [0], _ProbeDecoder.count_truncated

    def deaf(self: _ProbeDecoder, data: bytes) -> int:
        asked[0] += 1
        return misses(self, data) if asked[0] < 60 else 0  # from then on, nothing that FFmpeg says arrives

    monkeypatch.setattr(_ProbeDecoder, "count_truncated", deaf)
    monkeypatch.setattr(SliceCheck, "_end_matters", lambda self, data, last: False)
    source = open_source(whole)
    shown = len(list(source))
    assert asked[0] > 100 and shown + source.account.damaged == COUNT and shown > COUNT - GROUP
