"""DICOM: pixels of every photometric interpretation as an independent rule makes them, times, order and places."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rtseg.base.errors import ConfigError, SourceError
from rtseg.grab import open_source
from rtseg.grab.random_access import open_frames

from .dicom_files import ct, dicom, item

H, W = 24, 36
JPEG, RLE, JPEG2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
H264 = "1.2.840.10008.1.2.4.102"


def pictures(count: int = 5) -> npt.NDArray[np.uint8]:
    """Smooth colours that move, RGB [T, H, W, 3]."""
    y, x = np.mgrid[0:H, 0:W]
    return np.stack(
        [np.stack([4 * x + 20 * t, 6 * y, 255 - 3 * x - 2 * y], axis=-1).clip(0, 255) for t in range(count)]
    ).astype(np.uint8)


def ybr(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """YBR_FULL as PS3.3 C.7.6.3.1.2 defines it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.rint(rgb @ matrix.T + [0, 128, 128]).clip(0, 255).astype(np.uint8)


def ybr_422(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Native YBR_FULL_422: Y1 Y2 Cb Cr for two pixels in a row, the colour that of the first."""
    full = ybr(rgb)
    pairs = np.stack([full[..., 0::2, 0], full[..., 1::2, 0], full[..., 0::2, 1], full[..., 0::2, 2]], axis=-1)
    return pairs.reshape(*full.shape[:-2], -1, 2)


def shown(path: Path, **options: Any) -> npt.NDArray[np.uint8]:
    with open_source(path, **options) as source:
        return np.stack([frame.image_hwc for frame in source])


def coded(rgb: npt.NDArray[np.uint8], kind: str, **how: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(rgb).save(target, kind, **how)
    return target.getvalue() + b"\0" * (target.tell() % 2)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colours_of_native_pixels(tmp_path: Path, photometric: str) -> None:
    rgb = pictures()
    values = {"RGB": rgb, "YBR_FULL": ybr(rgb), "YBR_FULL_422": ybr_422(rgb)}[photometric]
    path = dicom(tmp_path / "us.dcm", values, photometric, size=(H, W), FrameTime="40")
    error = np.abs(shown(path).astype(int) - rgb)
    assert error.max() <= (10 if photometric.endswith("422") else 2) and error.mean() < 2
    if photometric != "RGB":  # taken for RGB it would be far off
        wrong = dicom(tmp_path / "w.dcm", ybr(rgb), "RGB", FrameTime="40")
        assert np.abs(shown(wrong).astype(int) - rgb).mean() > 30


@pytest.mark.parametrize(
    ("syntax", "kind", "photometric"), [(JPEG, "JPEG", "YBR_FULL_422"), (JPEG2000, "JPEG2000", "YBR_RCT")]
)
def test_colours_of_compressed_pixels(tmp_path: Path, syntax: str, kind: str, photometric: str) -> None:
    rgb = pictures()
    how: dict[str, Any] = {"quality": 95, "subsampling": "4:2:2"} if kind == "JPEG" else {"no_jp2": True, "mct": 1}
    frames = [coded(each, kind, **how) for each in rgb]
    path = dicom(tmp_path / "us.dcm", frames, photometric, size=(H, W), syntax=syntax, CineRate=30)
    with open_source(path) as source:
        frames_read = list(source)
        assert source.fps == 30 and [f.seconds for f in frames_read] == pytest.approx(
            [n / 30 for n in range(5)], abs=1e-6
        )
    assert np.abs(np.stack([f.image_hwc for f in frames_read]).astype(int) - rgb).mean() < 3


def test_rle_and_any_order(tmp_path: Path) -> None:
    import pydicom

    native = dicom(tmp_path / "a.dcm", pictures(), "RGB", FrameTime="40")
    ds = pydicom.dcmread(native)
    ds.compress(RLE)
    ds.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(shown(tmp_path / "b.dcm"), pictures())
    for path in (native, tmp_path / "b.dcm"):
        frames = open_frames(path)
        for number in (3, 0, 1, 4, 2):
            np.testing.assert_array_equal(frames.frame(number).image_hwc, pictures()[number])
        frames.close()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(1)
    palette = rng.integers(0, 256, (256, 3))
    numbers = rng.integers(0, 256, (2, H, W)).astype(np.uint8)
    tables: dict[str, Any] = {}
    for n, name in enumerate(("Red", "Green", "Blue")):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        values = palette[:, n].astype(np.uint8) if bits == 8 else (palette[:, n] * 257).astype(np.uint16)
        tables[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    path = dicom(tmp_path / "p.dcm", numbers, "PALETTE COLOR", FrameTime="40", **tables)
    np.testing.assert_array_equal(shown(path), palette[numbers])


def test_grey_with_a_window_of_12_bits_and_of_16(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, H * W).reshape(H, W).astype(np.uint16)
    width, level = 1000, 2000
    expected = (((values - (level - 0.5)) / (width - 1) + 0.5) * 255).clip(0, 255)  # PS3.3 C.11.2.1.2.1
    path = dicom(tmp_path / "a.dcm", values, stored=12, WindowWidth=width, WindowCenter=level)
    assert np.abs(shown(path)[0, ..., 1] - expected).max() <= 1
    inverse = dicom(tmp_path / "i.dcm", values, "MONOCHROME1", stored=12, WindowWidth=width, WindowCenter=level)
    assert np.abs(255 - shown(inverse)[0, ..., 0].astype(int) - expected).max() <= 1
    exact = dicom(
        tmp_path / "e.dcm", values, stored=12, WindowWidth=width, WindowCenter=level, VOILUTFunction="LINEAR_EXACT"
    )
    assert (
        np.abs(shown(exact)[0, ..., 0] - (((values.astype(float) - level) / width + 0.5) * 255).clip(0, 255)).max() <= 1
    )
    sigmoid = dicom(
        tmp_path / "s.dcm", values, stored=12, WindowWidth=width, WindowCenter=level, VOILUTFunction="SIGMOID"
    )
    assert (
        np.abs(shown(sigmoid)[0, ..., 0] - 255 / (1 + np.exp(-4 * (values.astype(float) - level) / width))).max() <= 1
    )
    signed = (values.astype(np.int32) * 16 - 32768).astype(np.int16)
    assert (
        np.abs(
            shown(dicom(tmp_path / "g.dcm", signed, stored=16), window="65535/-0.5")[0, ..., 0] - values / 4095 * 255
        ).max()
        <= 1
    )
    with open_source(dicom(tmp_path / "p.dcm", values, stored=12)) as source:  # no window: percentiles, and it says so
        (frame,) = source
        assert (frame.image_hwc.min(), frame.image_hwc.max()) == (0, 255) and "percentile" in source.account.assumed[
            "window"
        ]
    lut = item(LUTDescriptor=[4096, 0, 8], LUTData=(255 - np.arange(4096) // 16).astype(np.uint16).tobytes())
    lut["LUTData"].VR = "OW"
    by_lut = dicom(tmp_path / "l.dcm", values, stored=12, VOILUTSequence=[lut])
    assert np.abs(shown(by_lut)[0, ..., 0] - (255.0 - values // 16)).max() <= 1


def test_eight_bits_without_a_window_stay(tmp_path: Path) -> None:
    values = np.arange(H * W).reshape(1, H, W).astype(np.uint8)
    np.testing.assert_array_equal(shown(dicom(tmp_path / "a.dcm", values[0]))[..., 0], values)


def test_a_ct_series_is_sorted_by_place_and_knows_where_it_lies(tmp_path: Path) -> None:
    hu_nhw = (np.arange(8)[:, None, None] * 30 - 120 + np.arange(H * W).reshape(H, W) % 10).astype(np.int16)
    paths = ct(tmp_path / "ct", hu_nhw)
    (tmp_path / "ct" / "notes.txt").write_text("no image")
    for uri in (tmp_path / "ct", paths, list(reversed(paths))):
        with open_source(uri) as source:
            frames = list(source)
            geometry = source.geometry
    expected = ((hu_nhw - (40 - 200)) / 400 * 255).clip(0, 255)  # the window "abdomen"
    assert np.abs(np.stack([f.image_hwc[..., 0] for f in frames]) - expected).max() <= 1
    assert [f.name for f in frames] != sorted(f.name for f in frames)  # the files' names are in another order
    assert geometry is not None and geometry.volume and geometry.slice_mm == pytest.approx(2.5)
    assert geometry.spacing_mm == (0.8, 0.5) and source.sample_aspect == Fraction(5, 8)
    lps_3 = np.array([-10, 5, 20]) + 3 * 0.5 * np.array([1, 0, 0]) + 4 * 0.8 * np.array([0, 0.8, 0.6])
    lps_3 = lps_3 + 6 * 2.5 * np.array([0, -0.6, 0.8])
    np.testing.assert_allclose((np.array(geometry.affine) @ [3, 4, 6, 1])[:3], lps_3 * [-1, -1, 1], atol=1e-4)
    lung = shown(tmp_path / "ct", window="lung")
    assert np.abs(lung[..., 0] - ((hu_nhw + 1350) / 1500 * 255).clip(0, 255)).max() <= 1


def test_what_is_no_series_is_one_line(tmp_path: Path) -> None:
    hu_nhw = np.zeros((6, H, W), np.int16)
    paths = ct(tmp_path / "ct", hu_nhw)
    with open_source(tmp_path / "ct") as source:
        assert source.frame_count == 6 and "slices" not in source.account.assumed
    paths[3].unlink()
    with open_source(tmp_path / "ct") as source:  # a gap is told, and then there is no even grid
        assert "5 mm before frame 3" in source.account.assumed["slices"]
        assert source.geometry is not None and source.geometry.affine is None and source.geometry.volume
    for name, elements, line in (
        ("phases", {"ImagePositionPatient": [0, 0, 9.0]}, "at 6 places; expected one at each"),
        ("turned", {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "several orientations"),
        ("two", {"SeriesInstanceUID": "1.2.9"}, "2 series"),
        ("clips", {"frames": 3}, "expected one such file"),
    ):
        folder = tmp_path / name
        ct(folder, hu_nhw)
        more = dict(elements)
        count = more.pop("frames", 1)
        values = np.zeros((count, H, W) if count > 1 else (H, W), np.uint16)
        base = {"ImagePositionPatient": [0, 0, 9.0], "ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}
        dicom(folder / "extra", values, stored=12, **{**base, **more})
        if name == "phases":
            dicom(folder / "extra2", values, stored=12, **{**base, "ImagePositionPatient": [0, 0, 9.0]})
            line = "at 7 places; expected one at each"
        with pytest.raises(SourceError, match=line):
            open_source(folder)
    dicom(tmp_path / "phases" / "large", np.zeros((H, W + 2), np.uint16), stored=12)
    with pytest.raises(SourceError, match=r"38x24, but others are 36x24"):
        open_source(tmp_path / "phases")


def test_an_enhanced_multi_frame_is_sorted_by_its_places(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    values = np.stack([np.full((H, W), 100 * n, np.uint16) for n in order])
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 5.0 * n])]) for n in order]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
        PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-10, RescaleType="HU")],
        FrameVOILUTSequence=[item(WindowWidth=1001, WindowCenter=500)],
    )
    path = dicom(
        tmp_path / "e.dcm", values, stored=12,
        PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    expected = (((np.arange(4) * 200 - 10 - 499.5) / 1000 + 0.5) * 255).clip(0, 255)
    assert np.abs(shown(path)[:, 0, 0, 0] - expected).max() <= 1


def test_times(tmp_path: Path) -> None:
    def seconds(**elements: Any) -> tuple[list[float], float, dict[str, str]]:
        with open_source(dicom(tmp_path / "t.dcm", pictures()[..., 0], **elements)) as source:
            return [frame.seconds for frame in source], source.fps, source.account.assumed

    assert seconds(FrameTime="33.333")[0][:2] == pytest.approx([0, 0.033333])
    uneven = {"FrameTimeVector": ["0", "20", "40", "20", "20"], "FrameTime": "10", "FrameIncrementPointer": 0x00181065}
    assert seconds(**uneven)[0] == pytest.approx([0, 0.02, 0.06, 0.08, 0.1]) and seconds(**uneven)[1] == 40
    assert seconds(**{**uneven, "FrameIncrementPointer": 0x00181063})[0][-1] == pytest.approx(0.04)
    times, fps, assumed = seconds()
    assert fps == 25 and "rate" in assumed and times[1] == 0.04
    with pytest.raises(SourceError, match="states its own times; leave fps out"):
        open_source(dicom(tmp_path / "t.dcm", pictures()[..., 0], FrameTime="40"), fps=30)


def test_ultrasound_regions_give_the_size_of_a_pixel(tmp_path: Path) -> None:
    region = item(PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.02, PhysicalDeltaY=-0.05)
    path = dicom(tmp_path / "a.dcm", pictures(), "RGB", SequenceOfUltrasoundRegions=[region])
    with open_source(path) as source:
        assert source.geometry is not None and source.geometry.spacing_mm == pytest.approx((0.5, 0.2))
        assert not source.geometry.volume and source.geometry.affine is None


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("form", ["mp4", "mpegts", "h264"])
def test_a_video_in_dicom(tmp_path: Path, pieces: int, form: str) -> None:
    video = tmp_path / f"v.{form}"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=30:duration=0.5", "-c:v", "libx264",
         "-bf", "0", "-pix_fmt", "yuv420p", "-f", form, str(video)], check=True,
    )  # fmt: skip
    data = video.read_bytes() + b"\0" * (video.stat().st_size % 2)
    cuts = [2 * (len(data) // 2 * n // pieces) for n in range(pieces + 1)]
    path = tmp_path / "v.dcm"
    from pydicom.encaps import encapsulate

    dicom(path, [data], "YBR_PARTIAL_420", size=(64, 96), syntax=H264, CineRate=30, NumberOfFrames=15)
    if pieces > 1:
        import pydicom

        ds = pydicom.dcmread(path)
        ds.PixelData = encapsulate([data], fragments_per_frame=pieces)
        ds.save_as(path)
    assert cuts[-1] == len(data)
    with open_source(path) as source, open_source(video, fps=30 if form == "h264" else None) as plain:
        frames = list(source)
        for a, b in zip(frames, plain, strict=True):
            np.testing.assert_array_equal(a.image_hwc, b.image_hwc)
            assert a.seconds == pytest.approx(b.seconds)
        assert len(frames) == 15 and source.fps == 30 and not source.account.gaps
    path.write_bytes(path.read_bytes()[: -len(data) // 2])
    with pytest.raises(SourceError, match="ends inside its video"):
        open_source(path)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    whole = dicom(tmp_path / "a.dcm", pictures(), "RGB", FrameTime="40")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-3000])
    for path, line in (
        (cut, "cannot be decoded"),
        (dicom(tmp_path / "c.dcm", pictures(1)[0], "YBR_FULL", PhotometricInterpretation="CMYK"), "'CMYK'; expected"),
        (
            dicom(tmp_path / "x.dcm", [b"\xff\xd8\xff\xd9"] * 2, "YBR_FULL_422", size=(H, W), syntax=JPEG),
            "cannot be decoded",
        ),
    ):
        with pytest.raises(SourceError, match=line) as caught:
            shown(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "n.dcm").write_bytes(b"nothing")
    (tmp_path / "z.dcm").write_bytes(b"")
    for name in ("n.dcm", "z.dcm"):
        with pytest.raises(SourceError, match="not a DICOM file"):
            open_source(tmp_path / name)
    report = dicom(tmp_path / "sr.dcm", pictures(1)[0], "RGB", Modality="SR")
    import pydicom

    ds = pydicom.dcmread(report)
    del ds.PixelData, ds.Rows, ds.Columns
    ds.save_as(report)
    with pytest.raises(SourceError, match=r"no DICOM image \(but SR\)"):
        open_source(report)
    for options, line in (
        ({"window": "lung"}, "its pictures have colours"), ({"plane": "axial"}, "as they were acquired"),
        ({"bits": 12}, "leave bits out"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=line):
            open_source(whole, **options)
    with pytest.raises(ConfigError, match="window 'long': unknown; .*lung.* or WIDTH/LEVEL"):
        open_source(dicom(tmp_path / "g.dcm", pictures()[..., 0]), window="long")
    cv2.imwrite(str(tmp_path / "p.png"), pictures()[0])
    with pytest.raises(SourceError, match="window 'lung', but it is neither DICOM nor NIfTI"):
        open_source(tmp_path / "p.png", window="lung")


def test_without_pydicom_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "a.dcm", pictures(), "RGB")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(SourceError, match=r"pydicom, which reads DICOM, is not installed: pip install 'rtseg\[di"):
        open_source(path)
