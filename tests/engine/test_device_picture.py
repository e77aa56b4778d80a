"""Pictures that stay on a GPU, on one that is not there: which stream does what, who waits, and how often.

FFmpeg's decoder works on the default stream, and takes its memory back when nobody holds the picture any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.engine.picture import on_gpu as module
from rtseg.engine.picture.device_picture import DevicePicture, lies_on
from rtseg.engine.picture.frame_kernels import ARGUMENTS, FrameKernels
from rtseg.engine.picture.on_gpu import OnGpu
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda

H, W = 96, 128
WRITES = {
    "nv12_to_picture": [-1],
    "picture_to_input": [5],
    "cover": [4],
    "draw": [0],
}  # which arguments a kernel writes


class Ordered:
    """Launches a kernel as work that knows memory by its addresses."""

    def __init__(self, gpu: Pretended) -> None:
        self._gpu = gpu
        self.streams: list[int] = []

    def __call__(self, name: str, grid: Any, block: Any, values: Any, stream: Any) -> None:
        pointers = [value for value, kind in zip(values, ARGUMENTS[name], strict=True) if kind == "P"]
        writes = [values[at] for at in WRITES[name]]
        self.streams.append(stream.cuda_stream)
        self._gpu.enqueue(stream.cuda_stream, [p for p in pointers if p not in writes], writes, name)


class Plane:
    """What a decoder hands over: a tensor for whom `from_dlpack` is told to take it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self) -> torch.Tensor:
        return self.tensor


class Decoder:
    """One pair of planes, written again and again on the default stream."""

    def __init__(self, gpu: Pretended) -> None:
        self._gpu = gpu
        shapes = ((H, W), (H // 2, W // 2, 2))
        self.planes = [torch.zeros(*shape, dtype=torch.uint8, device="cuda:0") for shape in shapes]
        torch.cuda.synchronize()

    def decode(self) -> list[Plane]:
        for plane in self.planes:
            self._gpu.enqueue(0, [], [plane.data_ptr()], "decoder")
        return [Plane(plane) for plane in self.planes]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(module, "from_dlpack", lambda capsule: capsule)
    with pretend_cuda() as gpu:
        yield gpu


def on_gpu(gpu: Pretended) -> tuple[OnGpu, Ordered]:
    launch = Ordered(gpu)
    return OnGpu("cuda:0", (128, 96), FrameKernels("cuda:0", launch)), launch


def test_a_picture_is_read_after_it_is_decoded_and_before_its_memory_is_used_again(gpu: Pretended) -> None:
    ours, launch = on_gpu(gpu)
    decoder = Decoder(gpu)
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):  # whatever the caller's is
        for _ in range(3):
            taken = ours.picture(*decoder.decode(), "bt709", False, "left")
    assert launch.streams == [0, 0, 0]
    assert taken.shape == (H, W, 3) and taken.sampled(128, 96).shape == (96, 128, 3)


@contextmanager
def no_turn(self: OnGpu) -> Iterator[None]:
    yield


def test_on_a_stream_of_its_own_it_would_not_be(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = on_gpu(gpu)
    decoder = Decoder(gpu)
    monkeypatch.setattr(OnGpu, "_turn", no_turn)
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")), pytest.raises(RuleError, match="decoder"):
        ours.picture(*decoder.decode(), "bt709", False, "left")


def test_a_picture_that_exists_is_whole_for_every_stream(gpu: Pretended) -> None:
    ours, _ = on_gpu(gpu)
    taken = ours.picture(*Decoder(gpu).decode(), "bt709", False, "left")
    waits = len(gpu.waits)
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        torch.empty(H, W, 3, dtype=torch.uint8, device="cuda:0").copy_(taken.picture_hwc)
    taken.sampled(128, 96)
    assert len(gpu.waits) == waits  # nobody waits for it again
    other = DevicePicture(torch.zeros(H, W, 3, dtype=torch.uint8, device="cuda:0"))  # that nobody will sample
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        other.picture_hwc.clone()


def test_a_picture_that_nobody_waited_for_is_not(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = on_gpu(gpu)
    monkeypatch.setattr(DevicePicture, "_sampled", lambda self, width, height: np.zeros((height, width, 3), np.uint8))
    taken = ours.picture(*Decoder(gpu).decode(), "bt709", False, "left")
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")), pytest.raises(RuleError, match="nv12_to_picture"):
        taken.picture_hwc.clone()


def test_kernels_are_put_on_the_current_stream(gpu: Pretended) -> None:
    launch, side = Ordered(gpu), torch.cuda.Stream("cuda:0")
    kernels = FrameKernels("cuda:0", launch)
    with torch.cuda.stream(side):
        picture_hwc = torch.ones(H, W, 3, dtype=torch.uint8, device="cuda:0")
        kernels.picture_to_input(picture_hwc, torch.empty(1, 3, 32, 32, device="cuda:0")).clone()
    assert launch.streams == [side.cuda_stream]


@pytest.mark.parametrize("asked", [True, False])
def test_a_picture_that_an_engine_still_reads_is_not_given_away(gpu: Pretended, asked: bool) -> None:
    taken, side = DevicePicture(torch.zeros(H, W, 3, dtype=torch.uint8, device="cuda:0")), torch.cuda.Stream("cuda:0")
    with torch.cuda.stream(side):
        read = lies_on(taken, torch.device("cuda:0")) if asked else taken.picture_hwc
        assert read is not None
        read.clone()
    del taken, read
    if asked:
        torch.empty(H, W, 3, dtype=torch.uint8, device="cuda:0")
        return
    with pytest.raises(RuleError, match="was freed"):
        torch.empty(H, W, 3, dtype=torch.uint8, device="cuda:0")


def test_a_drawn_picture_comes_down_once(gpu: Pretended) -> None:
    ours, launch = on_gpu(gpu)
    taken = ours.picture(*Decoder(gpu).decode(), "bt709", False, "left")
    ours.drawn(taken, np.zeros((2, 32, 32), np.float32), [(1, 2, 3), (4, 5, 6)])  # the tables of these colours go up
    gpu.waits.clear()
    drawn = ours.drawn(taken, np.zeros((2, 32, 32), np.float32), [(1, 2, 3), (4, 5, 6)])
    assert drawn.shape == (H, W, 3) and isinstance(drawn, np.ndarray)
    down = [wait for wait in gpu.waits if "[96, 128, 3]" in str(wait)]
    assert len(down) == 1, gpu.waits
    assert launch.streams == [0] * 5


def test_the_other_gpu_is_worked_on_whatever_is_current(gpu: Pretended) -> None:
    launch = Ordered(gpu)
    ours = OnGpu("cuda:1", (128, 96), FrameKernels("cuda:1", launch))
    assert ours.index == 1 and torch.cuda.current_device() == 0
    ours.drawn(DevicePicture(torch.zeros(H, W, 3, dtype=torch.uint8, device="cuda:1")), None, [])
    with ours.current():
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0
