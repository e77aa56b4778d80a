"""The parts of the `cuda` engine: resizing, choosing the kernel of attention, capture, buffers, switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.base.errors import EngineError
from rtseg.engine import Recall, to_input
from rtseg.engine.cuda.attention import Backend, CudaAttention, fastest
from rtseg.engine.cuda.buffers import Inputs, Layout
from rtseg.engine.cuda.fuse import exact_fp32
from rtseg.engine.picture.interpolation import area_weights, linear_weights
from rtseg.engine.picture.torch_resize import TorchResize
from rtseg.engine.picture.upload import Uploader
from rtseg.engine.static import graph as cuda_graph
from rtseg.engine.static.copies import copies
from rtseg.engine.static.pool import BLANK, Pool
from rtseg.sam2 import Remembered, get_preset

LEVEL = 1 / (255 * 0.224)  # one grey level, normalised


# Resizing on the device


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(0.11 * x + k) * np.cos(0.07 * y - k) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 9, (height, width, 1))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"),
    [(64, 64), (128, 192), (131, 97), (255, 333), (64, 65), (63, 51), (31, 33), (40, 64), (720, 1280)],
)
def test_a_picture_as_the_network_sees_it(height: int, width: int) -> None:
    image = picture(height, width)
    found = TorchResize(height, width, 64)(torch.from_numpy(image))
    assert found.shape == (1, 3, 64, 64) and found.dtype == torch.float32
    assert float((found - to_input(image, 64)).abs().max()) < 1.1 * LEVEL
    for wrong in (image[:, ::-1], image[::-1], image[..., ::-1]):
        assert float((found - to_input(np.ascontiguousarray(wrong), 64)).abs().max()) > 5 * LEVEL


def test_weights_of_the_taps() -> None:
    for weights in (area_weights(1080, 512), area_weights(64, 64), linear_weights(31, 64), linear_weights(333, 64)):
        at, weight = weights
        assert at.shape == weight.shape and at.min() >= 0
        assert np.allclose(weight.sum(axis=1), 1) and (weight >= 0).all()
    assert area_weights.cache_info().maxsize is not None


# Choosing the kernel of attention


def read(filled: bool = False, **fault: float) -> Callable[..., Tensor]:
    """Attention that is right, or off by a factor."""

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias) * fault.get("times", 1.0)

    return run


class Named:
    def __init__(self, name: str, run: Callable[..., Tensor]) -> None:
        self.name, self.run = name, run

    def __call__(self, *inputs: Any) -> Tensor:
        return self.run(*inputs)


def refuses(*inputs: Any) -> Tensor:
    raise RuntimeError("No available kernel. Aborting execution.\nand more")


def test_the_fastest_kernel_that_is_right_is_taken() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, d, generator=g) for n, d in ((80, 32), (50, 32), (50, 8)))
    bias = torch.zeros(1, 1, 1, 50).masked_fill(torch.arange(50) > 40, float("-inf"))
    slow, quick = Named("slow", read()), Named("quick", read())
    wrong, absent, broken = Named("wrong", read(times=1.1)), Named("absent", refuses), Named("nan", read(times=np.nan))
    ms = {"slow": 3.0, "quick": 1.0, "wrong": 0.1, "absent": 0.1, "nan": 0.1}
    candidates = [slow, wrong, quick, absent, broken]

    def timer(call: Any) -> float:
        return ms[call.func.name]

    assert fastest(candidates, (q, k, v, bias), timer) is quick  # type: ignore[arg-type]
    with pytest.raises(
        EngineError, match="wrong: is off by 10.0%; absent: No available kernel. Aborting execution.; nan"
    ):
        fastest([wrong, absent, broken], (q, k, v, bias), timer)  # type: ignore[list-item]


@pytest.mark.parametrize("fault", ["ignores it", "takes the first row's", "none"])
def test_a_kernel_is_chosen_that_obeys_the_mask(fault: str) -> None:
    """Though nothing is masked at the first call, when a step is captured."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, n, d, generator=g) for n, d in ((20, 32), (50, 32), (50, 8)))

    def quick(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        seen = {"ignores it": None, "takes the first row's": bias if bias is None else bias[:1], "none": bias}[fault]
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    quick.name = "quick"  # type: ignore[attr-defined]
    math = Backend("math", torch.nn.attention.SDPBackend.MATH)
    times = iter((1.0, 2.0) if fault == "none" else (2.0,))
    attention = CudaAttention(torch.float32, [quick, math], lambda call: next(times))  # type: ignore[list-item]
    chosen = attention.choice(q, k, v, torch.zeros(2, 1, 1, 50))
    assert chosen is (quick if fault == "none" else math)


def test_values_filled_to_the_width_of_keys_say_the_same() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, d, generator=g) for n, d in ((20, 32), (50, 32), (50, 8)))
    math = torch.nn.attention.SDPBackend.MATH
    half = torch.zeros(1, 1, 1, 50).masked_fill(torch.arange(50) >= 25, float("-inf"))
    for bias, seen in ((None, 50), (half, 25)):
        filled = Backend("filled", math, filled=True)(q, k, v, bias)
        assert filled.shape == (1, 1, 20, 8)
        expected = CudaAttention(torch.float32)(q, k[:, :, :seen], v[:, :, :seen])
        assert torch.allclose(filled, expected, atol=1e-6)


# Capture: what can be said of it without a GPU


def test_a_graph_that_does_not_answer_to_its_inputs_is_refused() -> None:
    x = torch.zeros(3)

    def step() -> list[Tensor]:
        return [torch.full((3,), 5.0), x + 1]  # the first answer may be a constant

    frozen = step()
    cuda_graph.prove(step, lambda: x.add_(1))
    with pytest.raises(EngineError, match="does not answer to its inputs"):
        cuda_graph.prove(lambda: frozen, lambda: x.add_(1))
    for bad in (torch.nan, torch.inf):  # which is unlike every other answer, and would pass for a good one
        with pytest.raises(EngineError, match="returns NaN or infinity"):
            cuda_graph.prove(lambda: [x + bad, x + 1], lambda: x.add_(1))  # noqa: B023
        with pytest.raises(EngineError, match="returns NaN or infinity"):
            cuda_graph.prove(lambda: [x + bad], lambda: x.add_(1))  # noqa: B023
    assert cuda_graph.plain(step, lambda: None) is step


CPU = torch.device("cpu")


def test_noise_fills_every_input() -> None:
    inputs = Inputs(Layout(2, 3, 4), 20, 30, CPU)
    inputs.noise(0, 7)
    first = inputs.picture_hwc.clone()
    inputs.noise(1, 7)
    assert not torch.equal(inputs.picture_hwc, first)
    facts = inputs.facts(2, 3, 4)
    assert bool((facts.slots_bt == 7).all()) and bool((facts.own_b == 7).all())
    assert bool(facts.present_bt.all()) and bool(facts.real_bp.all())
    inputs.clear()
    assert not inputs.picture_hwc.any() and not any(bool(getattr(facts, f.name).any()) for f in fields(facts))


def recall_of(memories: int, pointers: int) -> Recall:
    slots = (6, *range(memories - 1))
    return Recall.from_maps(
        torch.randn(memories, 64, 8, 8), slots, torch.randn(pointers, 128), tuple(range(pointers, 0, -1))
    )


def test_what_comes_up_with_a_picture() -> None:
    inputs = Inputs(Layout(2, 3, 4), 90, 120, CPU)
    image = picture(90, 120)[:, ::-1]  # not contiguous
    image.flags.writeable = False
    inputs.load(image, [recall_of(3, 2), recall_of(1, 4)], [[9, 5, 4], [8]], [11, 12])
    facts = inputs.facts(2, 3, 4)
    assert np.array_equal(inputs.picture_hwc.numpy(), image)
    assert facts.slots_bt.tolist() == [[9, 5, 4], [8, 0, 0]] and facts.own_b.tolist() == [11, 12]
    assert facts.rows_bt.tolist() == [[6, 0, 1], [6, 0, 0]]
    assert facts.present_bt.tolist() == [[True] * 3, [True, False, False]]
    assert facts.ages_bp.tolist() == [[2, 1, 0, 0], [4, 3, 2, 1]]
    assert facts.real_bp.tolist() == [[True, True, False, False], [True] * 4]
    inputs.load(image, [recall_of(1, 1)], [[3]], [11])
    few = inputs.facts(1, 2, 3)
    assert few.slots_bt.tolist() == [[3, 0]] and few.present_bt.tolist() == [[True, False]]
    assert few.slots_bt.data_ptr() == facts.slots_bt.data_ptr()  # for fewer objects: rows of the same buffer
    assert inputs.facts(2, 3, 4).slots_bt.tolist() == [[3, 0, 0], [0, 0, 0]]


def test_arrays_go_up_in_turns() -> None:
    upload = Uploader(0, CPU, count=2)
    arrays = [np.arange(k, k + 6, dtype=np.float32).reshape(2, 3) for k in range(5)]
    uploaded = [upload(array) for array in arrays]
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(uploaded, arrays, strict=True))
    assert upload(np.zeros((1, 0), np.int64)).shape == (1, 0)
    large = np.random.default_rng(0).integers(0, 99, (99, 99))
    assert np.array_equal(upload(large).numpy(), large)  # more than a buffer holds


# Memories in the pool


def pool_of(objects: int = 2, held: int = 3) -> Pool:
    return Pool(get_preset("nano"), 8, objects, held, torch.float32, CPU)


def tokens_of(objects: int, value: float) -> tuple[Tensor, Tensor]:
    return torch.full((objects, 64, 64), value), torch.full((objects, 2, 64, 128), value)


def test_a_slot_is_free_again_when_the_last_holder_lets_go() -> None:
    pool = pool_of()
    first, second = pool.put(*tokens_of(2, 1.0))
    assert pool.free == 1 and {pool.slot_of(first), pool.slot_of(second)} == {3, 4}
    also, only_map = replace(first), second.map_chw
    del first, second
    assert pool.free == 1  # one is held as a whole, of the other its map
    del also
    assert pool.free == 2
    third, fourth = pool.put(*tokens_of(2, 2.0))
    assert bool((only_map == 1).all()) and bool((third.map_chw == 2).all())
    del only_map, third, fourth
    assert pool.free == 3


def test_a_full_pool_gives_copies() -> None:
    pool = pool_of(2, 1)
    held, copied = pool.put(*tokens_of(2, 1.0))
    assert pool.slot_of(held) == 3 and pool.slot_of(copied) is None and pool.free == 0
    tokens, keys = tokens_of(2, 2.0)
    other = pool.put(tokens + torch.arange(2.0)[:, None, None], keys)
    assert [pool.slot_of(m) for m in other] == [None, None]
    assert bool((held.map_chw == 1).all()) and bool((copied.map_chw == 1).all()) and bool((copied.keys_lnd == 1).all())
    assert all(bool((m.map_chw == 2 + i).all()) for i, m in enumerate(other))
    assert not pool.values_snm[BLANK].any() and not pool.keys_slnd[BLANK].any()


def test_a_memory_from_elsewhere_is_copied_in_once() -> None:
    pool, guest = pool_of(2, 1), Remembered(torch.randn(64, 8, 8))
    slot = pool.take_in(guest, torch.ones(2, 64, 128))
    assert slot == 3 and pool.slot_of(guest) == slot and pool.slot_of(replace(guest)) == slot
    assert torch.equal(pool.view(slot).map_chw, guest.map_chw)
    assert pool.take_in(Remembered(torch.randn(64, 8, 8)), torch.ones(2, 64, 128)) is None  # no room
    del guest
    assert pool.free == 1
    other = pool_of()
    (theirs,) = other.put(*tokens_of(1, 1.0))
    assert pool.slot_of(theirs) is None  # it lies in a pool, but not in this one


def test_copies_stand_alone() -> None:
    whole = torch.arange(12.0).view(3, 4)
    made = copies([whole[1], whole.T, whole[2].to(torch.bfloat16)])
    assert all(m.is_contiguous() for m in made) and torch.equal(made[1], whole.T)
    whole.zero_()
    assert made[0].tolist() == [4, 5, 6, 7]
    assert made[0].untyped_storage().nbytes() == 16


def test_switches_are_put_back() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        cudnn.allow_tf32 = True
        with pytest.raises(ValueError, match="inside"), exact_fp32():
            assert not matmul.allow_tf32 and not cudnn.allow_tf32 and cudnn.benchmark
            raise ValueError("inside")
        assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (before[0], True, before[2])
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.slow
def test_within_a_compiled_part_the_choice_is_the_same() -> None:
    """A compiler sees one operation, which runs what was chosen; by another's number it is another's choice."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, n, d, generator=g) for n, d in ((5, 16), (9, 16), (9, 8)))
    found, owners = [], []
    for times in (1.0, 2.0):
        ours = CudaAttention(torch.float32, timer=lambda _: 0.0)
        chosen: Any = Named("chosen", read(times=times))
        ours.chosen[q.shape, k.shape, v.shape, False] = chosen
        owners.append(ours)

        def call(q: Tensor, k: Tensor, v: Tensor, number: int = ours.number) -> Tensor:
            out: Tensor = torch.ops.rtseg.attention(q, k, v, None, number)
            return out

        found.append(torch.compile(call, fullgraph=True, backend="aot_eager")(q, k, v))
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(found[0], expected, atol=1e-6) and found[0].is_contiguous()
    assert torch.allclose(found[1], 2 * expected, atol=1e-6)
    torch.library.opcheck(torch.ops.rtseg.attention.default, (q, k, v, None, owners[0].number))
