"""Colours of HDR, wide gamut and other curves: what an ordinary display shows, by the textbook's equations."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source
from rtseg.grab.decode.display_color import to_bt709, tone_mapped

from .test_video_file import error_by, flat, write

PATCHES = ((200, 30, 40), (140, 60, 55), (20, 160, 60), (60, 70, 220), (255, 255, 255), (0, 0, 0), (128, 128, 128))
NUMBERS = {"gamma22": 4, "gamma28": 5, "smpte240m": 7, "linear": 8, "log100": 9, "log316": 10, "srgb": 13,
           "bt2020": 14, "pq": 16, "dci": 17, "hlg": 18, "bt709": 1}  # fmt: skip
# RGB of BT.709 to RGB of the other, rounded, as BT.2087, SMPTE EG 432 and others print them.
FROM_709 = {
    "bt709": (1, np.eye(3)),
    "bt2020": (9, np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])),
    "p3": (12, np.array([[0.8225, 0.1775, 0.0000], [0.0332, 0.9668, 0.0000], [0.0171, 0.0724, 0.9105]])),
}


def from_srgb(code: np.ndarray) -> np.ndarray:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def pq(light: np.ndarray) -> np.ndarray:
    power = (light / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(light: np.ndarray) -> np.ndarray:
    """Of a display of 1,000 cd/m2: the inverse of its system gamma of 1.2, and the curve."""
    luma = light @ np.array([0.2627, 0.6780, 0.0593]) / 1000
    scene = light / 1000 * max(luma, 1e-9) ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


CURVES = {  # light of the picture to codes
    "gamma22": lambda light: light ** (1 / 2.2),
    "gamma28": lambda light: light ** (1 / 2.8),
    "smpte240m": lambda light: light ** (1 / 2.4),
    "linear": lambda light: light,
    "log100": lambda light: np.where(light < 0.01, 0, 1 + np.log10(np.maximum(light, 1e-9)) / 2),
    "srgb": lambda light: np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055),
    "bt2020": lambda light: light ** (1 / 2.4),
    "bt709": lambda light: light ** (1 / 2.4),
    "dci": lambda light: (48 * light / 52.37) ** (1 / 2.6),
    "pq": lambda light: pq(203 * light),
    "hlg": lambda light: hlg(203 * light),
}
OF_A_CAMERA = ("smpte240m", "bt2020", "bt709")


def video(path: Path, rgb: Sequence[int], primaries: str, curve: str) -> Path:
    """A picture of 12 bits that is to look like `rgb`, coded as the names say."""
    shown = np.array(rgb) / 255
    light = shown**2.4 if curve in OF_A_CAMERA else from_srgb(shown)
    number, matrix = FROM_709[primaries]
    red, green, blue = CURVES[curve](matrix @ light)
    kr, kb = 0.2627, 0.0593
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = (219 * luma + 16, 224 * (blue - luma) / (2 - 2 * kb) + 128, 224 * (red - luma) / (2 - 2 * kr) + 128)
    picture = flat([round(float(value) * 16) for value in values], "yuv444p12le")
    return write(path, [picture], colorspace=9, color_range=1, color_primaries=number, color_trc=NUMBERS[curve])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("primaries", FROM_709)
def test_what_is_shown_is_what_was_meant(tmp_path: Path, primaries: str, curve: str) -> None:
    for index, rgb in enumerate(PATCHES):
        # What is brighter than 88 cd/m2 is toned down (see below), and what is darker than 1 in 100 is not in that log.
        if (curve in ("pq", "hlg") and max(rgb) > 170) or (curve == "log100" and 0 < min(rgb) < 26):
            continue
        source = open_source(video(tmp_path / f"{index}.mkv", rgb, primaries, curve))
        (frame,) = source
        assert error_by(frame.image_hwc, rgb) <= 2, (rgb, frame.image_hwc[0, 0])
        plain = primaries == "bt709" and curve in ("bt709", "bt2020", "smpte240m", "srgb")
        assert ("colours" in source.account.repaired) is not plain


@pytest.mark.parametrize("curve", [name for name in CURVES if name not in ("bt709", "bt2020", "srgb", "smpte240m")])
def test_taken_for_bt709_it_would_be_wrong(tmp_path: Path, curve: str) -> None:
    """The negative control, and what was done before: the same picture with another mark."""
    rgb = (140, 60, 55)
    with av.open(str(video(tmp_path / "a.mkv", rgb, "bt2020", curve))) as container:
        picture = next(container.decode(video=0))
    picture.color_trc = picture.color_primaries = 1
    (frame,) = open_source(write(tmp_path / "b.mkv", [picture], colorspace=9, color_range=1))
    assert error_by(frame.image_hwc, rgb) > 8


@pytest.mark.parametrize("curve", ["pq", "hlg"])
def test_bright_light_of_hdr_is_compressed_and_keeps_its_order_and_hue(tmp_path: Path, curve: str) -> None:
    greys = []
    for index, light in enumerate((40, 80, 203, 500, 1000)):
        code = (pq if curve == "pq" else hlg)(np.full(3, light, float))[0]
        values = (round((219 * code + 16) * 4), 512, 512)
        path = tmp_path / f"{index}.mkv"
        marks = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": NUMBERS[curve]}
        (frame,) = open_source(write(path, [flat(values, "yuv444p10le")], **marks))
        grey = frame.image_hwc.reshape(-1, 3)
        assert (grey == grey[0, 0]).all()
        greys.append(int(grey[0, 0]))
    assert greys == sorted(set(greys)) and greys[-1] == 255
    for grey, light in zip(greys[:2], (40, 80), strict=True):
        assert abs(from_srgb(np.array(grey / 255)) * 203 - light) < 1
    assert 150 < from_srgb(np.array(greys[2] / 255)) * 203 < 170  # BT.2390: its knee is at 88 cd/m2


def test_the_compression_is_smooth() -> None:
    light = np.linspace(1, 1200, 5000)
    shown = tone_mapped(light)
    assert (np.diff(shown) >= 0).all() and np.abs(np.diff(shown, 2)).max() < 1e-3
    assert shown.max() == pytest.approx(203) and tone_mapped(np.array(87.0)) == pytest.approx(87)


@pytest.mark.parametrize("primaries", ["bt470m", "film", "bt2020", "smpte428", "smpte431", "smpte432"])
def test_white_stays_white(primaries: str) -> None:
    np.testing.assert_allclose(to_bt709(primaries) @ np.ones(3), 1, atol=1e-9)


def test_the_matrices_are_those_that_are_printed() -> None:
    for name, known in (("bt2020", "bt2020"), ("smpte432", "p3")):
        np.testing.assert_allclose(to_bt709(name) @ FROM_709[known][1], np.eye(3), atol=2e-3)


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ({"colorspace": 10}, r"colour matrix 10 \(ITU-T H.273, BT.2020 with constant luminance\) is not supported"),
        ({"colorspace": 14}, "ICtCp"),
        ({"color_trc": 12}, "colour transfer 12 .*BT.1361"),
    ],
)
def test_what_is_not_undone_is_refused_with_its_name(tmp_path: Path, mark: dict[str, int], says: str) -> None:
    path = write(tmp_path / "a.mkv", [flat((90, 128, 128), "yuv444p")], **mark)
    with pytest.raises(SourceError, match=says) as error:
        open_source(path)
    assert "\n" not in str(error.value) and "convert the video to BT.709" in str(error.value)


def test_rgb_of_limited_range_is_expanded(tmp_path: Path) -> None:
    image_hwc = np.full((48, 64, 3), (16, 125, 235), np.uint8)
    picture = av.VideoFrame.from_ndarray(image_hwc, "rgb24").reformat(format="bgr0")
    for range_, meant in ((1, (0, 127, 255)), (2, (16, 125, 235))):
        (frame,) = open_source(write(tmp_path / f"{range_}.mkv", [picture], color_range=range_))
        assert error_by(frame.image_hwc, meant) <= 1


def test_colours_that_change_on_the_way_are_each_converted_and_told(tmp_path: Path) -> None:
    raw = b""
    for index, curve in enumerate(("bt709", "pq")):
        code = np.array(0.5) if curve == "bt709" else pq(203 * from_srgb(np.array(0.5)))
        picture = flat((round(219 * float(code) + 16), 128, 128), "yuv420p", 64, 48)
        marks = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": NUMBERS[curve]}
        part = write(tmp_path / f"{index}.h264", [picture] * 3, "libx264", options={"qp": "1"}, **marks)
        raw += part.read_bytes()
    (tmp_path / "both.h264").write_bytes(raw)
    source = open_source(tmp_path / "both.h264")
    frames = list(source)
    assert [frame.color.transfer for frame in frames] == ["bt709"] * 3 + ["smpte2084"] * 3
    assert max(error_by(frame.image_hwc, frames[0].image_hwc[0, 0].astype(int)) for frame in frames) <= 3
    told = source.account.repaired["colours"]
    assert told.count("; then ") == 1 and "smpte2084" in told
    list(source)
    assert source.account.repaired["colours"] == told


def test_only_colours_that_are_not_said_are_assumed(tmp_path: Path) -> None:
    for marks, says in (({}, "BT.601"), ({"colorspace": 6, "color_primaries": 6, "color_trc": 6}, "")):
        source = open_source(write(tmp_path / "a.mkv", [flat((90, 128, 128), "yuv420p")], **marks))
        list(source)
        assert says in source.account.assumed.get("colours", "") and bool(says) == ("colours" in source.account.assumed)
        assert source.account.repaired == {}


def _zscale(path: Path, curve: str) -> np.ndarray | None:
    """The first pixel as FFmpeg's zscale converts it, where this FFmpeg has one."""
    if shutil.which("ffmpeg") is None:
        return None
    way = f"zscale=p=bt709:t={curve}:m=gbr:r=full,format=gbrp"
    run = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-vf", way, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"],
        capture_output=True,
        check=False,
    )
    return np.frombuffer(run.stdout[:3], np.uint8) if len(run.stdout) >= 3 else None


@pytest.mark.parametrize(
    ("primaries", "curve", "as_"),
    [("bt2020", "bt2020", "bt709"), ("p3", "bt709", "bt709"), ("bt709", "smpte240m", "bt709"),
     ("bt709", "linear", "iec61966-2-1"), ("bt2020", "gamma22", "iec61966-2-1"),
     ("bt2020", "gamma28", "iec61966-2-1")],
)  # fmt: skip
def test_it_agrees_with_zscale(tmp_path: Path, primaries: str, curve: str, as_: str) -> None:
    for index, rgb in enumerate(PATCHES[:4]):
        path = video(tmp_path / f"{index}.mkv", rgb, primaries, curve)
        known = _zscale(path, as_)
        if known is None:
            pytest.skip("no ffmpeg with zscale here")
        (frame,) = open_source(path)
        assert error_by(frame.image_hwc, known.astype(int)) <= 2, (rgb, known, frame.image_hwc[0, 0])
