"""`segment` and `eval` on recordings as they come: both see the same frames, and what was lost is said."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rtseg.cli import main
from rtseg.data import open_dataset

ROOT = Path(__file__).parents[2]
W, H, FRAMES = 96, 64, 40
RECIPE = 'model = "micro"\nweights = "package:micro"\nimage_size = 64\nruntime = "torch"\n'


def encode(
    form: str, frames: int = FRAMES, size: tuple[int, int] = (W, H), start_s: float = 0, sar: str = "1"
) -> bytes:
    """A moving picture in H.264 with B-frames, a key frame every twelve."""
    target = io.BytesIO()
    rng = np.random.default_rng(5)
    wide_hwc = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(target, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.sample_aspect_ratio = Fraction(sar)
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(wide_hwc, 2 * t, 1), format="rgb24")
            frame.pts, frame.time_base = t + round(25 * start_s), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def lose(data: bytes, number: int) -> bytes:
    """A transport stream without one of its packets."""
    return data[: 188 * number] + data[188 * (number + 1) :]


def middle(data: bytes) -> int:
    return len(data) // 188 // 2


def trimmed(seconds: float) -> bytes:
    """An MP4 whose edit list hides its first frames, as cutting without encoding leaves it."""
    target = io.BytesIO()
    with av.open(io.BytesIO(encode("mp4"))) as source, av.open(target, "w", format="mp4") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    return target.getvalue()


@pytest.fixture
def rtseg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`rtseg segment` in a folder of its own: exit code, lines on stderr, what run.json says (None: no folder)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.toml").write_text(RECIPE)

    def run(*words: str, frame: int = 0) -> tuple[int, list[str], Any]:
        (tmp_path / "p.json").write_text(json.dumps([{"frame": frame, "id": 1, "box": [20, 10, 70, 50]}]))
        code = main(["segment", *words, "--prompts", "p.json", "--engine", "e.toml", "--out", "o"])
        said = tmp_path / "o/run.json"
        report = json.loads(said.read_text()) if said.is_file() else None
        return code, capsys.readouterr().err.splitlines(), report

    return run


def agree(tmp_path: Path) -> int:
    """How many frames the result has, of which all its files and its evaluation know."""
    run = json.loads((tmp_path / "o/run.json").read_text())
    images = json.loads((tmp_path / "o/masks.json").read_text())["images"]
    (sequence,) = open_dataset(tmp_path / "o").sequences
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        shown = sum(1 for _ in container.decode(video=0))
    counts = {len(images), len(os.listdir(tmp_path / "o/masks")), shown, run["frames"]["shown"], sequence.count}
    assert len(counts) == 1, counts
    assert sequence.image(sequence.count - 1).shape == sequence.image(0).shape  # the last is there, for an evaluation
    return counts.pop()


WHOLE: dict[str, tuple[Callable[[], bytes], int]] = {
    "plain.mp4": (lambda: encode("mp4"), FRAMES),
    "b.ts": (lambda: encode("mpegts"), FRAMES),
    "b.avi": (lambda: encode("avi"), FRAMES),
    "hour.mkv": (lambda: encode("matroska", start_s=3600), FRAMES),
    "trimmed.mp4": (lambda: trimmed(0.6), FRAMES - 15),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_recordings(tmp_path: Path, rtseg: Callable[..., Any], name: str) -> None:
    make, count = WHOLE[name]
    (tmp_path / name).write_bytes(make())
    code, lines, report = rtseg(name)
    assert (code, agree(tmp_path), report["complete"]) == (0, count, True)
    assert not any("skipped" in line or "ended" in line for line in lines)
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(count / 25, abs=0.01)


def test_a_start_at_an_hour_is_in_the_account(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    (tmp_path / "hour.mkv").write_bytes(encode("matroska", start_s=3600))
    _, _, report = rtseg("hour.mkv")
    assert report["source_account"]["start_s"] == pytest.approx(3600, abs=0.2)


def test_damage_is_skipped_and_said_or_ends_the_run_and_keeps_what_is_whole(
    tmp_path: Path, rtseg: Callable[..., Any]
) -> None:
    data = encode("mpegts")
    (tmp_path / "lost.ts").write_bytes(lose(data, middle(data)))
    code, lines, report = rtseg("lost.ts")
    whole = agree(tmp_path)
    assert code == 0 and report["complete"] is True and FRAMES / 2 < whole < FRAMES
    gap = report["source_account"]["gaps"][0]
    assert [line for line in lines if f"damaged frames; the first before frame {gap['before']}" in line]
    code, lines, report = rtseg("lost.ts", "--damaged", "stop", "--force")
    assert code == 1 and "run with --damaged skip" in lines[-1]
    assert report["complete"] is True and "o-2" in lines[-1]  # what ended early takes no complete one's place


def test_stop_keeps_the_frames_before_the_damage(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    data = encode("mpegts")
    (tmp_path / "lost.ts").write_bytes(lose(data, middle(data)))
    code, lines, report = rtseg("lost.ts", "--damaged", "stop")
    assert (code, report["complete"]) == (1, False)
    whole = agree(tmp_path)
    assert 0 < whole < FRAMES and f"{whole} frames are whole, and lie in o" in lines[-1]
    (tmp_path / "plain.ts").write_bytes(data)
    assert rtseg("plain.ts", "--damaged", "stop", "--force")[0] == 0  # the control


def test_a_size_that_changes_keeps_what_came_before(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    (tmp_path / "sizes.ts").write_bytes(encode("mpegts") + encode("mpegts", size=(W * 2, H * 2)))
    code, lines, report = rtseg("sizes.ts")
    assert (code, report["complete"]) == (1, False) and "size changes" in lines[-1]
    assert FRAMES - 3 <= agree(tmp_path) <= FRAMES


@pytest.mark.parametrize("form", ["matroska", "mpegts", "mp4"])
def test_a_prompt_beyond_the_end_is_found_before_the_run(tmp_path: Path, rtseg: Callable[..., Any], form: str) -> None:
    (tmp_path / "clip").write_bytes(encode(form))
    code, lines, report = rtseg("clip", frame=60)
    assert (code, report) == (2, None)
    assert lines[-1].endswith("prompt on frame 60: clip has 40 frames; expected a frame from 0 to 39")


def test_pal_stays_as_wide_as_it_was(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    (tmp_path / "pal.mp4").write_bytes(encode("mp4", 3, sar="64/45"))
    assert rtseg("pal.mp4")[0] == 0
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)


def test_several_files_as_one_recording(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    for name in ("a.ts", "b.ts"):
        (tmp_path / name).write_bytes(encode("mpegts", 10))
    code, _, report = rtseg("a.ts", "b.ts", "--join")
    assert (code, report["source"], agree(tmp_path)) == (0, ["a.ts", "b.ts"], 20)
    assert len(report["sha256"]["source"]) == 2


def test_stdin(tmp_path: Path, rtseg: Callable[..., Any]) -> None:
    """It cannot be read again; the pictures that were written stand for it."""
    rtseg("-")  # writes the prompts
    code = "import sys; from rtseg.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["segment", "-", "--prompts", "p.json", "--engine", "e.toml", "--out", "o", "--frames", "--force"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], input=encode("mpegts", 12), cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert agree(tmp_path) == 12
