"""Picture files: how deep they are, how many pictures they hold, how they are to be turned, and their colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from rtseg.base.errors import SourceError
from rtseg.data.files import picture_size
from rtseg.grab import open_source
from rtseg.grab.decode.image_file import read_image

RAMP_HWC = np.stack(np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 48), [0.5]), axis=-1)[:, :, 0, :]
RGB_HWC = np.rint(RAMP_HWC * 255).astype(np.uint8)


def deep(bits: int) -> np.ndarray:
    return np.rint(RAMP_HWC * (2**bits - 1)).astype(np.uint16)


def save(path: Path, image_hwc: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image_hwc[..., ::-1] if image_hwc.ndim == 3 else image_hwc)
    return path


def with_chunk(path: Path, name: bytes, body: bytes) -> Path:
    """A PNG with one more chunk before its pixels."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


def tiff(path: Path, data: bytes, size: tuple[int, int], tags: dict[int, tuple[int, Sequence[int]]]) -> Path:
    """A TIFF of one strip, by hand: `tags` are number: (kind, values)."""
    tags = {256: (3, [size[0]]), 257: (3, [size[1]]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1]), 273: (4, [8]),
            278: (3, [size[1]]), 279: (4, [len(data)]), **tags}  # fmt: skip
    entries, extra = b"", b""
    at = 8 + len(data) + len(data) % 2
    behind = at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        body = b"".join(struct.pack("<H" if kind == 3 else "<I", value) for value in values)
        if len(body) > 4:
            body, extra = struct.pack("<I", behind + len(extra)), extra + body
        entries += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    body = b"II*\0" + struct.pack("<I", at) + data + b"\0" * (len(data) % 2)
    path.write_bytes(body + struct.pack("<H", len(tags)) + entries + bytes(4) + extra)
    return path


def only(path: Path, **options: Any) -> tuple[np.ndarray, Any]:
    source = open_source(path, **options)
    (frame,) = source
    return frame.image_hwc, source.account


def near(image_hwc: np.ndarray, wanted_hwc: np.ndarray = RGB_HWC, levels: int = 1) -> bool:
    return bool(np.abs(image_hwc.astype(int) - wanted_hwc).max() <= levels)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_bits_that_are_given_are_scaled(tmp_path: Path, bits: int, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", deep(bits))
    image_hwc, account = only(path, bits=bits)
    assert near(image_hwc) and account.lines() == []
    dark_hwc, account = only(path)  # the negative control, which says so
    assert dark_hwc.max() <= 64 and f"--bits {bits}" in account.assumed["depth"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_whole_depths_say_nothing(tmp_path: Path, suffix: str) -> None:
    for image_hwc in (deep(16), RGB_HWC):
        found_hwc, account = only(save(tmp_path / f"a{suffix}", image_hwc))
        assert near(found_hwc) and account.lines() == []


def test_what_png_says_of_its_bits_is_obeyed(tmp_path: Path) -> None:
    kept = with_chunk(save(tmp_path / "kept.png", deep(12)), b"sBIT", bytes([12] * 3))
    spread = with_chunk(save(tmp_path / "spread.png", deep(12) * 16), b"sBIT", bytes([12] * 3))  # as the standard says
    for path in (kept, spread):
        image_hwc, account = only(path)
        assert near(image_hwc) and "depth" not in account.assumed


def test_what_tiff_says_of_its_bits_is_obeyed(tmp_path: Path) -> None:
    grey_hw = deep(12)[..., 0].astype("<u2")
    wanted_hwc = np.repeat(RGB_HWC[..., :1], 3, 2)
    image_hwc, account = only(tiff(tmp_path / "a.tif", grey_hw.tobytes(), (64, 48), {258: (3, [16]), 281: (3, [4095])}))
    assert near(image_hwc, wanted_hwc) and "12 bits" in account.repaired["depth"]
    pairs = grey_hw.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, :1] << 12 | pairs[:, 1:]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    image_hwc, _ = only(tiff(tmp_path / "b.tif", packed.tobytes(), (64, 48), {258: (3, [12])}))
    assert near(image_hwc, wanted_hwc)


def test_a_value_that_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds the value 65535; bits=12 end at 4095; give bits=16"):
        only(save(tmp_path / "a.png", deep(16)), bits=12)
    with pytest.raises(SourceError, match=r"has 8 bits a value; bits=12 is for pictures of 16"):
        only(save(tmp_path / "b.png", RGB_HWC), bits=12)


def test_a_dark_first_picture_decides_nothing(tmp_path: Path) -> None:
    save(tmp_path / "1.png", deep(12))
    save(tmp_path / "2.png", deep(16))
    source = open_source(tmp_path, fps=25)
    assert "depth" in source.account.assumed
    assert near(list(source)[1].image_hwc) and "depth" not in source.account.assumed


def test_floating_point_from_0_to_1_is_taken_and_other_values_are_refused(tmp_path: Path) -> None:
    for image in (RAMP_HWC.astype(np.float32), RAMP_HWC[..., 0].astype(np.float32)):
        image_hwc, account = only(save(tmp_path / "a.tif", image))
        assert near(image_hwc, RGB_HWC if image.ndim == 3 else np.repeat(RGB_HWC[..., :1], 3, 2))
        assert "floating-point" in account.assumed["depth"]
    for harm in (3000.0, np.nan):
        save(tmp_path / "b.tif", RAMP_HWC.astype(np.float32) * harm)
        with pytest.raises(SourceError, match="expected 0 to 1"):
            open_source(tmp_path / "b.tif")


def test_signed_values_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", bytes(64 * 48 * 2), (64, 48), {258: (3, [16]), 339: (3, [2])})
    with pytest.raises(SourceError, match=r"values of 16 bits, signed; expected whole numbers"):
        open_source(path)


@pytest.mark.parametrize("kind", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_every_kind_is_what_pillow_shows(tmp_path: Path, kind: str, suffix: str) -> None:
    if (suffix, kind) in ((".png", "CMYK"), (".jpg", "LA"), (".jpg", "P"), (".jpg", "RGBA")):
        pytest.skip("no such file can be")
    image = Image.fromarray(RGB_HWC).convert(kind)
    if kind in ("RGBA", "LA"):
        image.putalpha(100)
    path = tmp_path / f"a{suffix}"
    image.save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    image_hwc, account = only(path)
    assert near(image_hwc, np.asarray(Image.open(path).convert("RGB")), 2 if suffix == ".jpg" else 1)
    assert account.lines() == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_orientation_tag_is_obeyed(tmp_path: Path, orientation: int, suffix: str) -> None:
    corners_hwc = np.zeros((32, 48, 3), np.uint8)
    corners_hwc[:16, :24], corners_hwc[:16, 24:], corners_hwc[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(corners_hwc).save(path, exif=exif)
    wanted_hwc = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    if suffix != ".png":
        assert picture_size(path) == wanted_hwc.shape[:2]
    for source in (open_source(path), open_source(tmp_path, fps=25)):
        (frame,) = source
        assert frame.image_hwc.shape == wanted_hwc.shape == (source.height, source.width, 3)
        assert np.abs(frame.image_hwc.astype(int) - wanted_hwc).mean() < 4


def pages(path: Path, count: int) -> Path:
    assert cv2.imwritemulti(str(path), [RGB_HWC // (k + 1) for k in range(count)])
    return path


def several_jpegs(path: Path, count: int) -> Path:
    images = [Image.fromarray(RGB_HWC // (k + 1)) for k in range(count)]
    images[0].save(path, format="MPO", save_all=True, append_images=images[1:], quality=95)
    return path


@pytest.mark.parametrize(("name", "make"), [("a.tif", pages), ("a.mpo", several_jpegs), ("a.jpg", several_jpegs)])
def test_all_pictures_of_a_file_are_shown(tmp_path: Path, name: str, make: Any) -> None:
    source = open_source(make(tmp_path / name, 3), fps=10)
    frames = list(source)
    assert [frame.name for frame in frames] == ["a_1", "a_2", "a_3"] and source.frame_count == source.account.count == 3
    order = slice(None, None, -1) if name == "a.tif" else slice(None)  # OpenCV wrote it as BGR
    for k, frame in enumerate(frames):
        assert np.abs(frame.image_hwc.astype(int) - (RGB_HWC // (k + 1))[..., order]).mean() < 3
    if name != "a.mpo":
        with pytest.raises(SourceError, match=r"holds 3 pictures; expected one in each file of a folder"):
            open_source(tmp_path)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_an_animation_is_shown_whole_or_refused(tmp_path: Path, suffix: str) -> None:
    images = [Image.fromarray(RGB_HWC // (k + 1)) for k in range(3)]
    path = tmp_path / f"a{suffix}"
    try:
        images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    except (KeyError, ValueError, OSError):
        pytest.skip(f"this Pillow writes no {suffix}")
    if suffix == ".webp":
        with pytest.raises(SourceError, match=r"holds 3 pictures, and animated WebP is not read"):
            open_source(path)
        return
    assert len(list(open_source(path))) == 3
    if suffix == ".png":
        with pytest.raises(SourceError, match="holds 3 pictures; expected one"):
            open_source(tmp_path)


def test_a_smaller_copy_in_a_tiff_is_no_picture(tmp_path: Path) -> None:
    """As in a camera's raw file, whose first page is small; the whole one is where nothing here looks."""
    data = RGB_HWC[::4, ::4, 0].tobytes()
    assert len(list(open_source(tiff(tmp_path / "a.tif", data, (16, 12), {258: (3, [8])})))) == 1
    with pytest.raises(SourceError, match="small copies of a picture alone"):
        open_source(tiff(tmp_path / "b.tif", data, (16, 12), {258: (3, [8]), 254: (4, [1])}))


def test_a_profile_that_is_not_srgb_is_converted_and_said(tmp_path: Path) -> None:
    """Against littleCMS itself, which a viewer uses; a file with sRGB's own profile is left alone."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in (".png", ".jpg", ".tif"):
        path = tmp_path / f"a{suffix}"
        plain_hwc, _ = only(save(tmp_path / f"plain{suffix}", RGB_HWC))
        Image.fromarray(plain_hwc).save(path, icc_profile=srgb)
        _, account = only(path)
        assert account.lines() == []
        Image.fromarray(plain_hwc).save(path, icc_profile=_swapped(srgb))
        image_hwc, account = only(path)
        assert "ICC profile" in account.repaired["colours"]
        assert np.abs(image_hwc.astype(int) - plain_hwc[..., ::-1]).mean() < 4  # red and blue change places


def _swapped(profile: bytes) -> bytes:
    """sRGB's profile with red and blue exchanged."""
    return profile.replace(b"rXYZ", b"qXYZ").replace(b"bXYZ", b"rXYZ").replace(b"qXYZ", b"bXYZ")


def test_linear_light_in_a_png_is_undone(tmp_path: Path) -> None:
    light = np.where(RAMP_HWC <= 0.04045, RAMP_HWC / 12.92, ((RAMP_HWC + 0.055) / 1.055) ** 2.4)
    path = save(tmp_path / "a.png", np.rint(light * 65535).astype(np.uint16))
    assert not near(only(path)[0], levels=20)
    image_hwc, account = only(with_chunk(path, b"gAMA", struct.pack(">I", 100_000)))
    assert near(image_hwc) and "gamma10" in account.repaired["colours"]
    path = with_chunk(save(tmp_path / "b.png", RGB_HWC), b"gAMA", struct.pack(">I", 45_455))
    assert near(only(path)[0]) and only(path)[1].lines() == []


def test_a_png_of_hdr_is_toned_down(tmp_path: Path) -> None:
    code = 0.42  # about 50 cd/m2
    path = save(tmp_path / "a.png", np.full((8, 8, 3), round(code * 65535), np.uint16))
    image_hwc, account = only(with_chunk(path, b"cICP", bytes([9, 16, 0, 1])))
    assert 120 < image_hwc[0, 0, 0] < 145 and "smpte2084" in account.repaired["colours"]


def test_the_picture_of_a_file_for_readers_of_data_sets(tmp_path: Path) -> None:
    assert near(read_image(save(tmp_path / "a.png", RGB_HWC)), levels=0)
    with pytest.raises(SourceError, match="holds 2 pictures"):
        read_image(pages(tmp_path / "b.tif", 2))


def jpeg_video(path: Path, orientations: Sequence[int]) -> list[np.ndarray]:
    """A video of JPEGs with EXIF, each with its orientation; what each is to look like."""
    corners_hwc = np.zeros((32, 48, 3), np.uint8)
    corners_hwc[:16, :24], corners_hwc[:16, 24:] = (250, 0, 0), (0, 250, 0)
    wanted = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for index, orientation in enumerate(orientations):
            exif, buffer = Image.Exif(), BytesIO()
            exif[0x0112], exif[0x010F] = orientation, "Camera"
            Image.fromarray(corners_hwc).save(buffer, "JPEG", exif=exif, quality=95)
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
            wanted.append(np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB")))
    return wanted


@pytest.mark.parametrize("orientations", [(1, 1, 1), (3, 3), (6, 6, 6), (5, 5), (1, 3, 3, 1), (6, 8, 6)])
@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_of_jpegs_with_exif_plays_the_right_way_up(
    tmp_path: Path, suffix: str, orientations: tuple[int, ...]
) -> None:
    wanted = jpeg_video(tmp_path / f"a{suffix}", orientations)
    source = open_source(tmp_path / f"a{suffix}")
    frames = list(source)
    assert len(frames) == len(wanted)
    for frame, wanted_hwc in zip(frames, wanted, strict=True):
        assert frame.image_hwc.shape == wanted_hwc.shape
        assert np.abs(frame.image_hwc.astype(int) - wanted_hwc).mean() < 6
    assert ("rotation" in source.account.repaired) == (set(orientations) != {1})


def test_a_heic_picture_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(SourceError, match=r"a HEIC picture.*; expected a PNG or JPEG; convert it"):
        open_source(tmp_path / "a.heic")


def test_random_harm_to_a_header_is_one_line_or_a_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    whole = []
    for suffix, options in ((".png", {}), (".jpg", {}), (".tif", {}), (".webp", {}), (".tif", {"tiffinfo": {274: 6}})):
        Image.fromarray(RGB_HWC).save(tmp_path / f"a{suffix}", **options)
        whole.append((suffix, (tmp_path / f"a{suffix}").read_bytes()))
    refused = 0
    for index in range(100):
        suffix, data = whole[index % len(whole)]
        harmed = bytearray(data[: len(data) if noise.random() < 0.8 else int(noise.integers(12, len(data)))])
        for _ in range(int(noise.integers(1, 6))):
            at = int(noise.integers(min(len(harmed), 300)))
            harmed[at : at + 4] = noise.integers(0, 256, 4, np.uint8).tobytes()
        path = tmp_path / f"b{suffix}"
        path.write_bytes(harmed)
        try:
            for frame in open_source(path):
                assert frame.image_hwc.dtype == np.uint8 and frame.image_hwc.ndim == 3
        except SourceError as e:
            refused += 1
            assert "\n" not in str(e)
    assert refused > 25
