"""Checkpoints of trainings that started from SAM 2: the network in them is found, whatever is around it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.base.errors import WeightsError
from rtseg.sam2 import Sam2, load_weights

from .test_weights import LITTLE, State

AROUND = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]}}


def with_prefix(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


GOOD: dict[str, Callable[[State], Any]] = {
    "tensors alone": lambda state: state,
    "Meta's trainer": lambda state: {"model": state, **AROUND, "steps": {"train": 7}, "loss": {"core": {}}},
    "Lightning": lambda state: {"state_dict": with_prefix("model.")(state), **AROUND, "hyper_parameters": {"lr": 1e-4}},
    "DataParallel": lambda state: {"model": with_prefix("module.")(state), **AROUND},
    "a wrapper's name": with_prefix("sam2_model."),
    "two wrappers": lambda state: {"model_state_dict": with_prefix("module.sam2.")(state), **AROUND},
    "DeepSpeed": lambda state: {"module": with_prefix("_orig_mod.")(state), "global_steps": 5},
    "half precision": lambda state: {"model": {name: tensor.bfloat16() for name, tensor in state.items()}},
    "a trained parameter": lambda state: {name: torch.nn.Parameter(t) for name, t in state.items()},
}


@pytest.fixture
def state() -> State:
    torch.manual_seed(1)
    return Sam2(LITTLE, 64).state_dict()


@pytest.mark.parametrize("case", GOOD)
def test_the_network_of_a_checkpoint_is_found(case: str, state: State, tmp_path: Path) -> None:
    torch.save(GOOD[case](state), tmp_path / "checkpoint.pth")
    network = Sam2(LITTLE, 64)
    assert not torch.equal(network.no_obj_ptr, state["no_obj_ptr"])
    load_weights(network, tmp_path / "checkpoint.pth")
    loaded = network.state_dict()
    tolerance = 0.01 if case == "half precision" else 0.0
    assert all(torch.allclose(loaded[name], state[name], rtol=tolerance, atol=0) for name in state)


BAD: dict[str, tuple[Callable[[State], Any], str]] = {
    "an adapter": (
        lambda state: {"model": {**state, "image_encoder.trunk.blocks.0.attn.qkv.lora_A": torch.zeros(4, 8)}},
        "1 tensors that the network does not have, such as image_encoder.trunk.blocks.0.attn.qkv.lora_A",
    ),
    "another head": (
        lambda state: {"state_dict": {**with_prefix("model.")(state), "classifier.weight": torch.zeros(2, 32)}},
        "1 tensors that the network does not have, such as classifier.weight",
    ),
    "an average beside it": (
        lambda state: {"model": {**with_prefix("net.")(state), **with_prefix("ema.")(state)}},
        r"holds 2 networks \(ema\.\*, net\.\*\); expected one",
    ),
    "the image part alone": (
        lambda state: {"model": {name: t for name, t in state.items() if not name.startswith("mem")}},
        "tensors are missing, the first is memory_attention",
    ),
    "an optimiser alone": (lambda state: AROUND, "holds no table of tensors"),
    "the program's options": (
        lambda state: {"model": state, "args": argparse.Namespace(lr=1e-4)},
        "it holds argparse.Namespace, which may run code when it is read; expected tensors alone",
    ),
    "a numpy number": (lambda state: {"model": state, "best": np.float64(0.5)}, "it holds numpy.*scalar, which may"),
    "a whole module": (lambda state: torch.nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear, which may run"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_loaded_is_said_in_one_line(case: str, state: State, tmp_path: Path) -> None:
    make, why = BAD[case]
    torch.save(make(state), tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=why) as caught:
        load_weights(Sam2(LITTLE, 64), tmp_path / "checkpoint.pt")
    assert str(tmp_path / "checkpoint.pt") in str(caught.value) and "\n" not in str(caught.value)


def test_the_advice_makes_a_file_that_loads(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4)}, "checkpoint.pt")
    network = Sam2(LITTLE, 64)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, "checkpoint.pt")
    exec(str(caught.value).split("If you trust the file: ")[1], {"torch": torch, "FILE": "checkpoint.pt"})
    load_weights(network, "tensors.pt")
    assert torch.equal(network.no_obj_ptr, state["no_obj_ptr"])
