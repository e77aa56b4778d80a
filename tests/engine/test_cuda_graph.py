"""How a step is captured, on a GPU that is not there: in order with what came before it, on its own device, proved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rtseg.base.errors import EngineError
from rtseg.engine.static.graph import Captured, captured
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda


@pytest.fixture
def gpu() -> Iterator[Pretended]:
    with pretend_cuda() as gpu:
        yield gpu


def test_a_warm_up_comes_after_its_inputs(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.zeros(4, device="cuda")
    Captured(lambda: [source + 1], None)
    source.add_(1)
    monkeypatch.setattr(torch.cuda.Stream, "wait_stream", lambda stream, other: None)
    with pytest.raises(RuleError, match="nothing waited"):
        Captured(lambda: [source + 1], None)


def test_each_engine_captures_on_its_own_device(gpu: Pretended) -> None:
    for device in (0, 1):
        with torch.cuda.device(device):
            source = torch.zeros(4, device="cuda")
            answers = Captured(lambda source=source: [source + 1], torch.cuda.graph_pool_handle())()
            assert answers[0].device.index == device


def test_a_replay_is_one_launch_and_reads_what_came_before(gpu: Pretended) -> None:
    source = torch.zeros(4, device="cuda")
    run = Captured(lambda: [source + 1], None)
    gpu.waits.clear()
    launches, replays = gpu.launches, gpu.replays
    source.fill_(2)
    run()[0].clone()
    assert (gpu.launches - launches, gpu.replays - replays, gpu.waits) == (2, 1, [])


@pytest.mark.parametrize(
    ("finite", "same", "said"), [(False, False, "NaN or infinity"), (True, True, "does not answer")]
)
def test_an_answer_that_proves_nothing_is_refused(gpu: Pretended, finite: bool, same: bool, said: str) -> None:
    source = torch.zeros(4, device="cuda")

    def disturb() -> None:
        source.fill_(3)

    def answers(operation: str, tensor: Tensor) -> bool:
        return same if operation == "equal" else finite

    captured(lambda: [source + 1], disturb)
    gpu.answers = answers
    with pytest.raises(EngineError, match=said):
        captured(lambda: [source + 1], disturb)
