"""The frame kernels: compiled for every GPU where nvcc is, run on the CPU where a compiler is, on a GPU where one is.

What they answer is compared with OpenCV, with `to_input` and with `draw_overlay`.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rtseg.config import OPACITY
from rtseg.engine import to_input
from rtseg.engine.cuda import frame_kernels
from rtseg.engine.cuda.frame_kernels import ARGUMENTS, LUMA, ORDERS, SOURCE, TYPES, FrameKernels
from rtseg.errors import EngineError
from rtseg.publish.colors import color_of
from rtseg.publish.overlay import _fill_object, _line_object, draw_overlay
from rtseg.publish.shown import measure
from rtseg.types import Frame, Masks

LEVEL = 1 / (255 * 0.224)  # one grey level, normalised
SHIM = Path(__file__).with_name("cuda_on_host.h")
SIZES = [(64, 64), (128, 192), (131, 97), (255, 333), (64, 65), (63, 51), (31, 33), (40, 64), (720, 1280)]


@pytest.mark.parametrize("architecture", frame_kernels.ARCHITECTURES)
def test_it_compiles_for(architecture: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    cubin = tmp_path / "frame.cubin"
    options = [*frame_kernels.OPTIONS, f"-arch={architecture}", "-Werror", "all-warnings", "-cubin"]
    done = subprocess.run([nvcc, *options, SOURCE, "-o", cubin], capture_output=True, text=True, check=False)
    if "Unsupported gpu architecture" in done.stderr:
        pytest.skip(f"this nvcc does not know {architecture}")
    assert done.returncode == 0, done.stderr
    assert all(name.encode() in cubin.read_bytes() for name in ARGUMENTS)


def test_arguments_are_those_of_the_kernels() -> None:
    """pycuda packs arguments by letters, and cannot see the kernels' own types."""
    letters = {"long": "l", "int": "i", "float": "f"}
    found = {}
    for name, text in re.findall(r"__global__ void (\w+)\(([^)]*)\)", SOURCE.read_text()):
        found[name] = "".join("P" if "*" in a else letters[a.split()[0]] for a in text.split(","))
    assert found == ARGUMENTS


class Host:
    """The kernels as plain C++, on numpy arrays."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def __call__(self, name: str, *arguments: Any) -> None:
        kinds = {"P": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "f": ctypes.c_float}
        values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        letters = ARGUMENTS[name]
        getattr(self._library, f"host_{name}")(*(kinds[k](v) for k, v in zip(letters, values, strict=True)))

    def picture(self, image_hwc: np.ndarray, size: int, order: str = "rgb", kind: int = 0) -> np.ndarray:
        planes = np.full((1, 3, size, size), 7, np.uint16 if kind else np.float32)
        pitch, (height, width, _) = image_hwc.strides[0], image_hwc.shape
        self("picture_to_input", image_hwc, pitch, ORDERS[order], height, width, planes, kind, size)
        return planes

    def nv12(self, luma: np.ndarray, chroma: np.ndarray, size: int, matrix: str, full: bool) -> np.ndarray:
        planes = np.full((1, 3, size, size), 7, np.float32)
        pitches = (luma.strides[0], chroma.strides[0])
        self("nv12_to_input", luma, chroma, *pitches, *LUMA[matrix], int(full), *luma.shape, planes, 0, size)
        return planes

    def draw(self, image_hwc: np.ndarray, logits_bhw: np.ndarray, colors: list[Any], tint: bool) -> np.ndarray:
        drawn, bits = image_hwc.copy(), np.full(image_hwc.shape[:2], 2**32 - 1, np.uint32)
        height, width = bits.shape
        tables, dark = frame_kernels.drawing_tables(colors)
        self("cover", logits_bhw, *logits_bhw.shape, bits, height, width)
        widths = frame_kernels.line_widths(height)
        self("draw", drawn, bits, len(colors), tables, dark, int(tint), *widths, height, width)
        return drawn


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    library = tmp_path_factory.mktemp("frame") / "frame.so"
    flags = ["-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", str(SOURCE.parent)]
    subprocess.run([compiler, *flags, "-x", "c++", str(SHIM), "-o", str(library)], check=True)
    return Host(library)


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours that change slowly, edges and noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(0.11 * x + k) * np.cos(0.07 * y - k) for k in range(3)]
    noise = np.random.default_rng(seed).normal(0, 9, (height, width, 1))
    image = np.clip(np.stack(planes, -1) + noise, 0, 255)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 3, 90)
    return image.astype(np.uint8)


def levels(found: np.ndarray, expected: Any) -> float:
    return float(np.abs(found - np.asarray(expected)).max() / LEVEL)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_to_the_networks_input(host: Host, height: int, width: int) -> None:
    image = scene(height, width)
    found, expected = host.picture(image, 64), to_input(image, 64)
    assert levels(found, expected) < 1.1
    assert np.mean(np.abs(found - expected.numpy()) > 0.5 * LEVEL) < 0.2  # mostly the same level
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
    rounded = torch.from_numpy(host.picture(image, 64)).to(dtype)
    assert TYPES[dtype] == kind
    assert torch.equal(torch.from_numpy(host.picture(image, 64, kind=kind).view(np.int16)), rounded.view(torch.int16))


def as_nv12(image_hwc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BT.601, limited range, by OpenCV: luma [H, W] and chroma [H / 2, W / 2, 2]."""
    height, width = image_hwc.shape[:2]
    i420 = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    u, v = np.split(i420[height * width :], 2)
    return i420[: height * width].reshape(height, width), np.stack((u, v), -1).reshape(height // 2, width // 2, 2)


def to_rgb(luma: np.ndarray, chroma: np.ndarray, matrix: str, full: bool) -> np.ndarray:
    """The standard's formula, in float64."""
    kr, kb = LUMA[matrix]
    y, (u, v) = luma.astype(float), np.moveaxis(chroma.repeat(2, 0).repeat(2, 1).astype(float) - 128, -1, 0)
    if not full:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.rint(np.stack((red, green, blue), -1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(130, 98), (40, 64), (480, 854)])
def test_nv12_is_what_opencv_makes_of_it(host: Host, height: int, width: int) -> None:
    luma, chroma = as_nv12(scene(height, width))
    rgb = cv2.cvtColor(
        np.concatenate((luma.reshape(-1), chroma.reshape(-1))).reshape(-1, width), cv2.COLOR_YUV2RGB_NV12
    )
    assert levels(host.nv12(luma, chroma, 64, "bt601", False), to_input(rgb, 64)) < 2.1  # two roundings
    swapped = np.ascontiguousarray(chroma[..., ::-1])
    assert levels(host.nv12(luma, swapped, 64, "bt601", False), to_input(rgb, 64)) > 10


@pytest.mark.parametrize("matrix", list(LUMA))
@pytest.mark.parametrize("full", [False, True])
def test_each_matrix_and_range(host: Host, matrix: str, full: bool) -> None:
    luma, chroma = as_nv12(scene(130, 98))
    found = host.nv12(luma, chroma, 64, matrix, full)
    for other in LUMA:
        for range_ in (False, True):
            off = levels(found, to_input(to_rgb(luma, chroma, other, range_), 64))
            assert (off < 1.1) == ((other, range_) == (matrix, full)), (other, range_, off)


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
        _fill_object(out, mask, seen, OPACITY)
    for mask, seen in found:
        _line_object(out, mask, seen)
    labelled = draw_overlay(Frame(image, 0, captured_ns=0), masks, budget_ms=1.0)
    if tint:  # and that is what draw_overlay draws, where no label lies
        free = np.ones((height, width), bool)
        for x0, y0, x1, y1 in labelled.label_boxes:
            free[y0:y1, x0:x1] = False
        assert np.array_equal(labelled.image_hwc[free], out[free])
    return out


@pytest.mark.parametrize(("height", "width"), [(240, 320), (1080, 700)])
@pytest.mark.parametrize("ids", [[1], [3, 1, 9], [2, 7, 4, 255]], ids=str)
@pytest.mark.parametrize("tint", [True, False])
def test_masks_are_drawn_as_the_overlay_draws_them(
    host: Host, height: int, width: int, ids: list[int], tint: bool
) -> None:
    image, logits = scene(height, width), blobs(len(ids))
    colors = [color_of(i) for i in ids]
    expected = drawn_by_overlay(image, logits, ids, tint)
    differs = (host.draw(image, logits, colors, tint) != expected).any(axis=2)
    assert differs.mean() < 1e-4  # a logit of nearly 0 may fall on either side
    changed = (expected != image).any(axis=2).mean()
    assert 0.02 < changed < 0.95
    shifted = np.roll(logits, 1, axis=2)
    assert (host.draw(image, shifted, colors, tint) != expected).any(axis=2).mean() > 0.01


def test_nothing_is_drawn_outside_the_masks(host: Host) -> None:
    image = scene(240, 320)
    empty, whole = (np.full((1, 32, 48), v, np.float32) for v in (-1024.0, 1024.0))
    assert np.array_equal(host.draw(image, empty, [color_of(1)], True), image)
    assert (host.draw(image, whole, [color_of(1)], True) != image).any(axis=2).mean() > 0.9


def test_pictures_on_the_host_are_bytes() -> None:
    picture = frame_kernels.pinned_picture(4, 6)
    assert picture.shape == (4, 6, 3) and picture.dtype == torch.uint8


def test_without_pycuda_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pycuda is not installed: pip install 'rtseg\[tensorrt\]'"):
        FrameKernels()


@pytest.fixture(scope="session")
def device_kernels() -> FrameKernels:
    pytest.importorskip("pycuda", reason="pycuda is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    return FrameKernels()


def each_stream() -> list[Callable[[], Any]]:
    return [torch.cuda.default_stream, torch.cuda.Stream]


def test_on_a_gpu_the_same(device_kernels: FrameKernels) -> None:
    image, logits, colors = scene(480, 640), blobs(2), [color_of(1), color_of(2)]
    luma, chroma = as_nv12(scene(480, 640))
    rgb = to_rgb(luma, chroma, "bt709", False)
    for make in each_stream():
        with torch.cuda.stream(make()):
            planes = torch.full((1, 3, 64, 64), float("nan"), device="cuda")
            device_kernels.picture_to_input(torch.from_numpy(image).cuda(), planes)
            assert levels(planes.cpu().numpy(), to_input(image, 64)) < 1.1
            parts = (torch.from_numpy(luma).cuda(), torch.from_numpy(chroma).cuda())
            device_kernels.nv12_to_input(*parts, planes, "bt709")
            assert levels(planes.cpu().numpy(), to_input(rgb, 64)) < 1.1
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
