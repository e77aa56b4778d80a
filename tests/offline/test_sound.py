"""The sound of a recording in its overlay: there, in step with the pictures, and left out where it has to be."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rtseg.base.errors import IncompleteError
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.grab import open_source
from rtseg.offline import segment
from rtseg.publish.mp4_sound import Sound, add_sound

RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
PROMPTS = {0: [Prompt(1, box=(20.0, 10.0, 70.0, 50.0))]}
BEEP_S = 0.5  # the tone begins with the picture at this time, which turns white


def recording(path: Path, audio: str = "aac", *more: str, seconds: float = 1.0) -> Path:
    """A second of 25 pictures a second, black and then white, with a tone that begins as they turn."""
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"color=black:s=96x64:r=25:d={seconds}", "-f", "lavfi", "-i",
         f"aevalsrc='if(gte(t,{BEEP_S}),0.8*sin(2*PI*1000*t),0)':s=48000:d={seconds}", "-vf",
         f"drawbox=c=white:t=fill:enable='gte(t,{BEEP_S})'", "-c:v", "libx264", "-g", "5", "-bf", "2", "-pix_fmt",
         "yuv420p", "-c:a", audio, *more, str(path)], check=True,
    )  # fmt: skip
    return path


def heard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times and samples of the first sound of a file, as FFmpeg plays it."""
    times, samples = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            values = values[0] if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)[:, 0]
            values = values / (32768 if values.dtype == np.int16 else 1)
            times.append(float(frame.pts * frame.time_base) + np.arange(len(values)) / frame.sample_rate)
            samples.append(values)
    return np.concatenate(times), np.concatenate(samples)


def onset(path: Path, after_s: float = -1e9) -> float:
    """When the tone begins."""
    times, samples = heard(path)
    return float(times[(np.abs(samples) > 0.2) & (times > after_s)][0])


def turns(path: Path) -> float:
    """When the pictures turn white."""
    with av.open(str(path)) as container:
        return next(float(f.time) for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 60)


def run_json(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


@pytest.mark.parametrize(
    ("name", "audio", "more", "how"),
    [
        pytest.param("a.mp4", "aac", (), "copied", marks=pytest.mark.slow),
        ("a.ts", "aac", (), "copied"),  # begins at 1.4 s, and its AAC has other headers than in MP4
        pytest.param("a.mkv", "libmp3lame", ("-output_ts_offset", "3600"), "copied", marks=pytest.mark.slow),
        ("a.mov", "pcm_s16le", (), "encoded as AAC"),
        pytest.param("late.mp4", "aac", ("-ss", "0.2"), "copied", marks=pytest.mark.slow),
    ],
)
def test_sound_is_in_step(tmp_path: Path, name: str, audio: str, more: tuple[str, ...], how: str) -> None:
    path = recording(tmp_path / name, audio, *more)
    segment(path, PROMPTS, tmp_path / "o", RECIPE)
    overlay = tmp_path / "o/overlay.mp4"
    with open_source(path) as source:
        times = [frame.seconds for frame in source]
    with av.open(str(overlay)) as container:
        shown = [float(f.time) for f in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert run_json(tmp_path / "o")["sound"] == how
    np.testing.assert_allclose(shown, np.array(times) - times[0], atol=2e-5)
    assert onset(overlay) - turns(overlay) == pytest.approx(onset(path) - turns(path), abs=0.002)
    if how == "copied":  # sample for sample
        one, other = (heard(each)[1] for each in (path, overlay))
        count = min(len(one), len(other)) - 4096
        at = round((onset(path) - heard(path)[0][0]) * 48000), round((onset(overlay) - heard(overlay)[0][0]) * 48000)
        np.testing.assert_array_equal(one[at[0] :][: count // 2], other[at[1] :][: count // 2])


def test_the_pictures_are_the_same_bytes_with_and_without_sound(tmp_path: Path) -> None:
    path, silent = recording(tmp_path / "a.mp4"), tmp_path / "silent.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-c", "copy", "-an", silent], check=True)
    packets = []
    for each in (path, silent):
        segment(each, PROMPTS, tmp_path / each.stem, RECIPE)
        with av.open(str(tmp_path / each.stem / "overlay.mp4")) as container:
            found = [p for p in container.demux(video=0) if p.size]
            packets.append([(p.pts, p.dts, p.duration, bytes(p)) for p in found])
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_range, context.color_trc, context.color_primaries) == (1, 1, 1, 1)
    assert packets[0] == packets[1] and len(packets[0]) == 25
    assert "sound" in run_json(tmp_path / "a") and "sound" not in run_json(tmp_path / "silent")


def test_files_that_are_one_recording_keep_their_sound_in_step(tmp_path: Path) -> None:
    one, two = recording(tmp_path / "one.ts"), recording(tmp_path / "two.ts")
    segment([one, two], PROMPTS, tmp_path / "o", RECIPE)
    overlay = tmp_path / "o/overlay.mp4"
    assert run_json(tmp_path / "o")["sound"] == "copied"
    assert onset(overlay) == pytest.approx(BEEP_S, abs=0.03)
    times, samples = heard(overlay)
    quiet = (times > 1.1) & (times < 1.4)
    assert np.abs(samples[quiet]).max() < 0.05
    assert onset(overlay, 1.2) == pytest.approx(1 + BEEP_S, abs=0.03)


def test_sound_ends_where_the_run_ended(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.mkv", seconds=2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(IncompleteError):
        segment(path, PROMPTS, tmp_path / "o", RECIPE)
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        end_s = max(float(f.time) for f in container.decode(video=0))
    assert 0.4 < end_s < 1.9 and heard(tmp_path / "o/overlay.mp4")[0][-1] < end_s + 0.1


def test_sound_is_dropped_where_people_are_not_to_be_known(tmp_path: Path) -> None:
    segment(recording(tmp_path / "a.mp4"), PROMPTS, tmp_path / "o", RECIPE, deidentify=["text"])
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        assert not container.streams.audio and "sound" not in run_json(tmp_path / "o")


def test_sound_that_cannot_be_had_leaves_the_video_as_it_was(tmp_path: Path) -> None:
    video = recording(tmp_path / "v.mp4", "aac", "-an")
    before = video.read_bytes()
    (tmp_path / "x.mp4").write_bytes(b"no video")
    assert "cannot be read" in add_sound(video, [Sound(str(tmp_path / "x.mp4"), Fraction(0))])
    assert add_sound(video, [Sound(str(video), Fraction(0))]) == ""
    other = recording(tmp_path / "o.mkv", "libmp3lame")
    two = [Sound(str(recording(tmp_path / "a.mp4")), Fraction(0)), Sound(str(other), Fraction(1))]
    assert "several kinds" in add_sound(video, two)
    assert video.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == [
        "a.mp4", "o.mkv", "v.mp4", "x.mp4"
    ]  # fmt: skip
