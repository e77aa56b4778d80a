"""The steps that are captured: for which numbers of objects and memories, and for which sizes of pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..picture.torch_resize import TorchResize
from ..static.graph import Disturb, Step, captured, plain
from ..static.pool import SCRATCH, Pool
from .buffers import Inputs, randomize
from .fuse import exact_fp32
from .step_shapes import StepShapes

SIZES = 2  # of pictures, whose steps are kept; the least recently used one makes room


@dataclass(frozen=True, slots=True)
class Kind:
    """What a step is prepared for: objects, and memory slots of each."""

    objects: int
    slots: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """The two variants of a step: `masked`, and `full` for banks without an empty slot (None: not captured)."""

    masked: Step
    full: Step | None


@dataclass(slots=True)
class Size:
    """What is kept for pictures of one size; `asked`: somebody made it `ready`.

    `resize`: `to_image`, compiled.

    A graph reads `inputs` and the tables of `to_image` at their addresses, and does not keep them alive itself.

    Its graphs are captured on a stream of its own (None: on a CPU), and go together: with any graph torch 2.12 and
    later free the workspaces of cuBLAS that all others from the same stream work in. So a second size takes as much
    memory as the first.
    """

    inputs: Inputs
    to_image: TorchResize
    stream: torch.cuda.Stream | None
    runner: Callable[[Step, Disturb], Step] | None = None  # that captures; None: as `Steps.runner` does
    resize: Callable[[Tensor], Sequence[Tensor]] | None = None
    steps: dict[Kind, Prepared] = field(default_factory=dict)
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does: `run` of (size, kind, whether every slot holds a memory) gives its answers.

    `fuse`, of the same and a heartbeat, compiles for it; that takes minutes, and is only asked for where a size is made
    ready.
    """

    run: Callable[[Size, Kind, bool], Sequence[Tensor]]
    fuse: Callable[[Size, Kind, bool, Callable[[], None]], None]


class Steps:
    """Captures on demand, and keeps, the steps of an engine.

    `pointers_bpd` and the slots of the pool are read by all of them. What a step does comes with each call and is not
    kept: it knows the engine, which is to be freed with its last holder.
    """

    def __init__(self, shapes: StepShapes, pool: Pool, pointers_bpd: Tensor, image_size: int) -> None:
        self._shapes, self._pool, self._pointers_bpd = shapes, pool, pointers_bpd
        self._image_size, self._device = image_size, pointers_bpd.device
        self.sizes: OrderedDict[tuple[int, int], Size] = OrderedDict()  # by height and width
        self.runner: Callable[[Step, Disturb], Step] = plain
        # As few as can be: torch keeps workspaces of cuBLAS for each that was ever used (32 MB on Hopper).
        self._streams = [torch.cuda.Stream(self._device) for _ in range(SIZES)] if self._device.type == "cuda" else []

    def size(self, height: int, width: int) -> Size:
        """What is kept for pictures of this size; the least recently used size is dropped for a new one."""
        if (height, width) not in self.sizes:
            while len(self.sizes) >= SIZES:
                self._let_go(next(iter(self.sizes)))
            to_image = TorchResize(height, width, self._image_size).to(self._device)
            inputs = Inputs(self._shapes.layout, height, width, self._device)
            taken = [known.stream for known in self.sizes.values()]
            stream = next((stream for stream in self._streams if stream not in taken), None)
            self.sizes[height, width] = Size(inputs, to_image, stream)
        self.sizes.move_to_end((height, width))
        return self.sizes[height, width]

    def ready(self, height: int, width: int, work: Work, beat: Callable[[], None]) -> None:
        """Capture all that is foreseen; sizes that were only tried before, as in a warm-up, are let go."""
        for tried in [known for known, size in self.sizes.items() if not size.asked and known != (height, width)]:
            self._let_go(tried)
        size = self.size(height, width)
        size.asked = True
        self._fuse_foreseen(size, work, beat)
        self._capture_foreseen(size, work, beat)

    def prepared(self, size: Size, kind: Kind, work: Work) -> Prepared:
        """The step of this kind; captured now, with all others that are foreseen, where nobody asked for it before."""
        if not size.steps:
            self._capture_foreseen(size, work, lambda: None)
        if kind not in size.steps:
            self._capture(size, kind, work)
        return size.steps[kind]

    def _let_go(self, size: tuple[int, int]) -> None:
        if self.sizes[size].steps and self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # a graph that still runs is not to be destroyed
        del self.sizes[size]

    def _capture_foreseen(self, size: Size, work: Work, beat: Callable[[], None]) -> None:
        # The largest first: where memory does not do, that shows at once.
        for objects in range(self._shapes.layout.objects, 0, -1):
            for slots in self._shapes.foreseen:
                if Kind(objects, slots) not in size.steps:
                    self._capture(size, Kind(objects, slots), work)
                    beat()

    def _fuse_foreseen(self, size: Size, work: Work, beat: Callable[[], None]) -> None:
        for objects in range(1, self._shapes.layout.objects + 1):
            for slots in self._shapes.foreseen:
                for full in (False, True)[: 1 + (slots == self._shapes.full_bank[0])]:
                    work.fuse(size, Kind(objects, slots), full, beat)
        size.inputs.clear()

    def _capture(self, size: Size, kind: Kind, work: Work) -> None:
        """Capture both runners at once: the second is needed seconds after the first, and would be a hiccup then."""
        if size.stream is not None and not size.steps:
            # A pool for all graphs of the size. Of one whose graphs are gone torch takes no more while it is in use.
            size.runner = partial(captured, pool=torch.cuda.graph_pool_handle(), stream=size.stream)
        self.noise(size, 0)
        full = None
        run = size.runner or self.runner
        try:
            with exact_fp32():
                masked = run(lambda: work.run(size, kind, False), lambda: self.noise(size, 1))
                if kind.slots == self._shapes.full_bank[0]:
                    full = run(lambda: work.run(size, kind, True), lambda: self.noise(size, 2))
        except BaseException:
            size.steps.clear()  # what was captured before does not outlive a graph that is not kept
            raise
        size.inputs.clear()
        size.steps[kind] = Prepared(masked, full)

    def noise(self, size: Size, seed: int) -> None:
        """Put something into all that a step reads."""
        size.inputs.noise(seed, SCRATCH)
        randomize([self._pool.values_snm[SCRATCH], self._pool.keys_slnd[SCRATCH], self._pointers_bpd], seed)
