"""Opening an engine, running it in half precision, and the way a picture reaches the network."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rtseg
from rtseg.base.errors import ConfigError, EngineError, WeightsError
from rtseg.engine import Engine, Features, PromptBatch, Recall, open_engine, opening, runtimes, to_input
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import exact_products
from rtseg.sam2 import Sam2, get_preset, save_weights

ROOT = Path(__file__).parents[2]
NANO = ROOT / "rtseg" / "sam2" / "shipped" / "nano.safetensors"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(image_size=128, runtime="torch")


def test_the_default_recipe() -> None:
    opened = open_engine()
    assert opened.recipe == runtimes.settle(Recipe()) and opened.image_size == 320
    assert opened.preset == get_preset("nano")
    assert opened.weights_hash == sha256(NANO)
    assert opened.recipe.precision in opened.description


@pytest.mark.parametrize(("flags", "precision"), [(["avx2"], "fp32"), (["avx2", "amx_bf16"], "bf16"), ([], "fp32")])
def test_auto_is_bf16_only_where_it_is_native(
    flags: list[str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.engine.runtimes.cpu_flags", lambda: flags)
    assert open_engine(image_size=64, runtime="torch").recipe.precision == precision
    assert open_engine(image_size=64, runtime="torch", precision="fp32").recipe.precision == "fp32"


@pytest.mark.parametrize(
    ("here", "precision"),
    [(["avx2"], "int16"), (["avx2", "avx512"], "int16"), (["avx2", "avx512", "avx512bf16"], "bf16")],
)
def test_auto_on_the_kernels(here: list[str], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.engine.cpu.isa.available_isas", lambda: here)
    assert runtimes.settle(Recipe()).precision == precision and runtimes.settle(Recipe()).runtime == "cpu"


def test_auto_without_kernels_is_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """And torch where that cannot be: another precision is asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtimes, "kernel_precisions", lambda model: ())
    assert runtimes.settle(Recipe()).runtime == "onnx"
    assert runtimes.best_runtime(Recipe(precision="bf16")) == "cpu"


def test_keywords_override_a_recipe(tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = tmp_path / "other.safetensors"
    save_weights(Sam2(get_preset("nano"), 64), other)
    path = ROOT / "engines" / "nano-cpu.toml"
    plain = open_engine(path, image_size=64, runtime="torch", precision="fp32")
    changed = open_engine(
        path, image_size=64, weights=other, runtime="torch", precision="bf16", max_objects=2, policy="fifo"
    )
    assert plain.recipe.path == changed.recipe.path == path
    assert changed.weights_hash == sha256(other) != plain.weights_hash
    assert changed.recipe.memory == replace(plain.recipe.memory, policy="fifo")
    assert (changed.recipe.max_objects, changed.recipe.precision) == (2, "bf16")
    assert "bf16" in changed.description and "bf16" not in plain.description
    assert asdict(open_engine(plain.recipe).recipe) == asdict(plain.recipe)
    image = np.zeros((64, 64, 3), np.uint8)
    assert not torch.allclose(plain.encode_image(image).top, changed.encode_image(image).top, atol=1e-2)


@pytest.mark.parametrize("runtime", ["cuda", "tensorrt"])
def test_a_runtime_that_needs_a_gpu(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=f'runtime = "{runtime}": torch .* sees no CUDA device; use "cpu"'):
        open_engine(runtime=runtime)


def test_a_runtime_that_nobody_knows() -> None:
    with pytest.raises(ConfigError, match="runtime = 'tpu'; expected one of: torch, cpu"):
        open_engine(runtime="tpu")


def test_auto_is_the_best_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtimes.best_runtime(Recipe()) in ("cpu", "onnx")
    assert open_engine(image_size=64, runtime="auto").recipe.runtime in ("cpu", "onnx")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr(runtimes, "tensorrt_loads", lambda: False)
    assert runtimes.best_runtime(Recipe()) == "cuda"
    monkeypatch.setattr(runtimes, "tensorrt_loads", lambda: True)
    assert runtimes.best_runtime(Recipe()) == "tensorrt"


def test_an_engine_that_is_not_built_says_so(tmp_path: Path) -> None:
    recipe = shutil.copy(ROOT / "engines" / "nano-cpu.toml", tmp_path)
    opened = open_engine(recipe, image_size=64)
    assert "not built yet; run: rtseg build" in opened.description


def test_an_engine_that_is_replaced_while_it_is_opened_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps, opened, fails = iter([1, 2]), [], False
    monkeypatch.setattr("rtseg.engine.opening.stamp", lambda folder: next(stamps))
    plain = opening._open_recipe

    def open_(recipe: Recipe) -> Engine:
        opened.append(recipe)
        if fails and len(opened) == 1:
            raise EngineError("half of it is gone")
        return plain(recipe)

    monkeypatch.setattr("rtseg.engine.opening._open_recipe", open_)
    open_engine(image_size=64, runtime="torch", precision="fp32")
    assert len(opened) == 2
    stamps, fails = iter([1, 2]), True
    opened.clear()
    open_engine(image_size=64, runtime="torch", precision="fp32")
    assert len(opened) == 2
    stamps = iter([1, 1])
    opened.clear()
    with pytest.raises(EngineError, match="half of it is gone"):
        open_engine(image_size=64)
    assert len(opened) == 1


def test_exact_products_are_of_these_calls_alone() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32, cudnn.allow_tf32 = True, True
        with pytest.raises(ZeroDivisionError), exact_products():
            assert not matmul.allow_tf32 and not cudnn.allow_tf32
            raise ZeroDivisionError
        assert matmul.allow_tf32 and cudnn.allow_tf32
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def allowed_as_at_first() -> None:
    backends = torch.backends
    for holder in (backends, backends.cudnn):
        holder.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for holder in (backends.cuda.matmul, backends.mkldnn.matmul):
        holder.fp32_precision = "none"


ALLOWED: dict[str, Callable[[Any], Any]] = {
    "by the old name": lambda backends: torch.set_float32_matmul_precision("high"),
    "for all": lambda backends: setattr(backends, "fp32_precision", "tf32"),
    "for products": lambda backends: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "for no convolution": lambda backends: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "nowhere in cuDNN": lambda backends: setattr(backends.cudnn, "fp32_precision", "ieee"),
}


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="older torch has one name for it")
@pytest.mark.parametrize("name", ALLOWED)
def test_exact_products_however_tf32_was_allowed(name: str) -> None:
    """torch has an old and a new name for each switch, and refuses to read one where the other says otherwise."""
    backends: Any = torch.backends

    def now() -> list[str]:
        return [part.fp32_precision for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]

    try:
        allowed_as_at_first()
        assert now() == ["none", "tf32", "tf32"]
        ALLOWED[name](backends)
        before = now()
        with exact_products():
            assert now()[:2] == ["ieee", "ieee"]
        assert now() == before
    finally:
        allowed_as_at_first()


def test_weights_that_are_not_shipped() -> None:
    with pytest.raises(WeightsError, match="'package:pico': not shipped .* there are: package:micro, package:nano"):
        open_engine(weights="package:pico")


def test_weights_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is `model` in the recipe the preset of this file\\? It fits 'nano'"):
        open_engine(model="sam2.1-tiny")
    earlier = tmp_path / "earlier.safetensors"  # of `nano` before it had a convolutional trunk
    save_weights(Sam2(get_preset("nano-hiera"), 64), earlier)
    with pytest.raises(WeightsError, match="It fits 'nano-hiera'"):
        open_engine(weights=earlier)
    with pytest.raises(WeightsError, match="absent.pt: no such file"):
        open_engine(weights=tmp_path / "absent.pt")


CLIP = "synthetic:laparoscopy?seconds=0.2&seed=10006&width=320&height=240"


def follow(engine: Engine, object_id: int) -> np.ndarray:
    """Masks of one tool on every frame, from its true mask on the first one."""
    tracker, masks = rtseg.Tracker(engine), []
    for frame in rtseg.open_source(CLIP):
        if frame.seq == 0:
            assert frame.truth_hw is not None
            tracker.prompt(1, mask=frame.truth_hw == object_id)
        masks.append(tracker.step(frame).mask(1))
    return np.stack(masks)


def ious(a_thw: np.ndarray, b_thw: np.ndarray) -> np.ndarray:
    return np.asarray([(a & b).sum() / max((a | b).sum(), 1) for a, b in zip(a_thw, b_thw, strict=True)])


@pytest.mark.slow
def test_half_precision_gives_the_same_masks() -> None:
    half, whole = (open_engine(image_size=256, runtime="torch", precision=p) for p in ("bf16", "fp32"))
    reference = follow(whole, 1)
    assert reference.any(axis=(1, 2)).all()
    assert ious(follow(half, 1), reference).min() > 0.97
    assert ious(follow(half, 2), reference).max() < 0.5


def answers(engine: Engine, image: np.ndarray, seed: int) -> list[Tensor]:
    """Everything that the four verbs say about an image, a memory and a click."""
    g = torch.Generator().manual_seed(seed)
    features = engine.encode_image(image)
    recall = Recall.from_maps(torch.randn(2, 64, 8, 8, generator=g), (6, 0), torch.randn(2, 128, generator=g), (5, 1))
    conditioned = engine.attend(features, [recall, None])
    point = PromptBatch(torch.rand(2, 1, 2, generator=g) * 128, torch.ones(2, 1, dtype=torch.int64))
    decoded = engine.decode(conditioned, features, point)
    mask = torch.randn(2, 1, 32, 32, generator=g)
    written = engine.remember(features, mask, torch.tensor([1.0, -1.0]), [False, True])
    memory = torch.stack([w.map_chw for w in written])
    return [
        features.top, features.mid, features.fine, conditioned, memory,
        decoded.logits_b1hw, decoded.iou_b, decoded.score_b, decoded.pointer_bc,
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_kept_between_calls(precision: str) -> None:
    engine = open_engine(image_size=128, runtime="torch", precision=precision)
    one, two = (np.random.default_rng(k).integers(0, 255, (90, 120, 3), dtype=np.uint8) for k in (1, 2))
    first = answers(engine, one, 1)
    copies = [t.clone() for t in first]
    other = answers(engine, two, 2)
    again = answers(engine, one, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))  # nor are answers written over later
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(t.dtype == torch.float32 and not t.requires_grad for t in first)
    shared = {t.untyped_storage().data_ptr() for t in first} & {t.untyped_storage().data_ptr() for t in again}
    assert not shared


def test_shapes_of_the_verbs(engine: Engine) -> None:
    shapes = [tuple(t.shape) for t in answers(engine, np.zeros((128, 128, 3), np.uint8), 0)]
    assert shapes == [
        (1, 128, 8, 8), (1, 32, 16, 16), (1, 16, 32, 32), (2, 128, 8, 8), (2, 64, 8, 8),
        (2, 1, 32, 32), (2,), (2,), (2, 128),
    ]  # fmt: skip
    assert isinstance(engine.encode_image(np.zeros((128, 128, 3), np.uint8)), Features)


def overlap(source: int, target: int) -> np.ndarray:
    """How much of each source pixel lies in each target pixel, [target, source]; rows sum to 1."""
    step = source / target
    starts = np.arange(target)[:, None] * step
    pixels = np.arange(source)[None]
    shared = np.minimum(starts + step, pixels + 1) - np.maximum(starts, pixels)
    return np.asarray(np.clip(shared, 0, None) / step)


def between(source: int, target: int) -> np.ndarray:
    """Linear interpolation between pixel centres, [target, source]; the border repeats."""
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)[None])))


def expected_input(image_hwc: np.ndarray, size: int) -> np.ndarray:
    """`to_input`, slowly: products with two matrices, then ImageNet's mean and deviation."""
    height, width = image_hwc.shape[:2]
    weigh = overlap if min(height, width) >= size else between
    square_chw = weigh(height, size) @ image_hwc.transpose(2, 0, 1).astype(float) @ weigh(width, size).T
    normal_hwc = (square_chw.transpose(1, 2, 0) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return np.asarray(normal_hwc.transpose(2, 0, 1)[None])


def picture(height: int, width: int, grey: bool = False) -> np.ndarray:
    """Structure at several scales, and another in each channel, or the same in all."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(0.11 * x + k) * np.cos(0.07 * y - k) for k in ((0, 0, 0) if grey else (0, 1, 2))]
    noise = np.random.default_rng(0).normal(0, 9, (height, width, 1))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


LEVEL = 1 / (255 * 0.224)  # one of 256 grey values, normalised: what rounding to uint8 may cost


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (128, 192), (131, 97), (255, 333), (64, 65), (63, 51), (31, 33), (40, 64)]
)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_a_picture_as_the_network_sees_it(height: int, width: int, grey: bool) -> None:
    image_hwc = picture(height, width, grey)
    seen = to_input(image_hwc, 64)
    assert seen.shape == (1, 3, 64, 64) and seen.dtype == torch.float32
    assert np.abs(seen.numpy() - expected_input(image_hwc, 64)).max() < 1.1 * LEVEL
    for wrong in (image_hwc[:, ::-1], image_hwc[::-1], np.roll(image_hwc, 2, axis=1)):
        assert np.abs(to_input(wrong, 64).numpy() - expected_input(image_hwc, 64)).max() > 5 * LEVEL
    if not grey:
        assert np.abs(to_input(image_hwc[..., ::-1], 64).numpy() - expected_input(image_hwc, 64)).max() > 5 * LEVEL


def test_a_thin_tool_does_not_fall_between_pixels() -> None:
    """One white line of a 1080p picture: area averaging keeps its brightness wherever it lies."""
    sums = []
    for column in range(960, 968):
        image_hwc = np.zeros((1080, 1920, 3), np.uint8)
        image_hwc[:, column] = 255
        sums.append(float((to_input(image_hwc, 64) - to_input(np.zeros_like(image_hwc), 64)).sum()))
    assert min(sums) > 0.8 * max(sums) > 0


def test_the_picture_is_not_changed() -> None:
    image_hwc = picture(50, 70)
    before = image_hwc.copy()
    image_hwc.flags.writeable = False
    to_input(image_hwc, 64).zero_()
    assert np.array_equal(image_hwc, before)
