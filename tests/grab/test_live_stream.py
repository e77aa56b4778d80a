"""How senders cut their pictures into packets: each picture arrives once, in order, whatever they do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.base.types import Frame
from rtseg.grab import open_source
from rtseg.grab.live_stream import StreamSource

COUNT, STEP = 40, 3600
CLOCK = Fraction(1, 90_000)


def coded(codec: str, options: dict[str, str]) -> tuple[Any, list[tuple[bytes, int, int]]]:
    """The encoder's stream, and what it made of COUNT moving pictures: bytes, pts, dts."""
    noise_hwc = np.random.default_rng(0).integers(0, 256, (120, 160 + COUNT, 3), np.uint8)
    container = av.open("/dev/null", "w", format="null")
    stream: Any = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt, stream.thread_count = 160, 120, "yuv420p", 1
    packets = []
    for index in range(COUNT):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise_hwc[:, index : index + 160]), "rgb24")
        picture.pts = index
        packets += stream.encode(picture)
    packets += stream.encode()
    return stream, [(bytes(p), p.pts * STEP, p.dts * STEP) for p in packets]


def transport(path: Path, template: Any, packets: list[tuple[bytes, int, int]]) -> Path:
    with av.open(str(path), "w", format="mpegts") as container:
        stream: Any = container.add_stream_from_template(template)
        for data, pts, dts in packets:
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base, packet.stream = pts + 90_000, dts + 90_000, CLOCK, stream
            container.mux_one(packet)
    return path


@contextmanager
def sent(path: Path) -> Iterator[str]:
    """The file over TCP, to each who calls."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(path.read_bytes())
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def received(uri: str) -> list[Frame]:
    frames: list[Frame] = []
    source = open_source(uri)
    with pytest.raises(SourceError, match="ended by its sender"):
        frames.extend(source)
    assert isinstance(source, StreamSource) and source.corrupt == 0
    return frames


def as_they_are(packets: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
    return packets


def in_pairs(packets: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
    return [(a + b, pts, dts) for (a, pts, dts), (b, _, _) in zip(packets[::2], packets[1::2], strict=True)]


def in_halves(packets: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
    return [half for data, pts, dts in packets for half in ((data[:900], pts, dts), (data[900:], pts + 1, dts + 1))]


@pytest.mark.parametrize(
    ("codec", "g", "bf", "cut"),
    [
        ("mpeg2video", "1", "0", as_they_are),
        ("mpeg2video", "8", "2", as_they_are),
        ("libx264", "8", "2", as_they_are),
        ("mpeg2video", "1", "0", in_pairs),
        ("mpeg2video", "1", "0", in_halves),
    ],
)
def test_every_picture_arrives_once_and_in_order(
    tmp_path: Path, codec: str, g: str, bf: str, cut: Callable[..., list[tuple[bytes, int, int]]]
) -> None:
    template, packets = coded(codec, {"g": g, "bf": bf, "qmin": "2", "qmax": "6"})
    with sent(transport(tmp_path / "a.ts", template, cut(packets))) as uri:
        frames = received(uri)
    assert len(frames) >= COUNT - 3  # what the decoder still held when the sender left
    steps = np.diff([float(frame.pts * frame.time_base) for frame in frames])
    assert np.allclose(steps, 1 / 25, atol=1e-3)
    assert len({frame.image_hwc.tobytes() for frame in frames}) == len(frames)


def test_data_that_is_no_video_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    with sent(path) as uri, pytest.raises(SourceError, match=f"^{uri}: ") as error:
        open_source(uri)
    assert "\n" not in str(error.value)


def test_what_lost_a_packet_is_not_shown_nor_what_was_predicted_from_it(tmp_path: Path) -> None:
    template, packets = coded("libx264", {"g": "8", "bf": "2", "qmin": "2", "qmax": "6"})
    whole = transport(tmp_path / "a.ts", template, packets)
    data, torn = whole.read_bytes(), tmp_path / "torn.ts"
    with sent(whole) as uri:
        clean = {frame.pts: frame.image_hwc for frame in received(uri)}
    for place in range(40, len(data) // 188, len(data) // 188 // 5):
        torn.write_bytes(data[: 188 * place] + data[188 * (place + 1) :])
        frames: list[Frame] = []
        with sent(torn) as uri, open_source(uri) as source, pytest.raises(SourceError, match="ended by its sender"):
            frames.extend(source)
        assert isinstance(source, StreamSource)
        for frame in frames:
            np.testing.assert_array_equal(frame.image_hwc, clean[frame.pts])
        missing = len(clean) - len(frames)
        assert missing <= 10 and source.corrupt == source.account.damaged
        # What was lost before we joined is not counted, nor what comes to light when the sender is gone.
        assert source.corrupt or frames[0].pts > min(clean) or frames[-1].pts < max(clean)
        with (
            sent(torn) as uri,
            pytest.raises(SourceError, match=r"missing; set damaged = skip to continue|ended by its"),
        ):
            list(open_source(uri, damaged="stop"))
