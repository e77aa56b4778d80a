"""`Match`: the formula, what it copies, and which conditioning frame it compares with."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import WeightsError
from rtseg.sam2 import Features, Recall, Remembered, Sam2, get_preset, load_weights, save_weights
from rtseg.sam2.match import Match
from tests.engine.conftest import LITE_MATCH, random_network

PRESET = replace(get_preset("nano"), name="match", match_dim=16)
G = 12  # cells of a side at stride 8


@pytest.fixture(scope="module")
def match() -> Match:
    torch.manual_seed(0)
    return Match(PRESET).eval().requires_grad_(False)


def features(seed: int, images: int = 1) -> Features:
    g = torch.Generator().manual_seed(seed)
    return Features(*(torch.randn(images, c, s, s, generator=g) for c, s in ((128, G // 2), (32, G), (16, 2 * G))))


def logits(seed: int = 0) -> Tensor:
    """A disc, [1, 1, 2G, 2G]."""
    y, x = np.mgrid[: 2 * G, : 2 * G]
    centre = np.random.default_rng(seed).uniform(G / 2, 3 * G / 2, 2)
    return torch.from_numpy(10 - 4 * np.hypot(y - centre[0], x - centre[1])).float()[None, None]


def averaged(logits_b1hw: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(logits_b1hw.sigmoid(), 2)


def by_hand(match: Match, now: Features, before: Features, mask_gg: np.ndarray) -> np.ndarray:
    """The copied mask and the largest similarity, cell by cell in float64: [2, G, G]."""

    def embedded(f: Features) -> np.ndarray:
        w, b = match.mid.weight[:, :, 0, 0].double().numpy(), match.mid.bias.double().numpy()
        u = match.top.weight[:, :, 0, 0].double().numpy()
        mid, top = f.mid[0].double().numpy(), f.top[0].double().numpy()
        out = np.empty((16, G, G))
        for y in range(G):
            for x in range(G):
                at = [min(max((i + 0.5) / 2 - 0.5, 0), G // 2 - 1) for i in (y, x)]
                low = [int(i) for i in at]
                high = [min(i + 1, G // 2 - 1) for i in low]
                fy, fx = (i - j for i, j in zip(at, low, strict=True))
                corner = [(low[0], low[1], (1 - fy) * (1 - fx)), (low[0], high[1], (1 - fy) * fx),
                          (high[0], low[1], fy * (1 - fx)), (high[0], high[1], fy * fx)]  # fmt: skip
                v = w @ mid[:, y, x] + b + u @ sum(share * top[:, i, j] for i, j, share in corner)
                out[:, y, x] = v / math.sqrt(float(v @ v))
        return out

    one, two = embedded(now), embedded(before).reshape(16, -1)
    scale, found = math.exp(float(match.log_scale)), np.empty((2, G, G))
    for y in range(G):
        for x in range(G):
            similar = one[:, y, x] @ two
            weight = np.exp(scale * similar)
            found[:, y, x] = weight @ mask_gg.ravel() / weight.sum(), similar.max()
    return found


def test_it_is_the_formula(match: Match) -> None:
    now, before, mask = features(0), features(1), logits()
    both = match.copy(match.embed(now), match.remember(before, mask))
    expected = by_hand(match, now, before, averaged(mask)[0, 0].double().numpy())
    np.testing.assert_allclose(both[0].numpy(), expected, atol=2e-6)
    other = by_hand(match, features(2), before, averaged(mask)[0, 0].double().numpy())
    assert np.abs(both[0].numpy() - other).max() > 0.1  # the negative control: another frame


def test_cells_are_unit_vectors_and_the_mask(match: Match) -> None:
    cells = match.remember(features(0), logits())
    assert cells.shape == (1, 17, G, G)
    torch.testing.assert_close(cells[:, :-1].norm(dim=1), torch.ones(1, G, G))
    assert torch.equal(cells[:, -1:], averaged(logits()))


def test_the_same_frame_copies_the_mask_itself(match: Match) -> None:
    mask = logits()
    copied, similar = match.copy(match.embed(features(0)), match.remember(features(0), mask))[0]
    torch.testing.assert_close(similar, torch.ones(G, G))
    assert float((copied - averaged(mask)[0, 0]).abs().max()) < 0.01
    elsewhere = match.copy(match.embed(features(5)), match.remember(features(0), mask))[0, 0]
    assert float((elsewhere - averaged(mask)[0, 0]).abs().max()) > 0.5  # the negative control: another frame


def test_a_scene_that_moves_by_8_pixels_takes_the_mask_along() -> None:
    """Two pictures of one texture, by a convolutional trunk with random weights."""
    net = random_network(LITE_MATCH, 128)
    noise = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    scene = torch.nn.functional.interpolate(noise, size=(160, 160), mode="bicubic")
    mask = torch.full((1, 1, 32, 32), -10.0)
    mask[..., 10:20, 8:18] = 10.0
    with torch.inference_mode():
        net.match.log_scale.fill_(6.0)  # random embeddings are all alike
        net.match.top.weight.zero_()  # cells of stride 16 cannot move by half a cell
        before, now = (net.encode_image(scene[..., 16:144, x : x + 128]) for x in (16, 8))
        copied = net.match.copy(net.match.embed(now), net.match.remember(before, mask))[0, 0] > 0.5
    there = averaged(mask)[0, 0] > 0.5
    moved = torch.roll(there, 1, dims=1)
    assert overlap(copied, moved) > 0.8 > 0.7 > overlap(copied, there)


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def network() -> Sam2:
    torch.manual_seed(0)
    net = Sam2(PRESET, 16 * G // 2).eval().requires_grad_(False)
    for table in (net.maskmem_tpos_enc, net.no_mem_embed):
        table.data.normal_()
    return net


def recall(network: Sam2, *seeds: int, prompted: int = 1) -> Recall:
    """Memories of these frames, of which the first `prompted` are conditioning frames."""
    memories = []
    for i, seed in enumerate(seeds):
        g = torch.Generator().manual_seed(seed)
        cells = network.match.remember(features(seed), logits(seed))[0] if i < prompted else None
        memories.append(Remembered(torch.randn(64, G // 2, G // 2, generator=g), cells_cgg=cells))
    slots = tuple(6 if i < prompted else i - prompted for i in range(len(seeds)))
    return Recall(memories, slots, torch.ones(1, 128), (1,))


def without(one: Recall) -> Recall:
    return replace(one, memories=[replace(m, cells_cgg=None) for m in one.memories])


def test_attend_adds_it(network: Sam2) -> None:
    now, one = features(9), recall(network, 1, 2)
    found, plain = network.attend(now, [one]), network.attend(now, [without(one)])
    torch.testing.assert_close(found - plain, network.match(now, one.cells_cgg[None]), atol=1e-5, rtol=1e-4)
    assert float((found - plain).abs().max()) > 0.1


def test_the_newest_conditioning_frame_is_compared_with(network: Sam2) -> None:
    """A correction replaces the first prompt; frames between do not count."""
    corrected = recall(network, 1, 2, 3, 4, prompted=2)
    assert corrected.cells_cgg is corrected.memories[1].cells_cgg
    first = replace(corrected, memories=[corrected.memories[0], *without(corrected).memories[1:]])
    assert first.cells_cgg is corrected.memories[0].cells_cgg
    now = features(9)
    assert not torch.allclose(network.attend(now, [corrected]), network.attend(now, [first]), atol=1e-2)
    assert without(corrected).cells_cgg is None


@pytest.mark.parametrize("images", [1, 4])
def test_each_object_gets_what_it_would_have_alone(network: Sam2, images: int) -> None:
    """With cells and without, and without any memory; of one image, and of one for each."""
    now = features(9, images)
    recalls = [recall(network, 1), None, without(recall(network, 2)), recall(network, 3, 4)]
    together = network.attend(now, recalls)
    for i, own in enumerate(recalls):
        alone = network.attend(now.select(slice(i, i + 1)) if images > 1 else now, [own])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[3], atol=1e-2)


def test_a_network_without_it_reads_no_cells(network: Sam2) -> None:
    """Official networks have no such part, whatever a memory holds."""
    torch.manual_seed(0)
    plain = Sam2(replace(PRESET, match_dim=0), 16 * G // 2).eval().requires_grad_(False)
    assert plain.match is None and not any(name.startswith("match.") for name in plain.state_dict())
    now, one = features(9), recall(network, 1, 2)
    assert torch.equal(plain.attend(now, [one]), plain.attend(now, [without(one)]))


def test_half_precision_around_it_does_not_reach_it(match: Match) -> None:
    now, cells = features(0), match.remember(features(1), logits())
    with torch.autocast("cpu", torch.bfloat16):
        found = match(now, cells)
    assert found.dtype == torch.float32 and torch.equal(found, match(now, cells))


def test_weights_with_it_and_without(tmp_path: Path) -> None:
    """They load into the network that they are of; another one says what is missing, or too much, in one line."""
    nets = {dim: random_network(replace(LITE_MATCH, match_dim=dim), 64) for dim in (0, 32)}
    for dim, net in nets.items():
        save_weights(net, tmp_path / f"{dim}.safetensors")
        other = Sam2(net.preset, 64)
        load_weights(other, tmp_path / f"{dim}.safetensors")
        for name, value in net.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    with pytest.raises(WeightsError, match=r"8 tensors that the network does not have, such as match\."):
        load_weights(nets[0], tmp_path / "32.safetensors")
    with pytest.raises(WeightsError, match=r"8 tensors are missing, the first is match\."):
        load_weights(nets[32], tmp_path / "0.safetensors")
