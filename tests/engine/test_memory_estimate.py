"""The plan of memory, against the network itself: its weights counted, and what it holds at once on tensors that are
only shapes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rtseg.base.errors import EngineError
from rtseg.base.hardware import gpu as hardware_gpu
from rtseg.base.hardware.gpu import free_gpu_bytes
from rtseg.engine.buffer_sizes import Sizes, parameters
from rtseg.engine.memory_estimate import MIB, check, estimate_memory
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.static.memory import PaddedRead
from rtseg.engine.static.network import StaticNetwork
from rtseg.engine.static.parts import Attention
from rtseg.sam2 import PRESETS, Preset, Recall, Remembered, Sam2, get_preset
from rtseg.sam2.presets import FIXED_TRUNKS
from tests.engine.conftest import LITE, LITE_MATCH


@pytest.fixture(autouse=True)
def no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only shapes is nowhere, so that it need not be moved to make tables of it."""
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: tensor)


class Held(TorchDispatchMode):
    """Bytes of all tensors that were made inside and are still alive, and the most that it was."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()
        self._given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves(args):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()  # of which answers may be views
                self._given.add(storage._cdata)
                weakref.finalize(storage, self._given.discard, storage._cdata)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known | self._given:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Fused(Attention):
    """Attention as a fused kernel does it: nothing but the answer is ever in memory."""

    def __init__(self, products: torch.dtype) -> None:
        super().__init__()
        self.products = products

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = q.to(self.products), k.to(self.products), v.to(self.products)
        return q.new_empty(*q.shape[:-1], v.shape[-1])


TYPES = {"fp32": (torch.float32, torch.float32), "bf16": (torch.bfloat16, torch.bfloat16),
         "fp16": (torch.float16, torch.float32)}  # fmt: skip


def measured(sizes: Sizes, precision: str) -> dict[str, int]:
    """What `Sizes` says, of the network on tensors that are only shapes."""
    products, stream = TYPES[precision]
    b, t, pointers = sizes.objects, sizes.slots, sizes.pointers
    with torch.device("meta"), torch.inference_mode():
        net = Sam2(sizes.preset, sizes.image_size).eval().bake()
        static = StaticNetwork(net, Fused(products)).precise(products, stream)
        p, n = net.preset, net.preset.memory_tokens(net.grid)
        found = {
            "weights": sum(x.numel() * x.element_size() for x in static.parameters()),
            "tables": sum(x.numel() * x.element_size() for x in static.buffers()),
        }
        keys = torch.zeros(b, t, p.attention_layers, n, p.dim, dtype=products)
        values, recalled = torch.zeros(b, t, n, p.memory_dim), torch.zeros(b, pointers, p.dim)
        image, ages = torch.rand(1, 3, *[sizes.image_size] * 2), torch.zeros(b, pointers)
        slots, yes = torch.zeros(b, t, dtype=torch.long), torch.ones(b, t, dtype=torch.bool)
        with Held() as held:
            top, mid, fine = static.encoder(image)
        found["encode"], found["features"] = held.peak, held.now
        with Held() as held:
            read = PaddedRead(
                static.attend, keys, values.to(products), slots, yes, recalled, ages, torch.ones(b, pointers) > 0
            )
            conditioned = static.attend(top, read)
        found["attend"] = held.peak
        del read
        with Held() as held:
            logits, _, score, _ = static.decode(conditioned, mid, fine)
        found["decode"] = held.peak
        with Held() as held:
            tokens = static.remember(top, logits, score, torch.zeros(b) > 0)
            static.attend.keys_of(tokens).to(products)
        found["remember"] = held.peak
    return found


OTHERS = [
    LITE_MATCH,
    *[
        replace(LITE, name=f"{name}, {levels} levels", trunk=name, levels=levels)
        for name, dims in FIXED_TRUNKS.items()
        for levels in (3, 4)
        if len(dims) == 4
    ],
]


@pytest.mark.parametrize("preset", [*PRESETS.values(), *OTHERS], ids=lambda preset: str(preset.name))
def test_the_weights_of_each_network(preset: Preset) -> None:
    with torch.device("meta"):
        net = Sam2(preset, 256)
    assert parameters(preset) == sum(x.numel() for x in net.parameters())


WITHIN = 0.25
PARTS = {"weights", "tables", "encode", "features", "attend", "decode", "remember"}
SLOW = [
    ("sam2.1-tiny", 512, 1, "fp32"),
    ("sam2.1-base+", 768, 2, "bf16"),
    ("sam2.1-large", 1024, 1, "bf16"),
    ("nano", 512, 8, "fp32"),
    ("micro", 224, 1, "bf16"),
    ("efficienttam-small", 1024, 1, "fp16"),
]
CASES = [
    ("sam2.1-tiny", 1024, 8, "bf16"),
    ("sam2.1-small", 1024, 3, "fp16"),
    ("nano", 320, 4, "bf16"),
    (LITE, 320, 4, "bf16"),
    (LITE, 512, 1, "fp32"),
    ("edgetam", 1024, 3, "bf16"),
    ("efficienttam-tiny", 512, 2, "bf16"),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
]


@pytest.mark.parametrize(("network", "size", "objects", "precision"), CASES)
def test_what_the_network_holds(network: str | Preset, size: int, objects: int, precision: str) -> None:
    products, stream = (t.itemsize for t in TYPES[precision])
    preset = get_preset(network) if isinstance(network, str) else network
    sizes = Sizes(preset, size, objects, 5, 19, products, stream)
    found = measured(sizes, precision)
    said = {k: v() if callable(v) else v for k in found for v in (getattr(sizes, k),)}
    off = {k: round(said[k] / found[k] - 1, 3) for k in found}
    assert all(abs(v) < WITHIN for v in off.values()), off
    # One object more, or a network of another kind, is not within it: the measure can tell.
    more = Sizes(preset, size, objects + max(2, objects), 5, 19, products, stream)
    assert more.attend() / found["attend"] - 1 > WITHIN
    assert Sizes(preset, size * 2, objects, 5, 19, products, stream).encode() / found["encode"] > 3
    assert found.keys() >= PARTS


@pytest.mark.parametrize(
    ("preset", "size", "objects"),
    [
        (get_preset("sam2.1-tiny"), 1024, 3),
        (get_preset("nano-hiera"), 320, 4),
        (get_preset("edgetam"), 512, 2),
        (get_preset("efficienttam-small"), 512, 1),
        (LITE, 320, 4),
        (LITE, 512, 1),
    ],
)
def test_what_the_plain_network_holds(preset: Preset, size: int, objects: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, attn_mask=None: q.new_empty(q.shape)
    )
    sizes = Sizes(preset, size, objects, 5, 19, 4, 4)
    with torch.device("meta"), torch.inference_mode():
        net = Sam2(sizes.preset, size).eval().bake()
        net.tokenizer.cells = net.tokenizer.cells.to("meta")
        image, most = torch.rand(1, 3, size, size), 0
        shape = net.preset.memory_shape(net.grid)
        maps = [Remembered(torch.zeros(net.preset.memory_dim, *shape)) for _ in range(5)]
        recall = Recall(tuple(maps), tuple(range(5)), torch.zeros(19, net.preset.dim), tuple(range(19)))
        with Held() as held:
            features = net.encode_image(image)
        kept, most = held.now, held.peak
        for verb in (
            lambda: net.attend(features, [recall] * objects),
            lambda: net.remember(features, torch.zeros(objects, 1, size, size), torch.zeros(objects)),
        ):
            with Held() as held:
                verb()
            most = max(most, kept + held.peak)
    assert abs(sizes.plain() / most - 1) < WITHIN


def test_parts_of_each_runtime() -> None:
    recipe = Recipe("sam2.1-tiny", image_size=1024, max_objects=8)
    parts = {r: estimate_memory(replace(recipe, runtime=r)).parts for r in ("cuda", "tensorrt", "torch", "cpu", "onnx")}
    assert {"weights", "tables", "memories", "pictures", "on the way", "warm-up", "graphs", "CUDA"} == parts[
        "cuda"
    ].keys()
    assert {"buffers", "scores, if not fused"} <= parts["tensorrt"].keys()
    assert "CUDA" in estimate_memory(replace(recipe, runtime="torch", device="cuda:1")).parts
    assert "process" in parts["torch"] and estimate_memory(replace(recipe, runtime="torch")).host
    for runtime in parts:
        less = replace(recipe, runtime=runtime, max_objects=1)
        small = replace(recipe, runtime=runtime, image_size=512)
        assert (
            estimate_memory(less).bytes
            < estimate_memory(replace(recipe, runtime=runtime)).bytes
            > estimate_memory(small).bytes
        )
    line = str(estimate_memory(replace(recipe, runtime="cuda")))
    assert " MiB of the GPU: weights " in line and "\n" not in line
    wide = replace(recipe, runtime="cuda", memory=MemorySettings("fifo", 7, 16))  # up to ten memories
    assert estimate_memory(wide).parts["memories"] > 1.3 * parts["cuda"]["memories"]


class Card:
    """A GPU with so many MiB free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, integrated: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * MIB, 10**12))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
        properties = type("P", (), {"is_integrated": integrated})()
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_an_engine_that_does_not_fit_says_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("sam2.1-tiny", image_size=1024, max_objects=8, runtime="cuda", precision="bf16", device="cuda:1")
    Card(monkeypatch, 4000)
    check(recipe, "cuda:1")
    check(recipe, "cpu")
    Card(monkeypatch, 900)
    with pytest.raises(EngineError) as caught:
        check(recipe, "cuda:1")
    line = str(caught.value)
    assert "\n" not in line and "image_size = 1024, max_objects = 8 needs" in line and "900 MiB are free" in line
    size, objects = (int(line.split(f"{name} = ")[2].split(maxsplit=1)[0]) for name in ("image_size", "max_objects"))
    check(replace(recipe, image_size=size), "cuda:1")
    check(replace(recipe, max_objects=objects), "cuda:1")
    for one_more in (replace(recipe, image_size=size + 32), replace(recipe, max_objects=objects + 1)):
        with pytest.raises(EngineError, match="900 MiB are free"):
            check(one_more, "cuda:1")
    Card(monkeypatch, 10)
    with pytest.raises(EngineError, match="10 MiB are free; neither a smaller size nor fewer objects would fit"):
        check(recipe, "cuda:1")


def test_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch keeps for later counts, and what the host caches where the GPU shares its memory."""
    Card(monkeypatch, 100)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * MIB)
    assert free_gpu_bytes("cuda:0") == 130 * MIB
    Card(monkeypatch, 100, integrated=1)
    monkeypatch.setattr(hardware_gpu, "available_bytes", lambda: 700 * MIB)
    assert free_gpu_bytes("cuda:0") == 700 * MIB

    def broken(device: object) -> None:
        raise RuntimeError("CUDA error: unknown error")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert free_gpu_bytes("cuda:0") is None
    check(Recipe("sam2.1-large", image_size=1024, runtime="cuda", device="cuda:0"), "cuda:0")  # the engine says why


@pytest.mark.parametrize(("size", "objects"), [(320, 1), (320, 4), (512, 2)])
def test_what_a_comparison_holds(size: int, objects: int) -> None:
    """The similarities of `Match`, which grow with the fourth power of the image; and the cells that are kept."""
    sizes = Sizes(LITE_MATCH, size, objects, 5, 19, 4, 4)
    with torch.device("meta"), torch.inference_mode():
        net = Sam2(LITE_MATCH, size).eval().bake()
        assert net.match
        features = net.encode_image(torch.rand(1, 3, size, size))
        cells = net.match.remember(features, torch.zeros(1, 1, size // 4, size // 4))
        assert cells.nbytes == sizes.compared
        with Held() as held:
            net.match(features, cells.expand(objects, -1, -1, -1))
        assert abs(sizes.similarities / held.peak - 1) < WITHIN
        static = StaticNetwork(net).precise(torch.bfloat16, torch.bfloat16)
        weights = sum(x.nbytes for x in static.parameters())
    assert abs(replace(sizes, product=2).weights() / weights - 1) < 0.1
    bare = replace(sizes, preset=LITE)
    assert bare.compared == bare.similarities == 0
    assert replace(sizes, objects=2 * objects).similarities / held.peak - 1 > WITHIN
    assert replace(sizes, image_size=size + 64).similarities / held.peak - 1 > WITHIN


@pytest.mark.parametrize("runtime", ["torch", "cpu", "onnx", "cuda", "tensorrt"])
def test_cells_and_comparisons_count_in_each_runtime(runtime: str, tmp_path: Path) -> None:
    paths = []
    for dim in (0, 32):
        paths.append(tmp_path / f"lite-{dim}.toml")
        fields = {**{f: getattr(LITE, f) for f in ("dim", "memory_dim", "attention_layers", "decoder_heads")},
                  "trunk": LITE.trunk, "match_dim": dim}  # fmt: skip
        paths[-1].write_text("".join(f"{key} = {value!r}\n" for key, value in fields.items()))
    plain, matched = (
        estimate_memory(Recipe(str(path), image_size=512, max_objects=2, runtime=runtime, precision="fp32"))
        for path in paths
    )
    cells, full = 2 * 4 * 64**2 * 33, 2 * 2 * 4 * 64**4
    assert matched.parts["memories"] - plain.parts["memories"] == 5 * cells
    assert (matched.bytes - plain.bytes > full / 4) == (runtime != "cpu")  # the kernels hold a few rows of them
