"""The `cuda` engine: a tracked frame as one CUDA graph, from the bytes of the picture to masks and memories.

A step reads fixed buffers on the device. It is captured once for each number of objects, number of memory slots and
size of picture: all that the recipe foresees, when a size is made `ready` or first tracked (a few seconds). For each
frame the host fills one pinned buffer, uploads it, copies the pointers, launches the graph, and copies the results.
The memories stay in place: the frame's facts name their slots in the pool, and the slot of the new one (pool.py).

New objects have fewer memories than there are slots; the empty slots are masked. In the long run every slot is full:
for this a second graph has no mask, and may use kernels that take none. The verbs are the step's own parts, launched
one by one; only prompted frames are decoded as in `TorchEngine`.

Threads may share an engine; they take turns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.types import ImageU8
from ...sam2 import Decoded, Features, PromptBatch, Recall, Remembered, Sam2
from ..recipe import Recipe
from ..static.copies import copy_all
from ..static.match import CellRows
from ..static.network import StaticNetwork
from ..static.pool import BLANK, SCRATCH, Pool
from ..static.pooled import PooledEngine
from .attention import CudaAttention
from .buffers import Layout
from .device import Turns, check_device, indexed
from .fuse import Draw, Verb, exact_fp32, fused
from .memory_read import stacked
from .parts import ATTEND, DECODE, Parts, compiling
from .step_shapes import StepShapes, dtypes
from .steps import Kind, Size, Steps, Work


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None = None) -> CudaEngine:
    """Open the engine on the recipe's CUDA device. `built` is ignored, as there is nothing to build.

    Raises `EngineError` if there is no usable GPU, or if it lacks the precision or the memory.
    """
    device = recipe.device if recipe.device.startswith("cuda") else "cuda"
    check_device(recipe.precision, device)
    return CudaEngine(network, recipe, weights_hash, device, fuse=importlib.util.find_spec("triton") is not None)


class CudaEngine(PooledEngine):
    """`TorchEngine` with the tracked step in fixed shapes; on a CPU it does the same without a graph.

    `fuse` compiles with torch's inductor: the image encoder when the engine is opened (a minute the first time, then
    seconds), and the other parts of each foreseen kind of step, for up to two objects, when a size is made `ready`.
    Nothing is ever compiled during a feed. Graphs are captured during a feed only for pictures of a size that was not
    made `ready`, and for a tracker with another policy than the recipe's. A frame with more objects or memories than
    any step takes goes through the verbs.
    """

    def __init__(
        self, network: Sam2, recipe: Recipe, weights_hash: str, device: str = "cuda:0", *, fuse: bool = False
    ) -> None:
        self.recipe = recipe
        place = indexed(device)
        self._turns = Turns(place)
        self._products, self._stream = dtypes(recipe.precision)
        with self._call():
            # Before the network moves, because tables are made on the CPU from the weights, and move with them.
            static = StaticNetwork(network, CudaAttention(self._products)).join()
            super().__init__(network, recipe, weights_hash, str(place))
            self._static = static.to(self.device).precise(self._products, self._stream)
            self._static.attend.slots = self._static.attend.slots.to(self._products)
            self._parts = Parts(self._static, compiling() if fuse else None)
            self._encode: Verb = self._static.encoder
            if fuse:
                image_1chw = torch.rand(1, 3, *[self.image_size] * 2, device=self.device)
                self._encode = fused(self._static.encoder, lambda seed: [image_1chw])
            self._shapes = shapes = StepShapes.for_recipe(self.preset, recipe)
            most, dim = shapes.layout, self.preset.dim
            self._pool = Pool(self.preset, static.grid, most.objects, shapes.kept, self._products, self.device)
            self._pointers_bpd = torch.zeros(most.objects, most.pointers, dim, device=self.device)
            self._flags = torch.zeros(2, dtype=torch.bool, device=self.device)
            self._flags[1].fill_(True)
            self._untouched_b = torch.zeros(most.objects, dtype=torch.bool, device=self.device)
            rows = CellRows.zeros(self.preset, static.grid, most.objects, self.device) if static.match else None
            self._rows = rows
            self._steps = Steps(shapes, self._pool, self._pointers_bpd, self.image_size, rows)
        graph = "captured" if self.device.type == "cuda" else "not captured"
        encoder = "fused" if self._encode is not self._static.encoder else "plain"
        self._kept = f"cuda, {self.description}, {graph}, {encoder} encoder"
        self.description = f"{self._kept}, {self._parts.state}"

    @torch.inference_mode()
    def ready(self, height: int, width: int, beat: Callable[[], None] = lambda: None) -> None:
        """As in `Readies`. Frees sizes that were used before without `ready`, as in a warm-up."""
        with self._call():
            self._steps.ready(height, width, Work(self._step, self._fuse), beat)
            self.description = f"{self._kept}, {self._parts.state}"
            self._rehearse(np.zeros((height, width, 3), np.uint8))
            beat()

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        with self._call(), exact_fp32():
            size = self._steps.size(*image_hwc.shape[:2])
            size.inputs.load(image_hwc)
            image_1chw: Tensor = size.to_image(size.inputs.picture_hwc)
            return image_1chw

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._call(), exact_fp32():
            top, mid, fine = self._encode(self.prepare(image_hwc))
            return Features(top.float(), mid.float(), fine.float())

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        return bool(known) and len(features.top) == 1

    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Tensor:
        with exact_fp32():
            slots = self._shapes.bucket(max(len(r.memories) for r in recalls))
            pointers = max(self._shapes.layout.pointers, *(len(r.ages) for r in recalls))
            capacity, blank = Layout(len(recalls), slots, pointers), self._pool.view(BLANK)
            read = stacked(self._static.attend, recalls, capacity, blank, self._upload, self._keys_of)
            attended_bdhw: Tensor = self._static.attend(features.top.to(self._products), read).float()
            return attended_bdhw

    def _decode_tracked(self, conditioned_bchw: Tensor, features: Features) -> Decoded:
        with exact_fp32():
            maps = [t.to(self._products) for t in (features.mid, features.fine)]
            return Decoded(*(t.float() for t in self._static.decode(conditioned_bchw.to(self._stream), *maps)))

    @torch.inference_mode()
    def rivals(self, conditioned_bchw: Tensor, features: Features) -> Tensor:
        with self._call():
            return super().rivals(conditioned_bchw, features)

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        with self._call(), exact_fp32():
            certain_b = torch.stack([self._flags[int(given)] for given in prompted])
            tokens_bnm = self._static.remember(features.top.to(self._products), logits_b1hw, score_b, certain_b)
            written = self._pool.put(tokens_bnm, self._static.attend.keys_of(tokens_bnm).to(self._products))
            return self._with_cells(written, features, logits_b1hw, prompted)

    def _run_step(
        self, image_hwc: ImageU8, recalls: Sequence[Recall], slots: Sequence[Sequence[int]], own: Sequence[int]
    ) -> Sequence[Tensor]:
        size = self._steps.size(*image_hwc.shape[:2])
        kind = Kind(len(recalls), self._shapes.bucket(max(map(len, slots))))
        prepared = self._steps.prepared(size, kind, Work(self._step, self._fuse))
        size.inputs.load(image_hwc, recalls, slots, own)
        pointers = [(self._pointers_bpd[i, : len(r.ages)], r.pointers_pc) for i, r in enumerate(recalls)]
        copy_all(pointers + (self._rows.copies(recalls) if self._rows else []))
        # After a correction an object has one more pointer for good. It then needs the mask, which is for pointers too.
        alike = all((len(r.memories), len(r.ages)) == self._shapes.full_bank for r in recalls)
        return (prepared.full if alike and prepared.full else prepared.masked)()[:4]

    def _step_takes(self, recalls: Sequence[Recall]) -> bool:
        most = self._shapes.layout
        fits = all(len(r.memories) <= most.slots and len(r.ages) <= most.pointers for r in recalls)
        return fits and len(recalls) <= most.objects

    def _keys_of(self, memory: Remembered) -> Tensor:
        """A memory's keys [L, n, D]; computed here for a memory of another kind of engine."""
        if memory.keys_lnd is not None:
            return memory.keys_lnd.to(self._products)
        keys_lnd: Tensor = self._static.attend.keys_of(memory.map_chw.flatten(1).T[None])[0]
        return keys_lnd.to(self._products)

    def _step(self, size: Size, kind: Kind, full: bool) -> tuple[Tensor, ...]:
        """From the inputs to logits, IoU, score and pointer. The new memories are written to the pool.

        The last result is the content of slot `SCRATCH`, by which a capture is checked.
        """
        b, resize = kind.objects, size.resize
        picture_hwc = size.inputs.picture_hwc
        (image_1chw,) = resize(picture_hwc) if resize else (size.to_image(picture_hwc),)
        top, mid, fine = self._encode(image_1chw)
        (conditioned,) = self._parts.attend(kind, full)(top, *self._memory(size, kind, full, mid))
        logits, iou, score, pointer, _ = self._parts.decode(b)(conditioned, mid, fine)
        tokens, keys = self._parts.remember(b)(top, logits, score, self._untouched_b[:b])
        self._pool.write(size.inputs.facts(b, kind.slots, 1).own_b, tokens, keys)
        return logits.float(), iou.float(), score.float(), pointer.float(), self._pool.values_snm[SCRATCH]

    def _memory(self, size: Size, kind: Kind, full: bool, mid: Tensor) -> tuple[Tensor, ...]:
        """The inputs of attention beside the picture's features."""
        b, pointers = kind.objects, self._shapes.full_bank[1] if full else self._shapes.layout.pointers
        facts = size.inputs.facts(b, kind.slots, pointers)
        memory = self._pool.keys_slnd, self._pool.values_snm, self._pointers_bpd[:b, :pointers], *facts.all
        return (mid, *self._rows.rows(b), *memory) if self._rows else memory

    def _fuse(self, size: Size, kind: Kind, full: bool, beat: Callable[[], None]) -> None:
        """Compile the parts that this kind of step calls."""

        def draw(part: str) -> Draw:
            def drawn(seed: int) -> Sequence[Tensor]:
                self._steps.noise(size, seed)
                top, mid, fine = self._encode(size.to_image(size.inputs.picture_hwc))
                given = (top, *self._memory(size, kind, full, mid))
                if part == ATTEND:
                    return given
                (conditioned,) = self._parts.attend(kind, full)(*given)
                if part == DECODE:
                    return conditioned, mid, fine
                drawn, _, score, *_ = self._parts.decode(kind.objects)(conditioned, mid, fine)
                return top, drawn, score, self._untouched_b[: kind.objects]

            return drawn

        if size.resize is None:

            def pictures(seed: int) -> Sequence[Tensor]:
                self._steps.noise(size, seed)
                return [size.inputs.picture_hwc]

            size.resize = self._parts.resize(size.to_image, pictures)
        self._parts.fuse(kind, full, draw, beat)

    def _rehearse(self, image_hwc: ImageU8) -> None:
        """Run each kind of prompt once, because kernels are loaded and chosen on first use."""
        features = self.encode_image(image_hwc)
        conditioned = self.attend(features, [None])
        click = PromptBatch(np.ones((1, 1, 2), np.float32), np.ones((1, 1), np.int64))
        box = PromptBatch(np.ones((1, 2, 2), np.float32), np.array([[2, 3]]))
        decoded = self.decode(conditioned, features, click)
        corrected = PromptBatch(click.points_bpc, click.labels_bp, mask_b1hw=decoded.logits_b1hw)
        given = np.ones((1, 1, self.image_size, self.image_size), np.float32)
        mask = PromptBatch(np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int64), answer_b1hw=given)
        for prompts in (box, corrected, mask):
            decoded = self.decode(conditioned, features, prompts)
        self.remember(features, decoded.logits_b1hw, decoded.score_b, [True])

    @contextmanager
    def _call(self) -> Iterator[None]:
        """A context for one thread at a time on the engine's device. Full memory raises an error with a remedy."""
        try:
            with self._turns.turn(), torch.inference_mode():
                yield
        except torch.OutOfMemoryError as e:
            if hasattr(self, "_steps"):
                self._steps.sizes.clear()
            r = self.recipe
            asked = f"image_size = {r.image_size}, max_objects = {r.max_objects}"
            lower = f"lower one of them in {r.path or 'the recipe'}, or free the GPU"
            raise EngineError(f"out of GPU memory with {asked}; {lower}") from e
