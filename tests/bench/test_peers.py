"""`python -m bench.peers` on a little network: every row computes the same thing, and a wrong or slow one is seen."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import ConfigError, EngineError
from rtseg.base.types import now_ns
from rtseg.engine.recipe import Recipe
from rtseg.evaluate.speed.budget import Budget
from rtseg.sam2 import Sam2, get_preset, save_weights

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # `bench` is a folder of scripts beside the package, run from the root of a clone

from bench import contenders, edgetam, field, first_mask, peers, peers_table, rates  # noqa: E402
from bench import exported as exported_module  # noqa: E402
from tests.shared import Shared  # noqa: E402

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
has_sam2 = pytest.mark.skipif(
    not importlib.util.find_spec("sam2") or not importlib.util.find_spec("onnxruntime"),
    reason="Meta's sam2 or ONNX Runtime is not installed; the Makefile says how",
)


@pytest.fixture(scope="module", autouse=True)
def graphs_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exported once for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported_module, "CACHE", tmp_path_factory.mktemp("graphs"))
        yield


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("preset") / "little.toml"
    path.write_text(LITTLE)
    return str(path)


@pytest.fixture(scope="module")
def task(preset: str) -> contenders.Task:
    return field.make_task(preset, 64, None, peers.WARM + 4)


@pytest.fixture(scope="module")
def result(preset: str, shared: Shared) -> dict[str, Any]:
    """One whole run, by the command; without the CPU engine, whose kernels take long to compile."""
    folder = shared.folder("peers", lambda folder: compare(preset, folder / "out" / "peers.json"))
    found: dict[str, Any] = json.loads((folder / "out" / "peers.json").read_text())
    return found


def compare(preset: str, path: Path) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(field, "OURS", (("torch", "fp32"), ("torch", "bf16"), ("cuda", "bf16"), ("tensorrt", "fp16")))
    patch.setattr(field, "emulated", lambda kind, device: "")
    patch.setattr(peers, "product_rate", lambda kind, device: rates.product_rate(kind, device, 128))
    patch.setattr(peers, "in_process", lambda module, request, root: {"first_mask_ms": len(request)})
    patch.setattr(peers, "cold_start", lambda recipe, clip, most_ms: {"first_mask_ms": 7.0})
    words = ["--size", "64", "--preset", preset, "--frames", "4", "--rounds", "2", "--json", str(path)]
    assert peers.main([*words, "--policies", "fifo,efp"]) == 0
    patch.undo()


@has_transformers
@pytest.mark.slow
def test_every_row_computes_the_same(result: dict[str, Any]) -> None:
    rows = {(row["name"], row["policy"]): row for row in result["rows"]}
    for name in ("transformers fp32", "transformers bf16 autocast", "transformers bf16 cast", "rtseg torch fp32"):
        row = rows[name, "fifo"]
        assert row["iou"] >= (0.999 if "fp32" in name else 0.97)
        assert row["ms"]["count"] >= 4 and np.shape(row["blocks_ms"])[0] in (2, 3, 4) and row["memory_full"]
        assert row["first_mask_ms"] == 7 or "rtseg" not in name
        assert row["times_transformers_fp32"]["min"] <= row["times_transformers_fp32"]["max"]
    assert rows["transformers fp32", "fifo"]["times_transformers_fp32"]["median"] == 1
    assert ("rtseg torch fp32", "efp") in rows
    assert result["controls"]["a frame late"] < 0.95  # wrong masks are not taken for right ones


@has_sam2
@pytest.mark.slow
def test_metas_predictor_is_a_row_and_so_are_its_graphs(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["sam2 fp32"]["iou"] >= 0.999 and rows["sam2 bf16 autocast"]["iou"] >= 0.97
    assert rows[field.GRAPHS]["iou"] >= 0.999


@has_sam2
@pytest.mark.slow
def test_an_exported_tracker_that_forgets_is_seen(task: contenders.Task) -> None:
    reference = contenders.Meta("sam2", task)
    right, forgetful = (exported_module.Exported("graphs", task) for _ in range(2))
    forgetful._runner._recent = deque(maxlen=0)
    for contender in (reference, right, forgetful):
        contender.warm_up(8)
    assert peers.mean_iou(right.masks, reference.masks) >= 0.995
    assert peers.mean_iou(forgetful.masks, reference.masks) < 0.99


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing is absent")
def test_what_is_absent_is_named(result: dict[str, Any]) -> None:
    assert "CUDA" in result["absent"]["rtseg cuda bf16 fifo"] or "cuda" in result["absent"]["rtseg cuda bf16 fifo"]
    assert "rtseg tensorrt fp16 efp" in result["absent"] and "Cutie, XMem" in result["absent"]
    grouped = peers_table.by_reason({"a": "x", "b": "y", "c": "x"})
    assert grouped == {"x": ["a", "c"], "y": ["b"]}


@pytest.mark.slow
def test_the_machine_is_described(result: dict[str, Any]) -> None:
    assert result["product_rates_tera"]["fp32"] > 0 and result["encoder_gflop"] > 0.01
    assert {row["name"] for row in result["encoders"]} >= {"rtseg torch fp32", "rtseg torch bf16"}
    assert all(row["ms"] > 0 and row["share_of_rate"]["max"] > 0 for row in result["encoders"])
    assert "random weights" in result["title"] and result["versions"]["torch"]


class Clock:
    """Time that passes when somebody says so."""

    ns = 0

    def __call__(self) -> int:
        return self.ns


clock = Clock()


class Fake(contenders.Contender):
    """Says what `truth` says, shifted by so many cells, after so many ms."""

    truth = np.random.default_rng(0).random((99, 16, 16)) > 0.5

    def __init__(self, name: str, ms: float, shift: int) -> None:
        super().__init__(name)
        self.ms, self.shift = ms, shift

    def logits(self, t: int) -> Tensor:
        clock.ns += round(self.ms * 1e6)
        return torch.from_numpy(np.roll(self.truth[t], self.shift, axis=1) - 0.5)


def test_a_wrong_one_and_a_slow_one_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "now_ns", clock)

    def broken() -> contenders.Contender:
        raise ValueError("no such\nthing")

    makers: peers.Makers = {
        name: lambda name=name, ms=ms, shift=shift: Fake(name, ms, shift)  # type: ignore[misc]
        for name, ms, shift in (
            (field.BASELINE, 8, 0), (field.REFERENCE, 4, 0), ("wrong", 4, 1), ("slow", 24, 0),
            ("transformers bf16 cast", 6, 0), ("transformers bf16 autocast", 16, 0),
        )
    }  # fmt: skip
    ready, absent = peers.prepare({**makers, "broken": broken}, Budget(1e6, clock=clock))
    assert absent["broken"] == "ValueError: no such thing" and len(ready) == 6
    budget = Budget(1e6, clock=clock)
    peers.take_turns(ready, [], budget, budget.until(1), 9, 3)
    assert all(np.shape(c.blocks_ms) == (3, 3) and len(c.masks) == peers.WARM + 15 for c in ready)
    rows = {row["name"]: row for row in peers.rows(ready)}
    assert rows["slow"]["iou"] == 1 and rows["wrong"]["iou"] < 0.5
    assert rows["slow"]["times_transformers_fp32"]["median"] == pytest.approx(1 / 3, rel=1e-3)
    assert rows[field.REFERENCE]["times_transformers_fp32"]["median"] == pytest.approx(2, rel=1e-3)
    assert (
        rows["transformers bf16 cast"]["times_transformers_bf16"]["median"] == 1
    )  # of the two ways to bf16 the faster counts


def test_overlap() -> None:
    full, half_ = np.ones((2, 2), bool), np.eye(2, dtype=bool)
    assert peers.mean_iou([full, half_], [full, full]) == 0.75
    assert peers.mean_iou([~full, ~full], [~full, full]) == 0.5


def test_operations_are_counted() -> None:
    """SAM 2.1 tiny at 512 px: 55 GFLOP without the products of attention, as others have counted; these are 8 more."""
    assert rates.encoder_gflop(Sam2(get_preset("sam2.1-tiny"), 512)) == pytest.approx(62.8, rel=0.02)
    little, large = (rates.encoder_gflop(Sam2(get_preset("nano"), size)) for size in (256, 512))
    assert 3.5 < large / little < 5


def test_what_comes_before_the_encoder_is_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty ms of `encode_image`, of which eight prepare the picture, as no resizing of ours would take."""

    def takes(ms: float) -> Callable[[object], None]:
        return lambda _: setattr(clock, "ns", clock.ns + round(ms * 1e6))

    monkeypatch.setattr(rates, "now_ns", clock)
    engine = SimpleNamespace(recipe=Recipe(precision="none"), prepare=takes(8), encode_image=takes(20))
    found = rates.encoder_share(engine, np.zeros((8, 8, 3), np.uint8), 1.0, "cpu", rounds=1)
    assert found["to_input_ms"] == 8 and found["ms"] == 20 and found["share_of_rate"] is None


def test_product_rates_are_of_the_right_size() -> None:
    assert 0.001 < rates.product_rate("fp32", "cpu", 256) < 100


def test_what_a_build_would_compile_is_compiled(
    task: contenders.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Runtime:
        def make(self, network: Sam2, recipe: Recipe, folder: Path, note: Any, pictures: Any) -> None:
            if recipe.precision == "fp16":
                raise EngineError("no compiler")
            (folder / "artifact").touch()

        def open(self, network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> str:
            calls.append(built and [path.name for path in built.iterdir()])
            return recipe.runtime

    monkeypatch.setattr(field, "runtime_module", lambda runtime: Runtime())
    monkeypatch.setattr(field, "settle", lambda recipe: recipe)
    recipe = Recipe("nano", image_size=64, runtime="tensorrt", precision="bf16")
    assert field.open_ours(task.network, recipe, tmp_path / "a") == "tensorrt" and calls == [["artifact"]]
    with pytest.raises(EngineError, match="no compiler"):
        field.open_ours(task.network, replace(recipe, precision="fp16"), tmp_path / "b")
    opened = field.open_ours(task.network, replace(recipe, runtime="torch", precision="fp32"), tmp_path / "c")
    assert opened.description.startswith("torch") and not (tmp_path / "c").exists()


def test_an_engine_is_made_for_its_policy(
    task: contenders.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one with room for the five memories of efp would be asked to read the seven of fifo."""
    opened: list[str] = []
    monkeypatch.setattr(field, "OURS", (("torch", "fp32"),))
    monkeypatch.setattr(field, "open_ours", lambda network, recipe, folder: opened.append(recipe.memory.policy))
    monkeypatch.setattr(field, "Ours", lambda name, engine, policy, task: policy)
    made = [make() for make in field.our_makers(task, "nano", tmp_path, ("fifo", "efp")).values()]
    assert opened == made == ["fifo", "efp"]


def test_given_weights_are_used(preset: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Sam2(get_preset(preset), 64)
    save_weights(network, tmp_path / "w.safetensors", half=False)
    task = field.make_task(preset, 64, tmp_path / "w.safetensors", 2)
    assert all(torch.equal(a, b) for a, b in zip(task.network.parameters(), network.parameters(), strict=True))
    other = field.make_task(preset, 64, None, 2)
    assert not all(torch.equal(a, b) for a, b in zip(other.network.parameters(), network.parameters(), strict=True))


def test_another_process_is_given_the_same_task(task: contenders.Task, preset: str, tmp_path: Path) -> None:
    field.write_task(task, tmp_path)
    read = field.read_task(tmp_path, {"preset": preset, "size": 64, "box": task.box, "device": task.device})
    assert torch.equal(read.pixels, task.pixels[:2]) and np.array_equal(read.pictures[1], task.pictures[1])
    assert all(torch.equal(a, b) for a, b in zip(read.network.parameters(), task.network.parameters(), strict=True))


@has_transformers
@pytest.mark.slow
def test_a_first_mask_is_timed_from_the_start_of_its_process(
    task: contenders.Task, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which began a minute ago; what it takes to be given the task does not count."""
    field.write_task(task, tmp_path)
    request: dict[str, Any] = {"folder": str(tmp_path), "preset": preset, "size": 64, "box": task.box, "graphs": None}
    began = now_ns() - 60 * 10**9
    monkeypatch.setattr(sys, "argv", ["first_mask", str(began)])
    read = field.read_task

    def slowly(folder: Path, words: dict[str, Any]) -> contenders.Task:
        made = read(folder, words)
        time.sleep(0.5)
        return made

    monkeypatch.setattr(field, "read_task", slowly)
    before_ms = (now_ns() - began) / 1e6
    ms = first_mask.ms({**request, "device": task.device, "name": field.BASELINE})
    assert before_ms < ms < (now_ns() - began) / 1e6 - 500


def test_what_torch_emulates_is_left_out_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field, "emulated", lambda kind, device: f"{kind} is slow")
    names = ("transformers fp32", "transformers bf16 cast", "rtseg torch fp16 fifo", "rtseg cpu bf16 fifo")
    makers: field.Makers = dict.fromkeys(names, lambda: Fake("", 1, 0))
    chosen, absent = field.worth_while(makers, "cpu", "")
    assert list(chosen) == ["transformers fp32", "rtseg cpu bf16 fifo"]
    assert absent == {"transformers bf16 cast": "bf16 is slow", "rtseg torch fp16 fifo": "fp16 is slow"}
    chosen, absent = field.worth_while(makers, "cpu", "transformers bf16")
    assert list(chosen) == ["transformers bf16 cast"] and absent == {}
    with pytest.raises(ConfigError, match="no contender's name holds it"):
        field.worth_while(makers, "cpu", "abacus")


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("timm") or not importlib.util.find_spec("transformers"), reason="timm is not installed"
)
def test_edgetam_runs() -> None:
    task = field.make_task("nano", 256, None, 3)
    contender = edgetam.EdgeTam("EdgeTAM", task)
    contender.warm_up(3)
    assert len(contender.masks) == 3 and any(mask.any() for mask in contender.masks)
    with pytest.raises(ConfigError, match="a multiple of 256"):
        edgetam.EdgeTam("EdgeTAM", field.make_task("nano", 64, None, 2))


@pytest.mark.slow
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
