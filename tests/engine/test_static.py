"""The rewritten network is the network: every verb against `Sam2`, and small errors that must show."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rtseg.engine.static.joined import ROWS
from rtseg.engine.static.memory import PaddedRead, Rotation, paired
from rtseg.engine.static.network import StaticNetwork
from rtseg.sam2 import PromptBatch, Recall, Sam2, certain, upsample
from rtseg.sam2.layers import rope_tables, rotate
from tests.engine.conftest import EDGE, LITE, LITE_3

SIZE = 128  # every window of the trunk is padded as at full size
CLOSE = 1e-5  # of the largest value; fp32, in another order
FORMS = ("static", "joined")
SLOTS, POINTERS = 4, 6  # one or more of each stay empty


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


NETWORKS = [
    "sam2.1-tiny",
    "nano",
    "nano-hiera",
    "sam2-small",
    pytest.param(LITE, id="lite"),
    pytest.param(LITE_3, id="lite-3"),
    pytest.param(EDGE, id="edge"),
]


@pytest.fixture(scope="module", params=NETWORKS)
def both(request: pytest.FixtureRequest, make_network: Callable[..., Sam2]) -> SimpleNamespace:
    """The reference, the rewritten one, an image, its features, and two objects that remember unequally much."""
    net: Sam2 = make_network(request.param, SIZE)
    with torch.inference_mode():
        static, joined = StaticNetwork(net), StaticNetwork(net).join()
        g = torch.Generator().manual_seed(1)
        image = torch.randn(1, 3, SIZE, SIZE, generator=g)
        features = net.encode_image(image)
        recalls = [
            Recall.from_maps(**maps_and_pointers(net, 3, 5, g), ages=(9, 1, 2, 3, 4), slots=(6, 0, 1)),
            Recall.from_maps(**maps_and_pointers(net, 2, 2, g), ages=(7, 1), slots=(6, 0)),
        ]
        conditioned = net.attend(features, recalls)
    return SimpleNamespace(
        net=net, static=static, joined=joined, image=image, f=features, recalls=recalls, conditioned=conditioned
    )


def maps_and_pointers(net: Sam2, maps: int, pointers: int, g: torch.Generator) -> dict[str, Tensor]:
    p = net.preset
    return {
        "maps_tchw": torch.randn(maps, p.memory_dim, *p.memory_shape(net.grid), generator=g),
        "pointers_pc": torch.randn(pointers, p.dim, generator=g),
    }


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_encode(both: SimpleNamespace, form: str) -> None:
    top, mid, fine = getattr(both, form).encoder(both.image)
    for ours, reference in ((top, both.f.top), (mid, both.f.mid), (fine, both.f.fine)):
        assert ours.shape == reference.shape
        assert difference(ours, reference) < CLOSE
        assert difference(ours.flip(3), reference) > 1000 * CLOSE


def padded(both: SimpleNamespace, filler: float = 0.0, slots: int = 0, ages: float = 0) -> PaddedRead:
    """The memories in fixed slots. What is absent holds `filler`; `slots` and `ages` are added, to make mistakes."""
    net, attend = both.net, both.static.attend
    p, n, b = net.preset, net.preset.memory_tokens(net.grid), len(both.recalls)
    values = torch.full((b, SLOTS, n, p.memory_dim), filler)
    keys = torch.full((b, SLOTS, p.attention_layers, n, p.dim), filler)
    rows, present = torch.zeros(b, SLOTS, dtype=torch.int64), torch.zeros(b, SLOTS, dtype=torch.bool)
    pointers, ages_bp = torch.full((b, POINTERS, p.dim), filler), torch.zeros(b, POINTERS)
    real = torch.zeros(b, POINTERS, dtype=torch.bool)
    for i, recall in enumerate(both.recalls):
        t, k = len(recall.slots), len(recall.ages)
        values[i, :t] = torch.stack([m.map_chw for m in recall.memories]).flatten(2).transpose(1, 2)
        keys[i, :t] = attend.keys_of(values[i, :t])
        rows[i, :t] = (torch.tensor(recall.slots) + slots) % p.num_maskmem
        pointers[i, :k], ages_bp[i, :k] = recall.pointers_pc, torch.tensor(recall.ages).float() + ages
        present[i, :t] = real[i, :k] = True
    return PaddedRead(attend, keys, values, rows, present, pointers, ages_bp, real)


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_attend(both: SimpleNamespace, form: str) -> None:
    attend = getattr(both, form).attend
    ours = attend(both.f.top, padded(both))
    assert difference(ours, both.conditioned) < CLOSE
    assert torch.equal(attend(both.f.top, padded(both, filler=30.0)), ours)
    assert difference(attend(both.f.top, padded(both, slots=1)), both.conditioned) > 100 * CLOSE
    if both.net.preset.pointer_time:
        assert difference(attend(both.f.top, padded(both, ages=3)), both.conditioned) > 10 * CLOSE


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_decode(both: SimpleNamespace, form: str) -> None:
    decode = getattr(both, form).decode
    reference = both.net.decode(both.conditioned, both.f, PromptBatch.none(2))
    assert (reference.score_b > 0).all() and reference.logits_b1hw.std() > 0.1
    answers = decode(both.conditioned, both.f.mid, both.f.fine)
    theirs = (reference.logits_b1hw, reference.iou_b, reference.score_b, reference.pointer_bc)
    for ours, expected in zip(answers, theirs, strict=True):
        assert ours.shape == expected.shape
        assert difference(ours, expected) < CLOSE
    other = decode(both.conditioned.flip(3), both.f.mid, both.f.fine)
    assert difference(other[0], reference.logits_b1hw) > 1000 * CLOSE
    assert difference(other[3], reference.pointer_bc) > 10 * CLOSE


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_an_absent_object(both: SimpleNamespace, form: str) -> None:
    decode = getattr(both, form).decode
    bias = decode.score[-1].bias if form == "static" else decode.answering.layers[-1].bias[ROWS.index(0)]
    before = bias.clone()
    bias.fill_(-20.0)
    try:
        logits, _, score, pointer = decode(both.conditioned, both.f.mid, both.f.fine)
    finally:
        bias.copy_(before)
    assert (score < 0).all() and (logits == -1024).all()
    assert torch.equal(pointer, both.net.no_obj_ptr.expand_as(pointer))


@torch.inference_mode()
def test_each_candidate_wins_in_its_turn(both: SimpleNamespace) -> None:
    """The joined decoder takes the winner by comparisons: the first of equals, as argmax does."""
    plain, joined = both.static.decode, both.joined.decode
    tokens, _ = plain.transform(both.conditioned)
    head, joined_bias = plain.iou[-1].bias, joined.answering.layers[-1].bias[ROWS.index(1), 0]
    before = head.clone()
    try:
        for best in ((9.0, 0, 0), (0, 9.0, 0), (0, 0, 9.0)):
            wanted = torch.tensor([0, *best])
            head.copy_(wanted), joined_bias[:4].copy_(wanted)
            for ours, expected in zip(joined.answers(tokens), plain.answers(tokens), strict=True):
                assert difference(ours, expected) < CLOSE
    finally:
        head.copy_(before), joined_bias[:4].copy_(before)
    wrong = joined.answers(tokens.flip(1))
    assert difference(wrong[0], plain.answers(tokens)[0]) > 100 * CLOSE


@torch.inference_mode()
def test_remember(both: SimpleNamespace) -> None:
    g = torch.Generator().manual_seed(2)
    logits, scores = torch.randn(2, 1, SIZE // 4, SIZE // 4, generator=g), torch.tensor([1.0, -1.0])
    full = upsample(logits, SIZE)
    full[1] = certain(full[1])
    reference = both.net.remember(both.f, full, scores)
    prompted = torch.tensor([False, True])
    tokens = both.static.remember(both.f.top, logits, scores, prompted)
    assert difference(tokens.transpose(1, 2).view_as(reference), reference) < CLOSE
    wrong = both.static.remember(both.f.top, logits, scores, ~prompted)
    assert difference(wrong.transpose(1, 2).view_as(reference), reference) > 10 * CLOSE


def test_rotation_by_halves_is_rotation_by_pairs() -> None:
    """A product of rotated queries and keys does not care how channels are ordered, if both have the same order."""
    g = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(24, 64)
    x = torch.randn(2, 16, 24, generator=g)
    with torch.inference_mode():
        cos, sin = rope_tables(64, 4)
        q, k = (rotate(layer(t), cos, sin) for t in x)
        turn = Rotation(rope_tables(64, 4))
        p, r = (turn(paired(layer)(t)) for t in x)
    assert difference(p @ r.T, q @ k.T) < CLOSE
    assert difference(p @ r.T, layer(x[0]) @ layer(x[1]).T) > 1000 * CLOSE


def test_what_decides_between_masks_stays_exact(both: SimpleNamespace) -> None:
    joined = StaticNetwork(both.net).join().precise(torch.bfloat16, torch.bfloat16).decode
    for half, exact in zip(joined.answering.layers, both.joined.decode.answering.layers, strict=True):
        assert torch.equal(half.weight, exact.weight) and half.weight.dtype == torch.float32
    assert joined.second_q.weight.dtype == joined.asked.dtype == torch.bfloat16


def test_half_precision_is_near(both: SimpleNamespace, make_network: Callable[..., Sam2]) -> None:
    static = StaticNetwork(both.net).precise(torch.bfloat16, torch.float32)
    with torch.inference_mode():
        top, _, _ = static.encoder(both.image)
    error = float((top - both.f.top).norm() / both.f.top.norm())
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("size", [256, pytest.param(512, marks=pytest.mark.slow)])
def test_windows_that_stay_sorted_and_windows_that_are_padded(size: int, make_network: Callable[..., Sam2]) -> None:
    """At these sizes windows divide the maps of some stages and not of others."""
    net: Sam2 = make_network("sam2.1-tiny", size)
    with torch.inference_mode():
        plain, joined = StaticNetwork(net).encoder, StaticNetwork(net).join().encoder
        assert {block.sorted for block in joined.blocks} == {True, False}
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(4))
        expected = plain(image)
        assert max(difference(a, b) for a, b in zip(joined(image), expected, strict=True)) < 2 * CLOSE
        joined.blocks[0].sorted = False  # tokens in another order than the block believes
        joined.blocks[0].window = 4
        assert difference(joined(image)[2], expected[2]) > 100 * CLOSE
