"""`python -m bench.peers` on a little network: every row computes the same thing, and a wrong or slow one is seen."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.config import Recipe
from rtseg.errors import EngineError
from rtseg.sam2 import Sam2, get_preset, save_weights

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # `bench` is a folder of scripts beside the package, run from the root of a clone

from bench import contenders, peers, rates  # noqa: E402

# The trunk and the memory attention are small; Meta's code fixes the sizes of the decoder.
LITTLE = """
embed_dim = 32
heads = 1
stages = [1, 1, 3, 1]
global_blocks = [3]
windows = [8, 4, 14, 7]
background = 7
attention_layers = 2
attention_ffn = 256
"""
has_transformers = pytest.mark.skipif(
    not importlib.util.find_spec("transformers"), reason="the peer is transformers' Sam2VideoModel"
)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("preset") / "little.toml"
    path.write_text(LITTLE)
    return str(path)


@pytest.fixture(scope="module")
def task(preset: str) -> contenders.Task:
    return peers.make_task(preset, 64, None, peers.WARM + 4)


@pytest.fixture(scope="module")
def result(preset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One whole run, by the command; without the CPU engine, whose kernels take long to compile."""
    path = tmp_path_factory.mktemp("peers") / "out" / "peers.json"
    patch = pytest.MonkeyPatch()
    patch.setattr(peers, "OURS", (("torch", "fp32"), ("torch", "bf16"), ("cuda", "bf16"), ("tensorrt", "fp16")))
    patch.setattr(peers, "product_rate", lambda kind, device: rates.product_rate(kind, device, 128))
    words = ["--size", "64", "--preset", preset, "--frames", "4", "--rounds", "2", "--json", str(path)]
    with patch.context():
        assert peers.main(words) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@has_transformers
def test_every_row_computes_the_same(result: dict[str, Any]) -> None:
    rows = {(row["name"], row["policy"]): row for row in result["rows"]}
    for name in ("transformers fp32", "transformers bf16 autocast", "transformers bf16 cast", "rtseg torch fp32"):
        row = rows[name, "fifo"]
        assert row["iou"] >= (0.999 if "fp32" in name else 0.97)
        assert row["ms"]["count"] == 4 and np.shape(row["blocks_ms"]) == (2, 2)
        assert row["times_transformers_fp32"]["min"] <= row["times_transformers_fp32"]["max"]
    assert rows["transformers fp32", "fifo"]["times_transformers_fp32"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert ("rtseg torch fp32", "efp") in rows
    assert result["controls"]["a frame late"] < 0.95  # wrong masks are not taken for right ones


@pytest.mark.skipif(not importlib.util.find_spec("sam2"), reason="Meta's sam2 is not installed; the Makefile says how")
def test_metas_predictor_is_a_row(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["sam2 fp32"]["iou"] >= 0.999 and rows["sam2 bf16 autocast"]["iou"] >= 0.97


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing is absent")
def test_what_is_absent_is_named(result: dict[str, Any]) -> None:
    assert "CUDA" in result["absent"]["rtseg cuda bf16 fifo"] or "cuda" in result["absent"]["rtseg cuda bf16 fifo"]
    assert "rtseg tensorrt fp16 efp" in result["absent"] and "Cutie, XMem" in result["absent"]
    grouped = peers.by_reason({"a": "x", "b": "y", "c": "x"})
    assert grouped == {"x": ["a", "c"], "y": ["b"]}


def test_the_machine_is_described(result: dict[str, Any]) -> None:
    assert result["product_rates_tera"]["fp32"] > 0 and result["encoder_gflop"] > 0.01
    assert {row["name"] for row in result["encoders"]} >= {"rtseg torch fp32", "rtseg torch bf16"}
    assert all(row["ms"] > 0 and row["share_of_rate"]["max"] > 0 for row in result["encoders"])
    assert "random weights" in result["title"] and result["versions"]["torch"]


class Fake(contenders.Contender):
    """Says what `truth` says, shifted by so many cells, after so many ms."""

    truth = np.random.default_rng(0).random((99, 16, 16)) > 0.5

    def __init__(self, name: str, ms: float, shift: int) -> None:
        super().__init__(name)
        self.ms, self.shift = ms, shift

    def logits(self, t: int) -> Tensor:
        time.sleep(self.ms / 1e3)
        return torch.from_numpy(np.roll(self.truth[t], self.shift, axis=1) - 0.5)


def test_a_wrong_one_and_a_slow_one_are_seen() -> None:
    def broken() -> contenders.Contender:
        raise ValueError("no such\nthing")

    makers: peers.Makers = {
        name: lambda name=name, ms=ms, shift=shift: Fake(name, ms, shift)  # type: ignore[misc]
        for name, ms, shift in (
            (peers.BASELINE, 8, 0), (peers.REFERENCE, 4, 0), ("wrong", 4, 1), ("slow", 24, 0),
            ("transformers bf16 cast", 6, 0), ("transformers bf16 autocast", 16, 0),
        )
    }  # fmt: skip
    ready, absent = peers.prepare({**makers, "broken": broken})
    assert absent["broken"] == "ValueError: no such thing" and len(ready) == 6
    peers.take_turns(ready, 3, 3)
    assert all(np.shape(c.blocks_ms) == (3, 3) and len(c.masks) == peers.WARM + 9 for c in ready)
    rows = {row["name"]: row for row in peers.rows(ready)}
    assert rows["slow"]["iou"] == 1 and rows["wrong"]["iou"] < 0.5
    assert rows["slow"]["times_transformers_fp32"]["median"] < 0.6
    assert rows[peers.REFERENCE]["times_transformers_fp32"]["median"] > 1.3
    faster = rows["transformers bf16 cast"]["times_transformers_bf16"]
    assert faster == {"median": 1.0, "min": 1.0, "max": 1.0}  # of the two ways to bf16 the faster counts


def test_overlap() -> None:
    full, half_ = np.ones((2, 2), bool), np.eye(2, dtype=bool)
    assert peers.mean_iou([full, half_], [full, full]) == 0.75
    assert peers.mean_iou([~full, ~full], [~full, full]) == 0.5


def test_operations_are_counted() -> None:
    """SAM 2.1 tiny at 512 px: 55 GFLOP without the products of attention, as others have counted; these are 8 more."""
    assert rates.encoder_gflop(Sam2(get_preset("sam2.1-tiny"), 512)) == pytest.approx(62.8, rel=0.02)
    little, large = (rates.encoder_gflop(Sam2(get_preset("nano"), size)) for size in (256, 512))
    assert 3.5 < large / little < 5


def test_what_comes_before_the_encoder_is_the_engines_own() -> None:
    """Twenty ms of `encode_image`, of which eight prepare the picture, as no resizing of ours would take."""
    engine = SimpleNamespace(
        recipe=Recipe(precision="none"), prepare=lambda _: time.sleep(8e-3), encode_image=lambda _: time.sleep(20e-3)
    )
    found = rates.encoder_share(engine, np.zeros((8, 8, 3), np.uint8), 1.0, "cpu", rounds=1)
    assert 8 <= found["to_input_ms"] < 16 and 20 <= found["ms"] < 40 and found["share_of_rate"] is None


def test_product_rates_are_of_the_right_size() -> None:
    assert 0.001 < rates.product_rate("fp32", "cpu", 256) < 100


def test_what_a_build_would_compile_is_compiled(
    task: contenders.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Runtime:
        broken = False

        def make(self, network: Sam2, recipe: Recipe, folder: Path, note: Any, pictures: Any) -> None:
            if self.broken:
                raise EngineError("no compiler")
            (folder / "artifact").touch()

        def open(self, network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> str:
            calls.append(built and [path.name for path in built.iterdir()])
            return recipe.runtime

    monkeypatch.setattr(peers, "runtime_module", lambda runtime: Runtime())
    recipe = Recipe("nano", image_size=64, runtime="cpu", precision="bf16")
    assert peers.open_ours(task.network, recipe, tmp_path / "a") == "cpu"
    monkeypatch.setattr(Runtime, "broken", True)
    assert peers.open_ours(task.network, recipe, tmp_path / "b") == "cpu"
    assert calls == [["artifact"], None]
    monkeypatch.setattr(peers, "settle", lambda recipe: recipe)
    with pytest.raises(EngineError, match="no compiler"):
        peers.open_ours(task.network, replace(recipe, runtime="tensorrt"), tmp_path / "c")


def test_an_engine_is_made_for_its_policy(
    task: contenders.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one with room for the five memories of efp would be asked to read the seven of fifo."""
    opened: list[str] = []
    monkeypatch.setattr(peers, "OURS", (("torch", "fp32"),))
    monkeypatch.setattr(peers, "open_ours", lambda network, recipe, folder: opened.append(recipe.memory.policy))
    monkeypatch.setattr(peers, "Ours", lambda name, engine, policy, task: policy)
    made = [make() for make in peers.our_makers(task, "nano", tmp_path).values()]
    assert opened == made == ["fifo", "efp"]


def test_given_weights_are_used(preset: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Sam2(get_preset(preset), 64)
    save_weights(network, tmp_path / "w.safetensors", half=False)
    task = peers.make_task(preset, 64, tmp_path / "w.safetensors", 2)
    assert all(torch.equal(a, b) for a, b in zip(task.network.parameters(), network.parameters(), strict=True))
    other = peers.make_task(preset, 64, None, 2)
    assert not all(torch.equal(a, b) for a, b in zip(other.network.parameters(), network.parameters(), strict=True))


@has_transformers
def test_their_network_has_our_weights(task: contenders.Task) -> None:
    state = contenders.transformers_model(task.network).state_dict()
    ours = task.network.state_dict()
    assert torch.equal(
        state["memory_attention.layers.1.linear1.weight"], ours["memory_attention.layers.1.linear1.weight"]
    )
    assert sum(t.numel() for t in state.values()) >= sum(t.numel() for t in ours.values())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--size", "100"], "multiple of 32"),
        (["--preset", "sam3"], "no such preset"),
        (["--weights", "no.pt", "--size", "64"], "no.pt: no such file"),
    ],
)
def test_a_users_mistake_is_one_line_with_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main(words) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
