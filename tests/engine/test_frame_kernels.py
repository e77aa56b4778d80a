"""The frame kernels: compiled for every GPU where nvcc or NVRTC is, run on the CPU where a compiler is, on a GPU where
one is. On the CPU they are launched as on a GPU, by tests/engine/driver_on_host.cpp in place of the CUDA driver.

What they answer is compared with OpenCV, with `to_input`, with rtseg/grab/decode/color.py and with `draw_overlay`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from rtseg.base.colors import color_of as color_of_id
from rtseg.base.defaults import OPACITY
from rtseg.base.errors import EngineError
from rtseg.base.types import Frame, Masks
from rtseg.engine import to_input
from rtseg.engine.picture import launch
from rtseg.engine.picture.frame_kernels import ARCHITECTURES, ARGUMENTS, SITES, SOURCE, TYPES, FrameKernels
from rtseg.grab.decode.color import MATRICES, color_of, to_rgb
from rtseg.grab.nvdec import LEFT
from rtseg.publish.mask_state import measure
from rtseg.publish.overlay import _draw_contour, _draw_tint, draw_overlay
from tests.engine.host_gpu import compiled_driver, host_kernels

LEVEL = 1 / (255 * 0.224)  # one grey level, normalised
SIZES = [(64, 64), (128, 192), (131, 97), (255, 333), (64, 65), (63, 51), (31, 33), (40, 64), (720, 1280)]


@pytest.mark.parametrize(
    "architecture", [a if a in (80, 90) else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES]
)
def test_nvcc_compiles_it_for(architecture: int, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    cubin = tmp_path / "frame.cubin"
    options = [*launch.OPTIONS, f"-arch=sm_{architecture}", "-Werror", "all-warnings", "-cubin"]
    done = subprocess.run([nvcc, *options, SOURCE, "-o", cubin], capture_output=True, text=True, check=False)
    if "Unsupported gpu architecture" in done.stderr or "is not defined for option" in done.stderr:
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    assert done.returncode == 0, done.stderr
    assert all(name.encode() in cubin.read_bytes() for name in ARGUMENTS)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(host_kernels(compiled_driver(tmp_path_factory.mktemp("driver"))))


class Host:
    """The kernels on the CPU, on numpy arrays."""

    def __init__(self, kernels: FrameKernels) -> None:
        self.kernels = kernels

    def picture(
        self, image_hwc: np.ndarray, size: int, order: str = "rgb", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        planes = torch.full((1, 3, size, size), 7, dtype=dtype)
        return self.kernels.picture_to_input(tensor(image_hwc), planes, order)

    def nv12(self, luma: np.ndarray, chroma: np.ndarray, matrix: str, full: bool, site: str = "center") -> np.ndarray:
        picture = torch.full((*luma.shape, 3), 7, dtype=torch.uint8)
        return self.kernels.nv12_to_picture(tensor(luma), tensor(chroma), picture, matrix, full, site).numpy()

    def draw(
        self, image_hwc: np.ndarray, logits_bhw: np.ndarray, colors: list[Any], opacity: float = OPACITY
    ) -> np.ndarray:
        return self.kernels.draw(torch.tensor(image_hwc), torch.tensor(logits_bhw), colors, opacity).numpy()


def tensor(array: np.ndarray) -> torch.Tensor:
    """The same memory, whatever its strides; torch knows none that go backwards."""
    return torch.as_strided(
        torch.from_numpy(array.base if array.base is not None else array), array.shape, array.strides
    )


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours that change slowly, edges and noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(0.11 * x + k) * np.cos(0.07 * y - k) for k in range(3)]
    noise = np.random.default_rng(seed).normal(0, 9, (height, width, 1))
    image = np.clip(np.stack(planes, -1) + noise, 0, 255)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 3, 90)
    return image.astype(np.uint8)


def levels(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max() / LEVEL)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_to_the_networks_input(host: Host, height: int, width: int) -> None:
    image = scene(height, width)
    found, expected = host.picture(image, 64), to_input(image, 64)
    assert levels(found, expected) < 1.1
    assert np.mean(np.abs(found.numpy() - expected.numpy()) > 0.5 * LEVEL) < 0.2  # mostly the same level
    assert levels(host.picture(image, 64, "bgr"), to_input(np.ascontiguousarray(image[..., ::-1]), 64)) < 1.1
    for wrong in (image[:, ::-1], image[::-1], image[..., ::-1], np.roll(image, 2, axis=1)):
        assert levels(found, to_input(np.ascontiguousarray(wrong), 64)) > 5


def test_rows_may_be_padded(host: Host) -> None:
    padded = scene(90, 128)
    cut = padded[:, :100]  # what a decoder gives: the rows go on
    assert levels(host.picture(cut, 64), to_input(np.ascontiguousarray(cut), 64)) < 1.1


@pytest.mark.parametrize(("kind", "dtype"), [(1, torch.float16), (2, torch.bfloat16)])
def test_half_planes_are_the_rounded_ones(host: Host, kind: int, dtype: torch.dtype) -> None:
    image = scene(131, 97)
    rounded = host.picture(image, 64).to(dtype)
    assert TYPES[dtype] == kind
    assert torch.equal(host.picture(image, 64, dtype=dtype).view(torch.int16), rounded.view(torch.int16))


def as_nv12(image_hwc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BT.601, limited range, by OpenCV: luma [H, W] and chroma [H / 2, W / 2, 2]."""
    height, width = image_hwc.shape[:2]
    i420 = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    u, v = np.split(i420[height * width :], 2)
    return i420[: height * width].reshape(height, width), np.stack((u, v), -1).reshape(height // 2, width // 2, 2)


def decoded(luma: np.ndarray, chroma: np.ndarray, matrix: str, full: bool) -> av.VideoFrame:
    """The same as a decoder's picture."""
    packed = np.concatenate((luma.reshape(-1), chroma.reshape(-1))).reshape(-1, luma.shape[1])
    picture = av.VideoFrame.from_ndarray(packed, format="nv12")
    picture.colorspace = {name: number for number, name in MATRICES.items()}[matrix]
    picture.color_range = 2 if full else 1
    return picture


@pytest.mark.parametrize("matrix", list(MATRICES.values()))
@pytest.mark.parametrize("full", [False, True])
def test_nv12_is_what_the_reader_of_files_makes_of_it(host: Host, matrix: str, full: bool) -> None:
    luma, chroma = as_nv12(scene(130, 98))
    found = host.nv12(luma, chroma, matrix, full).astype(int)
    picture = decoded(luma, chroma, matrix, full)
    assert np.abs(found - to_rgb(picture, color_of(picture), VideoReformatter())).max() <= 1
    alike = {"bt470bg", "smpte170m", "fcc"}  # FCC's weights are rounded ones
    for other in MATRICES.values():
        for range_ in (False, True):
            if (other, range_) != (matrix, full) and not {other, matrix} <= alike:
                off = np.abs(found - host.nv12(luma, chroma, other, range_).astype(int))
                assert off.max() > 1, (other, range_)


def recorded(image_hwc: np.ndarray, codec: str, path: Path, **options: str) -> av.VideoFrame:
    """The same picture as a decoder of that code gives it."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = image_hwc.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_hwc, format="rgb24")))
        container.mux(stream.encode())
    with av.open(path) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize(
    ("codec", "site"),
    [*[("libx264", site) for site in SITES], ("libx265", ""), ("mpeg2video", ""), ("mpeg4", ""), ("libvpx-vp9", "")],
)
def test_chroma_lies_where_the_code_has_it(host: Host, codec: str, site: str, tmp_path: Path) -> None:
    options = {"chroma_sample_location": site} if site else {}
    picture = recorded(scene(96, 128), codec, tmp_path / "clip.mkv", **options)
    site = site or ("left" if av.Codec(codec, "w").canonical_name in LEFT else "center")
    expected = to_rgb(picture, color_of(picture), VideoReformatter()).astype(int)
    planes = picture.reformat(format="nv12").planes
    luma, chroma = (np.array(memoryview(p)).reshape(-1, p.line_size)[:, :128].copy() for p in planes)
    for other in SITES:
        found = host.nv12(luma, chroma.reshape(48, 64, 2), color_of(picture).matrix, False, other)
        assert (np.abs(found - expected).max() <= 1) == (other == site), other


@pytest.mark.parametrize(("height", "width"), [(2, 2), (40, 64), (480, 854)])
def test_nv12_of_other_sizes_and_padded_rows(host: Host, height: int, width: int) -> None:
    luma, chroma = as_nv12(scene(height, width))
    picture = decoded(luma, chroma, "bt709", False)
    expected = to_rgb(picture, color_of(picture), VideoReformatter()).astype(int)
    padded = [np.ascontiguousarray(np.pad(p, ((0, 0), (0, 32), *[(0, 0)] * (p.ndim - 2)))) for p in (luma, chroma)]
    cut = (padded[0][:, :width], padded[1][:, : width // 2])
    assert np.abs(host.nv12(*cut, "bt709", False) - expected).max() <= 1
    if height > 2:
        for wrong in (chroma[..., ::-1], np.roll(chroma, 1, axis=1), np.roll(chroma, 1, axis=0)):
            off = np.abs(host.nv12(luma, np.ascontiguousarray(wrong), "bt709", False) - expected)
            assert off.max() > 20


def blobs(objects: int, seed: int = 0) -> np.ndarray:
    """Smooth logits [objects, 32, 48] with edges, holes and overlaps, some at the border."""
    noise = np.random.default_rng(seed).normal(0, 1, (objects, 32, 48)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(n, (0, 0), 3) * 20 for n in noise])


def drawn_by_overlay(image: np.ndarray, logits: np.ndarray, ids: list[int], tint: bool) -> np.ndarray:
    """`draw_overlay` without the labels."""
    n, (height, width) = len(ids), image.shape[:2]
    masks = Masks(0, "", 0, 0, height, width, tuple(ids), ("",) * n, (1.0,) * n, (1.0,) * n, logits)
    found = [(mask, seen) for mask, seen in (measure(masks, i) for i in ids) if seen.area]
    out = image.copy()
    for mask, seen in found if tint else []:
        _draw_tint(out, mask, seen, OPACITY)
    for mask, seen in found:
        _draw_contour(out, mask, seen)
    labelled = draw_overlay(Frame(image, 0, captured_ns=0), masks, budget_ms=1.0)
    if tint:  # and that is what draw_overlay draws, where no label lies
        free = np.ones((height, width), bool)
        for x0, y0, x1, y1 in labelled.label_boxes:
            free[y0:y1, x0:x1] = False
        assert np.array_equal(labelled.image_hwc[free], out[free])
    return out


@pytest.mark.parametrize(
    ("height", "width", "ids", "tint"),
    [
        *[(240, 320, ids, tint) for ids in ([1], [3, 1, 9], [2, 7, 4, 255]) for tint in (True, False)],
        (1080, 700, [3, 1, 9], True),
        *[pytest.param(1080, 700, ids, True, marks=pytest.mark.slow) for ids in ([1], [2, 7, 4, 255])],
    ],
    ids=str,
)
def test_masks_are_drawn_as_the_overlay_draws_them(
    host: Host, height: int, width: int, ids: list[int], tint: bool
) -> None:
    image, logits = scene(height, width), blobs(len(ids))
    colors = [color_of_id(i) for i in ids]
    expected = drawn_by_overlay(image, logits, ids, tint)
    opacity = OPACITY * tint
    differs = (host.draw(image, logits, colors, opacity) != expected).any(axis=2)
    assert differs.mean() < 1e-4  # a logit of nearly 0 may fall on either side
    changed = (expected != image).any(axis=2).mean()
    assert 0.02 < changed < 0.95
    shifted = np.roll(logits, 1, axis=2)
    assert (host.draw(image, shifted, colors, opacity) != expected).any(axis=2).mean() > 0.01


def test_nothing_is_drawn_outside_the_masks(host: Host) -> None:
    image = scene(240, 320)
    empty, whole = (np.full((1, 32, 48), v, np.float32) for v in (-1024.0, 1024.0))
    assert np.array_equal(host.draw(image, empty, [color_of_id(1)]), image)
    assert (host.draw(image, whole, [color_of_id(1)]) != image).any(axis=2).mean() > 0.9


def test_what_does_not_fit_is_refused_in_one_line(host: Host) -> None:
    planes, picture = torch.zeros(1, 3, 64, 64), torch.zeros(40, 64, 3, dtype=torch.uint8)
    luma, chroma = torch.zeros(40, 64, dtype=torch.uint8), torch.zeros(20, 32, 2, dtype=torch.uint8)
    kernels = host.kernels
    for wrong, what in (
        (lambda: kernels.picture_to_input(picture.float(), planes), r"picture: torch.float32"),
        (lambda: kernels.picture_to_input(picture, planes[:, :2]), r"planes: torch.float32 \(1, 2, 64, 64\)"),
        (lambda: kernels.picture_to_input(picture, planes, "grb"), "order = 'grb'; expected one of: rgb, bgr"),
        (lambda: kernels.nv12_to_picture(luma, chroma[:19], picture), "NV12 picture: luma"),
        (lambda: kernels.nv12_to_picture(luma[:39], chroma, picture[:39]), "expected even sides"),
        (lambda: kernels.nv12_to_picture(luma, chroma, picture[:, :32]), r"picture: \(40, 32, 3\)"),
        (lambda: kernels.nv12_to_picture(luma, chroma, picture, "bt2100"), "matrix = 'bt2100'"),
        (lambda: kernels.draw(picture, planes[0], []), "3 masks, 0 colours"),
        (lambda: kernels.picture_to_input(picture, planes.to("meta")), "these frame kernels take tensors on cpu"),
    ):
        with pytest.raises(EngineError, match=what):
            wrong()


@pytest.fixture(scope="session")
def device_kernels() -> FrameKernels:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    return FrameKernels()


def each_stream() -> list[Callable[[], Any]]:
    return [torch.cuda.default_stream, torch.cuda.Stream]


def test_on_a_gpu_the_same(host: Host, device_kernels: FrameKernels) -> None:
    image, logits, colors = scene(480, 640), blobs(2), [color_of_id(1), color_of_id(2)]
    luma, chroma = as_nv12(scene(480, 640))
    for make in each_stream():
        with torch.cuda.stream(make()):
            planes = torch.full((1, 3, 64, 64), float("nan"), device="cuda")
            device_kernels.picture_to_input(torch.from_numpy(image).cuda(), planes)
            assert levels(planes.cpu(), to_input(image, 64)) < 1.1
            picture = torch.zeros(480, 640, 3, dtype=torch.uint8, device="cuda")
            device_kernels.nv12_to_picture(torch.from_numpy(luma).cuda(), torch.from_numpy(chroma).cuda(), picture)
            assert np.abs(picture.cpu().numpy().astype(int) - host.nv12(luma, chroma, "bt709", False)).max() <= 1
            drawn = device_kernels.draw(torch.from_numpy(image).cuda(), torch.from_numpy(logits).cuda(), colors)
            expected = drawn_by_overlay(image, logits, [1, 2], True)
            assert (drawn.cpu().numpy() != expected).any(axis=2).mean() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu_half_planes(device_kernels: FrameKernels, dtype: torch.dtype) -> None:
    picture = torch.from_numpy(scene(480, 640)).cuda()
    exact, half = (torch.zeros(1, 3, 64, 64, device="cuda", dtype=d) for d in (torch.float32, dtype))
    device_kernels.picture_to_input(picture, exact)
    device_kernels.picture_to_input(picture, half)
    assert torch.equal(exact.to(dtype), half)
