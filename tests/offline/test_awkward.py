"""Recordings as they come: each gives the right pictures, times and colours in the overlay, or one clear error."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.base.errors import IncompleteError, SourceError
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.offline import segment

RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
W, H, FRAMES, LEVELS = 96, 64, 12, 1.5
KR_KB = {"smpte170m": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
Rgb = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def picture(t: int, width: int = W, height: int = H) -> Rgb:
    """Smooth colours of all hues that move, RGB [H, W, 3] from 0 to 255."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    phases = np.array([0, 2.1, 4.2])
    return 127.5 + 95 * np.sin(2.5 * x[..., None] + 1.5 * y[..., None] + phases + 0.2 * t)


def to_yuv(rgb: Rgb, matrix: str, full: bool, bits: int = 8) -> npt.NDArray[np.uint16]:
    """Y, Cb and Cr as ITU-R BT.601 and BT.709 define them."""
    kr, kb = KR_KB[matrix]
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    scale, top = 2 ** (bits - 8), 2**bits - 1
    planes = [y * top, cb * top + 2 ** (bits - 1), cr * top + 2 ** (bits - 1)]
    if not full:
        planes = [scale * (219 * y + 16), scale * (224 * cb + 128), scale * (224 * cr + 128)]
    return np.rint(np.stack(planes)).clip(0, top).astype(np.uint16)


def from_bt709(frame: av.VideoFrame, matrix: str = "bt709") -> Rgb:
    """A decoded yuv420p picture of limited range as RGB, by that standard's own matrix."""
    kr, kb = KR_KB[matrix]
    planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[:, : p.width].astype(float) for p in frame.planes]
    y, (cb, cr) = planes[0], (cv2.resize(plane, planes[0].shape[::-1]) for plane in planes[1:])
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = y + (2 - 2 * kr) * cr, y + (2 - 2 * kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.asarray((np.stack([r, g, b], axis=-1) * 255).clip(0, 255))


def make(
    path: Path, pixfmt: str = "yuv420p", matrix: str = "bt709", full: bool = False, *, tagged: bool = True,
    size: tuple[int, int] = (W, H), frames: int = FRAMES, codec: str = "libx264", out: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """A video of `picture`, whose planes are computed here, and coded without loss."""
    bits = 10 if "10" in pixfmt else 8
    data = b""
    for t in range(frames):
        planes = to_yuv(picture(t, *size), matrix, full, bits)
        if "444" not in pixfmt:
            padded = np.pad(planes[1:], ((0, 0), (0, size[1] % 2), (0, size[0] % 2)), mode="edge").astype(float)
            small = padded.reshape(2, padded.shape[1] // 2, 2, -1, 2).mean((2, 4))
            data += _packed(planes[0], bits) + _packed(np.rint(small), bits)
        else:
            data += _packed(planes, bits)
    marks = ["-color_range", "pc" if full else "tv"] if tagged or full else []
    marks += ["-colorspace", matrix, "-color_primaries", "bt709", "-color_trc", "bt709"] if tagged else []
    lossless = {"libx264": ["-qp", "0"], "ffv1": []}[codec]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", pixfmt + ("le" if bits > 8 else ""), "-s",
         f"{size[0]}x{size[1]}", "-r", "25", "-i", "-", "-c:v", codec, *lossless, *marks, *out, str(path)],
        input=data, check=True,
    )  # fmt: skip
    return path


def _packed(values: npt.NDArray[Any], bits: int) -> bytes:
    return values.astype("<u2" if bits > 8 else np.uint8).tobytes()


def ffmpeg(*words: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True)


def result(path: Path, out: Path, last: int = FRAMES - 1, box: Box = (20, 10, 70, 50)) -> list[av.VideoFrame]:
    """The pictures of the overlay, of which all but the last are without masks."""
    segment(path, {last: [Prompt(1, box=box)]}, out, RECIPE)
    with av.open(str(out / "overlay.mp4")) as container:
        return list(container.decode(video=0))


def errors(
    shown: list[av.VideoFrame], matrix: str = "bt709", size: tuple[int, int] = (W, H), turn: int = 0
) -> list[float]:
    found = []
    for t, frame in enumerate(shown):
        expected = np.rot90(picture(t, *size), -turn)
        seen = from_bt709(frame, matrix)[: expected.shape[0], : expected.shape[1]]
        found.append(float(np.abs(seen - expected).mean()))
    return found


KINDS = list(product(KR_KB, (False, True), (True, False)))
QUICK = (("smpte170m", False, False), ("bt709", True, True))


@pytest.mark.parametrize(
    ("matrix", "full", "tagged"),
    [pytest.param(*kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS],
)
def test_colours_outside_masks(tmp_path: Path, matrix: str, full: bool, tagged: bool) -> None:
    size = (W, 720) if matrix == "bt709" and not tagged else (W, H)  # untagged, the height tells the matrix
    path = make(tmp_path / "a.mkv", matrix=matrix, full=full, tagged=tagged, size=size, frames=3)
    shown = result(path, tmp_path / "o", last=2)
    assert max(errors(shown[:-1], size=size)) <= LEVELS
    assert min(errors(shown[:-1], "smpte170m", size)) > 2 * LEVELS  # read by the other matrix they are wrong
    assert errors(shown, size=size)[-1] > LEVELS  # there a mask is drawn
    assert {(f.colorspace, f.color_range, f.color_primaries, f.color_trc) for f in shown} == {(1, 1, 1, 1)}


COLORS: dict[str, dict[str, Any]] = {
    "10 bits": {"pixfmt": "yuv420p10"},
    "4:4:4": {"pixfmt": "yuv444p"},
    "4:4:4, 10 bits, full range, BT.601": {"pixfmt": "yuv444p10", "full": True, "matrix": "smpte170m"},
    "odd sizes": {"size": (95, 63), "codec": "ffv1", "pixfmt": "yuv444p"},
}


@pytest.mark.parametrize("name", COLORS)
def test_pixels(tmp_path: Path, name: str) -> None:
    size = COLORS[name].get("size", (W, H))
    shown = result(make(tmp_path / "a.mkv", **COLORS[name]), tmp_path / "o")
    assert len(shown) == FRAMES and max(errors(shown[:-1], size=size)) <= LEVELS
    assert (shown[0].width, shown[0].height) == (W, H)  # odd sides get one more
    masks = json.loads((tmp_path / "o/masks.json").read_text())["images"][0]
    assert (masks["width"], masks["height"]) == size


def test_rotation(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4")
    shown = result(quarter_turn(path), tmp_path / "o", box=(10, 20, 50, 70))
    assert (shown[0].width, shown[0].height) == (H, W)
    assert min(max(errors(shown[:-1], turn=turn)) for turn in (1, 3)) <= LEVELS


def quarter_turn(path: Path) -> Path:
    """The file with another matrix in its track header: a quarter turn."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: its matrix lies 40 bytes after the name of the box
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, H << 16, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    path.write_bytes(data)
    return path


def seconds(shown: list[av.VideoFrame]) -> list[float]:
    return [float(frame.time) for frame in shown]


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    expected = [(n * 40 + (35 if n >= 4 else 0) + n % 3 * 7) / 1000 for n in range(FRAMES)]
    with (
        av.open(str(make(tmp_path / "a.mp4", out=("-bf", "0")))) as source,
        av.open(str(tmp_path / "v.mp4"), "w") as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 90000)
        for packet, at_s in zip(source.demux(video=0), expected, strict=False):
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 90000), 90
            packet.pts = packet.dts = round(90000 * at_s)
            out.mux(packet)
    assert seconds(result(tmp_path / "v.mp4", tmp_path / "o")) == pytest.approx(expected, abs=2e-5)
    assert expected != pytest.approx([n / 25 for n in range(FRAMES)], abs=2e-3)


def test_no_timestamps(tmp_path: Path) -> None:
    ffmpeg("-i", make(tmp_path / "a.mp4"), "-c", "copy", tmp_path / "a.h264")
    shown = result(tmp_path / "a.h264", tmp_path / "o")
    assert seconds(shown) == pytest.approx([n / 25 for n in range(FRAMES)]) and max(errors(shown[:-1])) <= LEVELS
    assert "bare stream" in json.loads((tmp_path / "o/run.json").read_text())["source_account"]["assumed"]["rate"]


def test_an_edit_list(tmp_path: Path) -> None:
    ffmpeg("-ss", "0.16", "-i", make(tmp_path / "a.mp4", out=("-g", "12")), "-c", "copy", tmp_path / "e.mp4")
    shown = result(tmp_path / "e.mp4", tmp_path / "o", last=FRAMES - 5)
    assert len(shown) == FRAMES - 4 and seconds(shown)[0] == 0
    found = [float(np.abs(from_bt709(f) - picture(t + 4)).mean()) for t, f in enumerate(shown[:-1])]
    assert max(found) <= LEVELS


def test_an_open_group_of_pictures(tmp_path: Path) -> None:
    more = ("-x264-params", "open-gop=1:keyint=4:bframes=2:b-adapt=0:scenecut=0")
    path = make(tmp_path / "a.ts", out=more)
    shown = result(path, tmp_path / "o")
    assert len(shown) == FRAMES and max(errors(shown[:-1])) <= LEVELS
    assert np.diff(seconds(shown)) == pytest.approx([0.04] * (FRAMES - 1), abs=1e-4)


def two_sizes(folder: Path) -> Path:
    one, two = make(folder / "1.ts", frames=6), make(folder / "2.ts", frames=6, size=(2 * W, 2 * H))
    (folder / "a.ts").write_bytes(one.read_bytes() + two.read_bytes())
    return folder / "a.ts"


def truncated(folder: Path) -> Path:
    path = make(folder / "a.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    return path


@pytest.mark.parametrize(
    ("bad", "line"), [(two_sizes, "size changes from 96x64 to 192x128"), (truncated, "cut off")]
)  # fmt: skip
def test_what_ends_early_keeps_what_is_whole(tmp_path: Path, bad: Callable[[Path], Path], line: str) -> None:
    with pytest.raises(IncompleteError, match=line) as caught:
        segment(bad(tmp_path), {0: [Prompt(1, box=(20, 10, 70, 50))]}, tmp_path / "o", RECIPE)
    assert "\n" not in str(caught.value)
    run = json.loads((tmp_path / "o/run.json").read_text())
    with av.open(str(tmp_path / "o/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == run["frames"]["shown"] > 3
    assert run["complete"] is False and line in run["ended"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.nii", "a.dcm", "a.png", "a.txt"])
def test_nothing_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        segment(tmp_path / name, {0: [Prompt(1, box=(20, 10, 70, 50))]}, tmp_path / "o", RECIPE)
    assert name in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "o").exists()
