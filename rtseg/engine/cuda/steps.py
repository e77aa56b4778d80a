"""Captured steps, by the size of pictures and by the numbers of objects and memories."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..picture.torch_resize import TorchResize
from ..static.graph import Disturb, Step, captured, plain
from ..static.match import CellRows
from ..static.pool import SCRATCH, Pool
from .buffers import Inputs, randomize
from .fuse import exact_fp32
from .step_shapes import StepShapes

SIZES = 2  # sizes of pictures whose steps are kept; a further one replaces the least recently used


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a step: the number of objects, and of memory slots of each."""

    objects: int
    slots: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """The two variants of a step: `masked`, and `full` for banks without an empty slot (None: not captured)."""

    masked: Step
    full: Step | None


@dataclass(slots=True)
class Size:
    """What is kept for pictures of one size. `asked`: it was made `ready`; `resize`: `to_image`, compiled.

    A graph reads `inputs` and the tables of `to_image` at their addresses, but does not keep them alive.

    Each size has its own stream for captures (None: on a CPU), and its graphs are freed together: when torch 2.12 or
    later frees a graph, it frees the cuBLAS workspaces of all graphs from the same stream. So a second size takes as
    much memory as the first.
    """

    inputs: Inputs
    to_image: TorchResize
    stream: torch.cuda.Stream | None
    runner: Callable[[Step, Disturb], Step] | None = None  # captures steps; None: `Steps.runner` does
    resize: Callable[[Tensor], Sequence[Tensor]] | None = None
    steps: dict[Kind, Prepared] = field(default_factory=dict)
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does: `run` takes (size, kind, whether every slot holds a memory) and returns the results.

    `fuse` takes the same and a heartbeat, and compiles the parts. This takes minutes, so only `ready` calls it.
    """

    run: Callable[[Size, Kind, bool], Sequence[Tensor]]
    fuse: Callable[[Size, Kind, bool, Callable[[], None]], None]


class Steps:
    """Captures the steps of an engine on demand, and keeps them.

    All steps read `pointers_bpd`, the slots of the pool, and the `rows` of cells of a network with `Match`. Each call
    brings its `Work`, which is not kept, because it refers to the engine and would keep it alive.
    """

    def __init__(
        self, shapes: StepShapes, pool: Pool, pointers_bpd: Tensor, image_size: int, rows: CellRows | None = None
    ) -> None:
        self._shapes, self._pool, self._pointers_bpd, self._rows = shapes, pool, pointers_bpd, rows
        self._image_size, self._device = image_size, pointers_bpd.device
        self.sizes: OrderedDict[tuple[int, int], Size] = OrderedDict()  # by height and width
        self.runner: Callable[[Step, Disturb], Step] = plain
        # As few as possible: torch keeps cuBLAS workspaces for each stream that was ever used (32 MB on Hopper).
        self._streams = [torch.cuda.Stream(self._device) for _ in range(SIZES)] if self._device.type == "cuda" else []

    def size(self, height: int, width: int) -> Size:
        """What is kept for pictures of this size. A new size replaces the least recently used one."""
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
        """Capture all foreseen steps. Free sizes that were used before without `ready`, as in a warm-up."""
        for tried in [known for known, size in self.sizes.items() if not size.asked and known != (height, width)]:
            self._let_go(tried)
        size = self.size(height, width)
        size.asked = True
        self._fuse_foreseen(size, work, beat)
        self._capture_foreseen(size, work, beat)

    def prepared(self, size: Size, kind: Kind, work: Work) -> Prepared:
        """The step of this kind. If the size has no steps yet, all foreseen ones are captured now."""
        if not size.steps:
            self._capture_foreseen(size, work, lambda: None)
        if kind not in size.steps:
            self._capture(size, kind, work)
        return size.steps[kind]

    def _let_go(self, size: tuple[int, int]) -> None:
        if self.sizes[size].steps and self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # a graph that still runs must not be destroyed
        del self.sizes[size]

    def _capture_foreseen(self, size: Size, work: Work, beat: Callable[[], None]) -> None:
        # The largest first, so that too little memory is found at once.
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
        """Capture both variants at once: the full one is needed seconds later, and its capture would stall the feed."""
        if size.stream is not None and not size.steps:
            # One memory pool for all graphs of the size, and a new one after they are freed: torch takes no more from
            # a pool whose graphs are gone while it is in use.
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
            size.steps.clear()  # freeing the failed graph makes the earlier ones of this size unusable, too
            raise
        size.inputs.clear()
        size.steps[kind] = Prepared(masked, full)

    def noise(self, size: Size, seed: int) -> None:
        """Fill everything that a step reads with random numbers."""
        size.inputs.noise(seed, SCRATCH)
        cells = [self._rows.cells_bcgg] if self._rows else []
        randomize([self._pool.values_snm[SCRATCH], self._pool.keys_slnd[SCRATCH], self._pointers_bpd, *cells], seed)
        if self._rows:
            self._rows.matched_b.fill_(1)
