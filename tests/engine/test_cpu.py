"""The kernels against torch, on every instruction set that this CPU has, and the `cpu` engine on whole clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rtseg
from rtseg.base.errors import EngineError
from rtseg.engine import Engine, cpu
from rtseg.engine.cpu import isa as isas
from rtseg.engine.cpu.kernels import F32, GELU, INT16, NONE, RELU, Kernels, Normed, Packed
from rtseg.engine.picture.cpu_kernel import CpuPicture
from rtseg.engine.picture.tensors import to_input
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Recall, Sam2, get_preset, load_weights
from tests.shared import plain

NANO = Path(__file__).parents[2] / "rtseg" / "sam2" / "shipped" / "nano.safetensors"
LIMITS = {"fp32": 1e-4, "int16": 0.004, "bf16": 0.01, "int8": 0.03}  # of the norm of the answer
PAIRS = [(isa, precision) for isa in isas.ISAS for precision, runs_on in isas.PREFERRED.items() if isa in runs_on]


def has(isa: str) -> bool:
    return isas.why_not() is None and isa in isas.available_isas()


def pairs(*precisions: str) -> list[object]:
    """Every instruction set with every precision that it runs; what this CPU lacks is skipped, and says so."""
    return [
        pytest.param(
            (isa, precision), id=f"{isa}-{precision}",
            marks=pytest.mark.skipif(not has(isa), reason=f"not shown: {isas.why_not() or f'this CPU has no {isa}'}"),
        )
        for isa, precision in PAIRS
        if precision in (precisions or LIMITS)
    ]  # fmt: skip


def error(ours: Tensor, reference: Tensor) -> float:
    return float((ours.detach().float() - reference.detach()).norm() / reference.detach().norm())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    layer.weight.copy_(random(outputs, inputs, seed=1) / math.sqrt(inputs))
    layer.bias.copy_(random(outputs, seed=2))
    return layer


def norm_of(channels: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(channels, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(1 + 0.2 * random(channels, seed=3))
    norm.bias.copy_(0.2 * random(channels, seed=4))
    return norm


@pytest.fixture(scope="session", params=pairs())
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(*request.param)


def limit_of(kernels: Kernels) -> float:
    """What stands in for int8 where a CPU multiplies no bytes is as exact as int16."""
    return LIMITS["int16" if kernels.kind == INT16 else kernels.precision]


LEVEL = 1 / (255 * 0.224)  # one grey level of the middle plane, as the network sees it


@pytest.mark.parametrize(
    ("height", "width", "size"), [(720, 1280, 256), (512, 640, 256), (1080, 1920, 224), (97, 131, 64), (60, 90, 64)]
)
def test_a_picture_is_squeezed_as_opencv_does(kernels: Kernels, height: int, width: int, size: int) -> None:
    draw = np.random.default_rng(0)
    smooth = cv2.resize(draw.integers(0, 256, (9, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    image_hwc = np.where(draw.random((height, width, 1)) < 0.3, draw.integers(0, 256, smooth.shape, np.uint8), smooth)
    squeeze, expected = CpuPicture(kernels, size), to_input(image_hwc, size)
    apart = (squeeze(image_hwc) - expected).abs()
    assert apart.max() < 1.1 * LEVEL
    # Where the mean is near half a level; OpenCV enlarges with weights of 11 bits.
    few = 0.01 if height >= size else 0.2
    assert (apart > 0.5 * LEVEL).float().mean() < few
    views = image_hwc[:, ::-1], np.pad(image_hwc, ((0, 0), (0, 9), (0, 0)))[:, :width]
    for view, same in zip(views, (expected.flip(3), expected), strict=True):
        assert ((squeeze(view) - same).abs() > 0.5 * LEVEL).float().mean() < few
    assert ((squeeze(image_hwc[..., ::-1]) - expected).abs() > 0.5 * LEVEL).float().mean() > 0.3


def test_a_picture_of_another_kind_is_refused(kernels: Kernels) -> None:
    with pytest.raises(EngineError, match="a picture float64"):
        CpuPicture(kernels, 64)(np.zeros((90, 90, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 16, 16), (7, 48, 144), (97, 96, 80), (200, 384, 1536)])
@pytest.mark.parametrize("activation", [NONE, RELU, GELU])
def test_linear(kernels: Kernels, rows: int, inputs: int, outputs: int, activation: int) -> None:
    layer, norm, x = layer_of(inputs, outputs), norm_of(inputs), random(rows, inputs)
    added = random(rows, outputs, seed=5)
    packed, act = Packed(kernels, layer.weight, layer.bias), [nn.Identity(), F.relu, F.gelu][activation]
    limit = limit_of(kernels)
    assert error(kernels.linear(packed, x, activation=activation), act(layer(x))) < limit
    normed = kernels.linear(packed, x, Normed(norm), activation, added)
    assert error(normed, act(layer(norm(x))) + added) < limit
    assert error(normed, act(layer(x)) + added) > limit
    halves = kernels.linear(packed, x.to(kernels.half), half=True)
    assert halves.dtype == kernels.half and error(halves, layer(x.to(kernels.half).float())) < limit
    kernels.linear(packed, x, Normed(norm), activation, added, out=added)
    assert torch.equal(added, normed)


def test_a_table_begins_anew(kernels: Kernels) -> None:
    layer, x, table = layer_of(32, 48), random(21, 32), random(7, 48, seed=6)
    packed = Packed(kernels, layer.weight, layer.bias)
    assert error(kernels.linear(packed, x, added=table), layer(x) + table.repeat(3, 1)) < limit_of(kernels)


@pytest.mark.parametrize(("rows", "channels"), [(5, 48), (130, 96), (300, 256)])
def test_mlp(kernels: Kernels, rows: int, channels: int) -> None:
    one, two, norm, x = (
        layer_of(channels, 4 * channels),
        layer_of(4 * channels, channels),
        norm_of(channels),
        random(rows, channels),
    )
    packed = [Packed(kernels, layer.weight, layer.bias) for layer in (one, two)]
    expected = two(F.gelu(one(norm(x))))
    limit = limit_of(kernels)
    assert error(kernels.mlp(*packed, x, Normed(norm), GELU), expected) < limit
    assert error(kernels.mlp(*packed, x, Normed(norm), RELU), expected) > limit
    assert error(kernels.mlp(*packed, x, Normed(norm), GELU, added=x.clone()), x + expected) < limit


def test_gelu_is_the_exact_one(kernels: Kernels) -> None:
    """An identity layer shows the activation alone, within what the precision leaves of its argument."""
    x = torch.linspace(-9, 9, 16 * 400).view(400, 16).bfloat16().float()
    packed, close = Packed(kernels, torch.eye(16), None, exact=True), 4e-4 if kernels.exact != INT16 else 2e-3
    assert (kernels.linear(packed, x, activation=GELU) - F.gelu(x)).abs().max() < close
    if close < 1e-3:
        assert (kernels.linear(packed, x, activation=GELU) - F.gelu(x, approximate="tanh")).abs().max() > close


def attention(q: Tensor, k: Tensor, v: Tensor, windows: int, heads: int) -> Tensor:
    parts = (t.float().view(windows, len(t) // windows, heads, -1).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2).flatten(0, 1)


@pytest.mark.parametrize(
    ("windows", "queries", "keys", "heads", "d", "width"),
    [
        (40, 16, 16, 2, 48, 48),
        (9, 49, 49, 4, 32, 32),
        (1, 100, 700, 1, 256, 64),
        (1, 8, 1000, 8, 16, 16),
        (3, 33, 77, 1, 64, 128),
    ],
)
def test_attention(kernels: Kernels, windows: int, queries: int, keys: int, heads: int, d: int, width: int) -> None:
    q, k = (
        random(windows * queries, heads * d).to(kernels.half),
        random(windows * keys, heads * d, seed=1).to(kernels.half),
    )
    v = random(windows * keys, heads * width, seed=2).to(kernels.half)
    out = torch.empty(windows * queries, heads * width, dtype=kernels.half)
    found = kernels.attention(q, k, v, heads, out, windows=windows)
    assert error(found, attention(q, k, v, windows, heads)) < limit_of(kernels)
    assert error(found, attention(q, k, v.flip(0), windows, heads)) > 0.1


def test_attention_in_windows_of_a_map(kernels: Kernels) -> None:
    """Windows that reach over the edge see a row that stands for nothing, and leave out queries that are not there."""
    from rtseg.engine.cpu.network import real_first, windows_of

    index = windows_of(5, 7, 4)
    qkv, absent = random(35, 96).to(kernels.half), random(2, 32, seed=1).to(kernels.half)
    q, k, v = (qkv[:, i : i + 32] for i in (0, 32, 64))
    out = torch.zeros(35, 32, dtype=kernels.half)
    kernels.attention(
        q, k, v, 2, out, windows=len(index), q_index=real_first(index), k_index=index, absent=(absent[0], absent[1])
    )
    for window in index:
        seen = window.long()
        keys, values = (torch.where(seen[:, None] < 0, a, t[seen]) for a, t in zip(absent, (k, v), strict=True))
        rows = seen[seen >= 0]
        assert error(out[rows], attention(q[rows], keys, values, 1, 2)) < limit_of(kernels)


def test_read(kernels: Kernels) -> None:
    """Packed memories, each at its slot, are read as one row of keys."""
    counts, d, width = [300, 64, 20], 32, 16
    q = random(50, d).to(kernels.half)
    keys = [random(n, d, seed=n).to(kernels.half) for n in counts]
    values = [random(n, width, seed=n + 1).to(kernels.half) for n in counts]
    slots = [random(n, d, seed=n + 2).to(kernels.half) for n in counts]
    packed = [(kernels.pack_keys(k)[None], kernels.pack_keys(s)[None]) for k, s in zip(keys, slots, strict=True)]
    packed_values = [kernels.pack_values(v) for v in values]
    if kernels.scores != F32:
        rounded = [kernels.round_keys(k, s, n) for (k, s), n in zip(packed, counts, strict=True)]
        found = kernels.read(q, [k[0] for k, _ in rounded], [s[0] for _, s in rounded], packed_values, counts)
    else:
        found = kernels.read(q, [kernels.add(k, s)[0] for k, s in packed], None, packed_values, counts)
    at_slots = torch.cat(keys).float() + torch.cat(slots).float()
    assert error(found, attention(q, at_slots, torch.cat(values), 1, 1)) < limit_of(kernels)
    assert error(found, attention(q, torch.cat(keys), torch.cat(values), 1, 1)) > 0.1


def test_pooling_and_norm(kernels: Kernels) -> None:
    x = random(6, 10, 96)
    wide = F.max_pool2d(x[..., 32:64].permute(2, 0, 1), 2).permute(1, 2, 0)
    assert torch.equal(kernels.pool(x[..., 32:64]), wide)
    assert torch.equal(
        kernels.pool(x.to(kernels.half)).float(),
        F.max_pool2d(x.to(kernels.half).float().permute(2, 0, 1), 2).permute(1, 2, 0),
    )
    norm = norm_of(96)
    assert error(kernels.norm(Normed(norm), x.flatten(0, 1), half=False), norm(x.flatten(0, 1))) < 1e-5


def test_as_many_threads_as_torch_has(any_precision: str) -> None:
    """In a thread that has asked torch for nothing yet, too."""
    engine = cpu.open(nano(), replace(RECIPE, precision=any_precision), "", None)
    picture, found, before = np.zeros((64, 64, 3), np.uint8), [], torch.get_num_threads()
    engine._verbs._kernels.use = found.append

    def segment() -> None:
        engine.encode_image(picture)

    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            thread = Thread(target=segment)
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [1, 3]


def test_threads_share_the_work_and_change_nothing(kernels: Kernels) -> None:
    """Also while two threads ask at once, and one of them finds the workers taken."""
    layer, x = layer_of(96, 192), random(900, 96)
    packed = Packed(kernels, layer.weight, layer.bias)
    kernels.use(1)
    alone, found = kernels.linear(packed, x), []

    def ask() -> None:
        kernels.use(3)
        found.extend(torch.equal(kernels.linear(packed, x), alone) for _ in range(40))

    askers = [Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(found) == 80 and all(found)


def test_what_does_not_fit_is_refused(kernels: Kernels) -> None:
    with pytest.raises(EngineError, match="a layer of 32 to 20: the CPU kernels want multiples of 16"):
        Packed(kernels, random(20, 32), None)


def test_rtseg_isa_restricts_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    if isas.why_not():
        pytest.skip(f"not shown: {isas.why_not()}")
    monkeypatch.setenv("RTSEG_ISA", "avx2")
    assert isas.available_isas() == ["avx2"] and isas.isa_for("int8") == "avx2"
    with pytest.raises(
        EngineError, match="bf16 wants avx512bf16; the CPU kernels have avx2 here: take fp32, int16, int8"
    ):
        isas.isa_for("bf16")
    assert "avx2 kernels" in cpu.open(nano(), replace(RECIPE, precision="int16"), "", None).description
    monkeypatch.setenv("RTSEG_ISA", "avx3")
    with pytest.raises(
        EngineError, match="RTSEG_ISA=avx3: no such instruction set; did you mean 'avx2'|nearest|expected"
    ):
        isas.available_isas()


def test_a_mistake_in_rtseg_isa_is_not_passed_over_by_auto(any_precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEG_ISA", "avx3")
    with pytest.raises(EngineError, match="RTSEG_ISA=avx3: no such instruction set"):
        rtseg.open_engine(image_size=64)


def test_an_isa_that_the_cpu_lacks_and_a_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def rt_isas(self) -> int:
            return self.bits

        bits = 1

    old = Old()
    monkeypatch.setattr(isas, "library", lambda: old)
    monkeypatch.setenv("RTSEG_ISA", "avx512")
    with pytest.raises(EngineError, match="RTSEG_ISA=avx512: this CPU has avx2; set one of these, or unset RTSEG_ISA"):
        isas.available_isas()
    old.bits = 0
    with pytest.raises(EngineError, match='want AVX2 and FMA, which this CPU lacks; take runtime = "onnx"'):
        isas.available_isas()


def test_without_the_extension_module_torch_or_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    isas.library.cache_clear()
    monkeypatch.setattr(isas, "EXTENSION_SUFFIXES", [".nowhere"])
    try:
        assert "install a C++ compiler (Debian: g++) and rtseg again" in str(isas.why_not())
        engine = cpu.open(nano(), RECIPE, "", None)
        assert "cpu: torch" in engine.description and "were not built when rtseg was installed" in engine.description
        with pytest.raises(EngineError, match="int8 runs on the CPU kernels only, and .*not built"):
            cpu.open(nano(), replace(RECIPE, precision="int8"), "", None)
    finally:
        isas.library.cache_clear()


# ---------------------------------------------------------------------------------------------------- whole clips

CLIP = "synthetic:laparoscopy?seconds=1&seed=10049&width=320&height=240"
RECIPE = Recipe(image_size=256, precision="fp32", max_objects=3)


def nano() -> Sam2:
    net = Sam2(get_preset("nano"), RECIPE.image_size)
    load_weights(net, NANO)
    return net


@pytest.fixture(params=pairs())
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def any_precision() -> str:
    """One that the kernels run in here."""
    if isas.why_not():
        pytest.skip(f"not shown: {isas.why_not()}")
    return "bf16" if has("avx512bf16") and "avx512bf16" in isas.available_isas() else "int16"


def on_kernels(pair: tuple[str, str], recipe: Recipe | None = None) -> cpu.CpuEngine:
    """nano on the kernels of one instruction set and precision."""
    recipe = recipe or RECIPE
    return cpu.CpuEngine(nano(), replace(recipe, precision=pair[1]), "", Kernels(*pair))


def follow(engine: Engine, ids: tuple[int, ...] = (1, 2)) -> dict[int, np.ndarray]:
    """Two tools from their true masks; the second joins late, the first is clicked again, and leaves."""
    tracker, found = plain(rtseg.Tracker(engine)), {}
    for frame in rtseg.open_source(CLIP):
        assert frame.truth_hw is not None
        if frame.seq == 0:
            tracker.prompt(1, mask=frame.truth_hw == ids[0])
        if frame.seq == 5:
            tracker.prompt(2, mask=frame.truth_hw == ids[1])
        if frame.seq == 10:
            y, x = np.argwhere(frame.truth_hw == ids[0]).mean(axis=0)
            tracker.prompt(1, points=[(x, y, 1)])
        masks = tracker.step(frame)
        found.update({(frame.seq, i): masks.logits(i) > 0 for i in masks.ids})
    return found


def overlap(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> np.ndarray:
    assert a.keys() == b.keys()
    return np.array([(a[k] & b[k]).sum() / max(1, (a[k] | b[k]).sum()) if (a[k] | b[k]).any() else 1.0 for k in a])


@pytest.fixture(scope="module")
def expected() -> dict[int, np.ndarray]:
    return follow(TorchEngine(nano(), RECIPE, "", "cpu"))


LEAST = {"fp32": 0.99, "int16": 0.98, "bf16": 0.97, "int8": 0.9}


@pytest.mark.slow
def test_the_masks_are_the_references(pair: tuple[str, str], expected: dict[int, np.ndarray]) -> None:
    engine = on_kernels(pair)
    assert f"{pair[0]} kernels" in engine.description
    assert overlap(follow(engine), expected).min() > LEAST[pair[1]]
    assert overlap(follow(engine, (2, 1)), expected).mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_masks_in_torch_are_the_references(precision: str, expected: dict[int, np.ndarray]) -> None:
    engine = cpu.CpuEngine(nano(), replace(RECIPE, precision=precision), "", None)
    assert "cpu: torch" in engine.description and overlap(follow(engine), expected).min() > LEAST[precision]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fifo", "efp-window"])
def test_every_policy(any_precision: str, policy: str) -> None:
    recipe = replace(RECIPE, memory=MemorySettings(policy))
    reference = follow(TorchEngine(nano(), recipe, "", "cpu"))
    found = follow(cpu.open(nano(), replace(recipe, precision=any_precision), "", None))
    assert overlap(found, reference).min() > 0.97


@pytest.mark.parametrize("verb", ["encode", "attend", "decode", "_remember"])
def test_a_verb_that_is_wrong_shows(any_precision: str, verb: str, expected: dict[int, np.ndarray]) -> None:
    engine = cpu.open(nano(), replace(RECIPE, precision=any_precision), "", None)
    right = getattr(engine._verbs, verb)

    def wrong(*given: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = right(*given)
        return tuple(t.flip(-1) for t in answer) if isinstance(answer, tuple) else answer.flip(1)

    setattr(engine._verbs, verb, wrong)
    assert overlap(follow(engine), expected).min() < 0.9


def test_what_is_prepared_is_what_is_encoded(any_precision: str) -> None:
    """By the kernel where there are kernels, which rounds otherwise than OpenCV, and by OpenCV where there are none."""
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    kernels = Kernels(isas.isa_for(any_precision), any_precision)
    engines = [
        cpu.CpuEngine(nano(), replace(RECIPE, precision=precision), "", own)
        for precision, own in ((any_precision, kernels), ("fp32", None))
    ]
    own, opencv = (engine.prepare(picture) for engine in engines)
    expected = to_input(picture, own.shape[-1])
    assert torch.equal(opencv, expected) and not torch.equal(own, expected)
    assert (own - expected).abs().max() < 1.1 * LEVEL
    for engine, prepared in zip(engines, (own, opencv), strict=True):
        assert torch.equal(engine.encode_image(picture).top, engine._verbs.encode(prepared)[0].float())


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sam2.1-tiny", "sam2.1-base+", "sam2.1-large"])
def test_published_sizes(any_precision: str, make_network: Callable[..., Sam2], preset: str) -> None:
    """Heads of 96, and of 56 and 72, which the kernels fill up; fewer blocks, for time."""
    sizes = replace(get_preset(preset), stages=(1, 2, 2, 1), global_blocks=(4,))
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    recipe = Recipe(model=preset, image_size=96)
    reference = TorchEngine(make_network(sizes, 96), replace(recipe, precision="fp32"), "", "cpu")
    engine = cpu.open(make_network(sizes, 96), replace(recipe, precision=any_precision), "", None)
    assert "kernels" in engine.description
    ours, theirs = engine.encode_image(picture), reference.encode_image(picture)
    for name in ("top", "mid", "fine"):
        assert error(getattr(ours, name), getattr(theirs, name)) < 3 * LIMITS["bf16"]


def test_sizes_that_the_kernels_have_not(any_precision: str) -> None:
    """Such a network runs in torch, and says why."""
    odd = replace(get_preset("nano"), name="odd", dim=64, decoder_heads=2)
    engine = cpu.open(Sam2(odd, 64), Recipe(image_size=64, precision="fp32"), "", None)
    assert "cpu: torch" in engine.description and "want sizes that are multiples of 16" in engine.description
    with pytest.raises(EngineError, match="int8 runs on the CPU kernels only, and odd: .*; dim / 8 = 8"):
        cpu.open(Sam2(odd, 64), Recipe(image_size=64, precision="int8"), "", None)


def test_heads_that_do_not_fit_and_no_rows_at_all(kernels: Kernels) -> None:
    q = random(4, 56).to(kernels.half)
    with pytest.raises(EngineError, match="heads of 56 and 56: the CPU kernels want multiples of 16"):
        kernels.attention(q, q, q, 1, torch.empty_like(q))
    assert kernels.linear(Packed(kernels, torch.eye(16), None), torch.empty(0, 16)).shape == (0, 16)


def test_torch_s_defaults_are_not_ours(any_precision: str) -> None:
    """The kernels are given bare pointers: what lies behind them may not depend on a global of the caller's."""
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    engine = cpu.open(nano(), replace(RECIPE, precision=any_precision), "", None)
    expected = engine.encode_image(picture).top
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert torch.equal(engine.encode_image(picture).top, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_another_type_is_refused(kernels: Kernels) -> None:
    with pytest.raises(EngineError, match=r"torch.float64 on cpu: the CPU kernels take float32 or bfloat16"):
        kernels.linear(Packed(kernels, torch.eye(16), None), torch.zeros(4, 16, dtype=torch.float64))


def test_a_memory_that_another_engine_wrote(pair: tuple[str, str]) -> None:
    """Its map is enough: the keys are made when they are missed."""
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    reference = TorchEngine(nano(), RECIPE, "", "cpu")
    features = reference.encode_image(picture)
    written = reference.remember(features, random(1, 1, 64, 64), torch.ones(1), [False])
    recall = Recall(written, (6,), torch.zeros(0, 128), ())
    expected = reference.attend(features, [recall])
    for engine in (on_kernels(pair), cpu.CpuEngine(nano(), RECIPE, "", None)):
        assert error(engine.attend(features, [recall]), expected) < LIMITS["int8"]
