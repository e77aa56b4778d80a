"""Counts of bytes and FLOP beside closed formulas, and that the prediction follows from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench import roofline
from bench.counting import CountedAttention, Kernel, cost, fused, nothing_computed
from bench.roofline import CARDS, Expected, Work, costs, floor_ms, predict
from rtseg.engine.cuda.fuse import MOST_OBJECTS
from rtseg.sam2 import Preset, Sam2, get_preset


def encoder_flop(p: Preset, size: int) -> int:
    """Products of the image encoder, written down from what Hiera and its neck are: 2 for each multiply-add."""
    side, dim = size // 4, p.embed_dim
    total = side * side * dim * 3 * 49
    block = 0
    for stage, depth in enumerate(p.stages):
        for i in range(depth):
            out = p.stage_dims[stage]
            first = stage > 0 and i == 0
            window = 0 if block in p.global_blocks else p.windows[stage - 1 if first else stage]
            span = window or side
            windows = (-(-side // span)) ** 2
            queries = (span // 2) ** 2 if first else span**2
            total += side * side * dim * 3 * out  # queries, keys, values
            total += dim * out * side * side if first else 0  # the shortcut
            total += windows * 2 * queries * span**2 * out  # scores, and what they weigh
            if first:
                side //= 2
            total += windows * queries * out * out  # of what attention answers, with the padding
            total += 2 * side * side * out * 4 * out
            dim = out
            block += 1
    sides = [size // 4 // 2**i for i in range(4)]
    widths = (p.dim // 8, p.dim // 4, p.dim, p.dim)  # two of the neck's maps are folded into the decoder's
    total += sum(s * s * c * w for s, c, w in zip(sides, p.stage_dims, widths, strict=True))
    return 2 * total


def attend_flop(p: Preset, size: int, objects: int) -> int:
    """Those of memory attention with full memory; the first self-attention is of the image alone, and done once."""
    n, d, m = (size // 16) ** 2, p.dim, p.memory_dim
    own = p.max_pointers * p.pointer_tokens
    keys = p.num_maskmem * n + own
    total = 0
    for layer in range(p.attention_layers):
        images = 1 if layer == 0 else objects
        total += images * (3 * n * d * d + 2 * n * n * d)  # q, k, out of values; scores and what they weigh
        queries = images  # the projection of queries is still the image's own in the first layer
        total += queries * n * d * d + objects * (n * keys * (d + m) + n * m * d)
        total += objects * 2 * n * d * p.attention_ffn
    total += objects * own * m * d * p.attention_layers  # keys of pointers, of all layers
    total += objects * p.max_pointers * d * m if p.pointer_time else 0
    return 2 * total


@pytest.mark.parametrize(("preset", "size"), [("sam2.1-tiny", 512), ("nano-hiera", 320)])
def test_the_encoders_flop_are_those_of_a_closed_formula(preset: str, size: int) -> None:
    p = get_preset(preset)
    assert costs(Work(preset, size))["encode"].flop == pytest.approx(encoder_flop(p, size), rel=1e-3)
    deeper = replace(p, stages=(p.stages[0] + 1, *p.stages[1:]), global_blocks=tuple(b + 1 for b in p.global_blocks))
    assert encoder_flop(deeper, size) > 1.02 * encoder_flop(p, size), "the control: one block more shows"


@pytest.mark.parametrize("objects", [1, 3])
def test_attentions_flop_are_those_of_a_closed_formula(objects: int) -> None:
    found = costs(Work("sam2.1-tiny", 512, objects))["attend"].flop
    assert found == pytest.approx(attend_flop(get_preset("sam2.1-tiny"), 512, objects), rel=1e-3)


def test_every_weight_is_read_once() -> None:
    """`least` holds each weight once, in its type; so it is never less than the network's own bytes."""
    spent = costs(Work("micro", 64))
    network = Sam2(get_preset("micro"), 64)
    linear = [m for m in network.image_encoder.trunk.blocks.modules() if isinstance(m, nn.Linear)]
    weights = sum(2 * m.weight.numel() for m in linear)  # bf16
    assert weights < spent["encode"].least < 2 * weights
    for c in spent.values():
        assert c.least <= c.fused <= c.launched and len(c.groups) <= len(c.kernels)


def test_bytes_of_small_pieces() -> None:
    attention = CountedAttention(torch.float32)
    with nothing_computed():
        layer, x = nn.Linear(8, 4), torch.zeros(16, 8)
        weights = list(layer.parameters())
        product = cost(lambda: [layer(x)], [x, *weights], attention)
        assert product.flop == 2 * 16 * 8 * 4
        assert product.least == product.launched == 4 * (16 * 8 + 8 * 4 + 4 + 16 * 4)
        chain = cost(lambda: [(x + 1).mul(2).relu()], [x], attention)
        assert (len(chain.kernels), len(chain.groups)) == (3, 1)
        assert (chain.launched, chain.fused) == (3 * 2 * 512, 2 * 512)
        q = torch.zeros(1, 2, 16, 8)
        seen = cost(lambda: [attention(q, q, q)], [q], attention)
        assert seen.flop == 2 * 2 * 16 * 16 * (8 + 8) and seen.least == 2 * 4 * q.numel()
        row = torch.zeros(1, 8)
        spread = cost(lambda: [x + row.expand(16, 8)], [x, row], attention)
        assert spread.launched == 4 * (128 + 8 + 128), "what is expanded is read once"


def test_no_group_needs_its_own_answer() -> None:
    """a = f(x); b = product(a); c = a + b: c may not join a, for b lies between."""
    a = Kernel("mul", 0, {0: 8}, {1: 8})
    b = Kernel("mm", 100, {1: 8}, {2: 8})
    c = Kernel("add", 0, {1: 8, 2: 8}, {3: 8})
    assert [k.name for k in fused([a, b, c], {3})] == ["mul", "mm", "add"]
    joined = fused([a, Kernel("exp", 0, {1: 8}, {2: 8}), c], {3})
    assert len(joined) == 1 and joined[0].bytes == 16, "the control: without a product between they are one"


def test_a_prediction_follows_from_the_counts() -> None:
    work, card, e = Work("sam2.1-tiny", 512), CARDS["H200"], Expected()
    found = predict(work, card, e)
    assert found["floor_ms"] < found["device_ms"] < found["p50_ms"]
    encode = costs(work)["encode"]
    assert floor_ms(encode, card) == max(encode.flop / 989e9, encode.least / 4800e6)
    assert predict(work, replace(card, gap_us=card.gap_us + 1), e)["device_ms"] == pytest.approx(
        found["device_ms"] + found["kernels"] / 1e3, abs=2e-3
    )
    slower = predict(work, CARDS["L4"], e)
    assert slower["device_ms"] > found["device_ms"]
    plain = predict(work, card, e, fuse=())
    assert found["kernels"] < plain["kernels"] and found["p50_ms"] < plain["p50_ms"]
    five = replace(work, objects=MOST_OBJECTS + 1)  # of which only what is the image's is compiled
    assert predict(five, card, e)["kernels"] > found["kernels"] + 50
    times = [predict(Work("micro", 64, b), card, e)["p50_ms"] for b in (1, 2, 4, 8)]
    assert times == sorted(times) and times[3] < 8 * times[0]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cases", "micro:64", "--objects", "1", "--cards", "L4"]
    assert roofline.main(words) == 0
    said = capsys.readouterr().out
    assert "micro:64" in said and "L4 data sheet" in said
    assert roofline.main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["card"] == "L4" and set(found["verbs"]) == {"resize", *roofline.VERBS}
    for wrong in (["--cases", "micro"], ["--cases", "micro:65"], ["--objects", "0"], ["--policy", "nope"]):
        with pytest.raises(SystemExit) as caught:
            roofline.main(wrong)
        assert caught.value.code == 2 and repr(wrong[1]) in capsys.readouterr().err


@pytest.mark.slow
def test_what_transformers_launches() -> None:
    pytest.importorskip("transformers")
    said = roofline.eager("micro", steps=2)
    kernels, views = (int(word) for word in said.split() if word.isdigit())
    assert 300 < views < kernels < 2000 and "ms of the host" in said
