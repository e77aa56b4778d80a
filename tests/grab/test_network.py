"""Live inputs over a real network path, from other people's senders: GStreamer's RTSP server, and FFmpeg's SRT and UDP.

Where a sender is not installed its tests are skipped: apt install ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0
gstreamer1.0-plugins-good
"""

from __future__ import annotations

import base64
import itertools
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.base.types import Frame, now_ns
from rtseg.grab import open_source
from rtseg.grab.capture import Capture

pytestmark = pytest.mark.slow  # a camera's real time
ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
FPS, LOOP, WIDTH, HEIGHT = 25, 25, 320, 240
PASSWORD = "hunter2-and-more"
SAME_DB, OTHER_DB = 36.0, 33.0


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    shown = f"width={WIDTH}&height={HEIGHT}&fps={FPS}/7&seconds={7 * LOOP / FPS}&seed=1"
    return [frame.image_hwc for frame in open_source(f"synthetic:laparoscopy?{shown}")]


@pytest.fixture(scope="module")
def recording(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of H.264 with a key frame every half second, in MP4."""
    path = tmp_path_factory.mktemp("scope") / "scope.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"g": "12", "bf": "0", "preset": "ultrafast", "crf": "8"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(20 * FPS):
            picture = av.VideoFrame.from_ndarray(pictures[index % LOOP], "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2))))


def number_of(frame: Frame, pictures: list[np.ndarray]) -> int:
    """Which picture this is; it must look like that one, and like no other."""
    assert frame.image_hwc.shape == (HEIGHT, WIDTH, 3)
    likeness = [psnr(frame.image_hwc, picture) for picture in pictures]
    best = int(np.argmax(likeness))
    assert likeness[best] > SAME_DB and sorted(likeness)[-2] < OTHER_DB, sorted(likeness)[-2:]
    return best


def check_content(frames: list[Frame], pictures: list[np.ndarray]) -> None:
    """The pictures that were sent, each once, in order, at the times they were made for."""
    numbers = [number_of(frame, pictures) for frame in frames]
    assert all((b - a) % LOOP == 1 for a, b in itertools.pairwise(numbers))
    assert np.allclose(np.diff([frame.seconds for frame in frames]), 1 / FPS, atol=0.002)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rtsp(recording: Path, *account: str, port: int = 0) -> Iterator[str]:
    """A running server; its uri, without account."""
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"no {SYSTEM_PYTHON} for the RTSP server")
    command = [SYSTEM_PYTHON, str(ROOT / "tests/grab/rtsp_server.py"), str(port), str(recording), *account]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stderr
        said = process.stdout.readline().strip()
        if not said:
            why = (process.stderr.read().strip().splitlines() or ["it ended"])[-1]
            pytest.skip(
                f"no RTSP server ({why}): apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
            )
        yield f"rtsp://127.0.0.1:{said}/scope"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def ffmpeg(recording: Path, url: str) -> Iterator[None]:
    """FFmpeg's own program, sending the recording as MPEG-TS in real time."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program to send with: apt install ffmpeg")
    command = ["ffmpeg", "-loglevel", "error", "-re", "-i", str(recording), "-c", "copy", "-f", "mpegts", url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def test_rtsp_brings_the_pictures_that_were_sent(recording: Path, pictures: list[np.ndarray]) -> None:
    with rtsp(recording) as uri, open_source(uri) as source:
        frames = list(itertools.islice(source, 40))
    assert (source.width, source.height, source.fps, source.frame_count) == (WIDTH, HEIGHT, FPS, None)
    check_content(frames, pictures)
    assert [frame.seq for frame in frames] == list(range(40))
    late_ms = np.diff([frame.captured_ns for frame in frames[20:]]) / 1e6
    assert 20 < np.median(late_ms) < 80  # as they come, and no faster: it is a live feed


def test_rtsp_comes_back_with_its_server(recording: Path, pictures: list[np.ndarray]) -> None:
    with rtsp(recording) as uri:
        intake = Capture(uri)
        frames = intake.frames()
        before = list(itertools.islice(frames, 15))
        assert intake.health.state(now_ns()) == "running"
    port = int(uri.split(":")[2].split("/")[0])
    with rtsp(recording, port=port):
        after = [frame for frame in itertools.islice(frames, 40) if frame.session != before[0].session][:15]
        check_content(after, pictures)
        assert intake.health.counters["losses"] == 1 and intake.health.counters["connections"] == 2
        intake.close()
    frames.close()


SPY = """
import logging, sys, av
from rtseg.grab.capture import Capture
logging.basicConfig(level=1, stream=sys.stdout)
logging.getLogger("libav").setLevel(1)
av.logging.set_level(av.logging.TRACE)
if sys.argv[2] == "bare":
    av.open(sys.argv[1]).close()
    sys.exit()
intake = Capture(sys.argv[1])
print(intake.uri)
for frame in intake.frames():
    print(frame.seq, intake.health.state(frame.captured_ns))
    if frame.seq == 3:
        intake.close()
"""


def test_a_password_is_used_and_never_told(recording: Path) -> None:
    with rtsp(recording, "nurse", PASSWORD) as bare_uri:
        uri = bare_uri.replace("//", f"//nurse:{PASSWORD}@")

        def said(how: str) -> str:
            command = [sys.executable, "-c", SPY, uri, how]
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True).stdout

        ours = said("ours")
        assert "3 running" in ours and "libav" in ours and "rtsp://***@127.0.0.1" in ours
        sent = base64.b64encode(f"nurse:{PASSWORD}".encode()).decode()
        assert PASSWORD not in ours and sent not in ours
        assert sent in said("bare")  # the negative control: FFmpeg would tell
        with pytest.raises(SourceError) as error:
            open_source(uri.replace(PASSWORD, "another-secret"))
        assert "401 Unauthorized" in str(error.value) and "another-secret" not in repr(error.value)
        assert error.value.__suppress_context__


@pytest.mark.parametrize("sender_listens", [True, False])
def test_srt_brings_the_pictures_that_were_sent(
    recording: Path, pictures: list[np.ndarray], sender_listens: bool
) -> None:
    port = free_port(socket.SOCK_DGRAM)
    sender, receiver = f"srt://127.0.0.1:{port}", f"srt://127.0.0.1:{port}?passphrase={PASSWORD}&latency=60"
    sender += f"?passphrase={PASSWORD}&mode={'listener' if sender_listens else 'caller'}"
    receiver += "" if sender_listens else "&mode=listener"
    with ffmpeg(recording, sender):
        intake = Capture(receiver)
        frames = list(itertools.islice(intake.frames(), 30))
    assert PASSWORD not in intake.uri
    check_content(frames, pictures)


def test_srt_with_a_wrong_passphrase_is_refused_without_telling_it(recording: Path) -> None:
    port = free_port(socket.SOCK_DGRAM)
    with ffmpeg(recording, f"srt://127.0.0.1:{port}?passphrase={PASSWORD}&mode=listener"):
        with pytest.raises(SourceError, match=r"passphrase=\*\*\*: cannot be opened \(SRT: Connection setup"):
            open_source(f"srt://127.0.0.1:{port}?passphrase=quite-another-one")


def test_udp_brings_the_pictures_that_were_sent(recording: Path, pictures: list[np.ndarray]) -> None:
    uri = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with ffmpeg(recording, f"{uri}?pkt_size=1316"), open_source(uri) as source:
        frames = list(itertools.islice(source, 30))
    check_content(frames, pictures)


def test_silence_on_udp_is_a_loss_in_time(recording: Path) -> None:
    uri = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with ffmpeg(recording, f"{uri}?pkt_size=1316"):
        source = open_source(uri)
        frames = iter(source)
        next(frames)
    with pytest.raises(SourceError, match="no data for 2 s"):
        list(frames)
