"""The `cuda` engine: a tracked frame as one CUDA graph, from the bytes of the picture to masks and memories.

A step reads fixed buffers on the device (`Inputs`) and is captured once for each number of objects, number of memory
slots and size of picture: on the first frame that is tracked at a size, for all that the recipe foresees (a few
seconds), so that a video does not stop where an object joins it. On a frame the host fills one pinned buffer, copies
it up, copies the memories (the caller's values) into their slots, launches the graph, and copies the answers out.

Objects that have just appeared bring fewer memories than there are slots; the empty ones are masked. In the long run
every slot is full, and a second graph without a mask may use kernels that take none. The verbs are the step's own
parts, launched one by one; only what a person prompts is decoded as in `TorchEngine`.

Threads may share an engine, and take turns; all are to work on the same CUDA stream, as they do by default.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from ...config import CONDITIONING, Recipe
from ...errors import EngineError
from ...sam2 import Decoded, Features, Prompts, Recall, Remembered, Sam2
from ...types import ImageU8
from ..reference import DTYPES, TorchEngine
from ..static import PaddedRead, StaticNetwork
from .attention import CudaAttention
from .buffers import Inputs, copies
from .fuse import Encode, exact_fp32, fused
from .graph import Disturb, Step, captured, plain
from .resize import DeviceInput

SIZES = 2  # of pictures, whose steps are kept; the least recently used one makes room


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None = None) -> CudaEngine:
    """The engine on the current CUDA device; there is nothing to build, so `built` is not read.

    Raises `EngineError` where there is no usable GPU, it lacks the precision, or its memory does not do.
    """
    check_device(recipe.precision)
    return CudaEngine(network, recipe, weights_hash, "cuda", fuse=importlib.util.find_spec("triton") is not None)


def check_device(precision: str) -> None:
    """`EngineError` if torch sees no GPU, cannot run on it, or the GPU does not multiply in this precision."""
    if not torch.cuda.is_available():
        way_out = 'see `rtseg doctor`, or use runtime = "cpu" or "auto"'
        raise EngineError(f'runtime = "cuda": torch {torch.__version__} sees no CUDA device; {way_out}')
    name = torch.cuda.get_device_name()
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except RuntimeError as e:  # a GPU that this build of torch has no code for, or a driver that is too old
        problem = str(e).splitlines()[0]
        raise EngineError(f"{name}: torch {torch.__version__} cannot run on it ({problem}); see `rtseg doctor`") from e
    if precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise EngineError(f'precision = "bf16": {name} does not multiply it; use "fp16" or "fp32"')


@dataclass(frozen=True, slots=True)
class Kind:
    """What a step is prepared for: objects, memory slots of each, and the size of the picture."""

    objects: int
    slots: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of a step, and the two ways to run it: `full` where each slot holds a memory (None: not worth one).

    A graph reads the tables of `to_image` at their addresses, and does not keep them alive itself.
    """

    inputs: Inputs
    to_image: DeviceInput
    masked: Step
    full: Step | None


class CudaEngine(TorchEngine):
    """`TorchEngine` with the tracked frame in fixed shapes; on a CPU it does the same without a graph.

    `fuse` compiles the image encoder with torch's inductor when the engine is opened (a minute the first time, then
    seconds). Only the encoder: its shape never changes, so that nothing is ever compiled in the middle of a feed.
    Graphs are captured in the middle of one only for more objects than the recipe's `max_objects`, for more memories
    than its plan holds, and for pictures of a new size.
    """

    def __init__(
        self, network: Sam2, recipe: Recipe, weights_hash: str, device: str = "cuda", *, fuse: bool = False
    ) -> None:
        self._turns = RLock()
        self._steps: OrderedDict[tuple[int, int], dict[Kind, Prepared]] = OrderedDict()  # by height and width
        self._products = DTYPES.get(recipe.precision, torch.float32)
        self.recipe = recipe
        with self._turn(), torch.inference_mode():
            # Before the network moves: the tables are made on the CPU, where the weights still are, and move with it.
            static = StaticNetwork(network, CudaAttention(self._products))
            super().__init__(network, recipe, weights_hash, device)
            captures = self.device.type == "cuda"
            self._runner: Callable[[Step, Disturb], Step] = plain
            if captures:
                self._runner = partial(captured, pool=torch.cuda.graph_pool_handle())
            # fp16 overflows where activations are added up over layers; bf16 has the range of fp32.
            self._stream = torch.bfloat16 if self._products == torch.bfloat16 else torch.float32
            self._static = static.to(self.device).precise(self._products, self._stream)
            self._encode: Encode = self._static.encoder
            if fuse:
                self._encode = fused(self._static.encoder, torch.rand(1, 3, *[self.image_size] * 2, device=self.device))
        self._to_image = lru_cache(maxsize=2 * SIZES)(partial(resizer, self.image_size, self.device))
        graph = "captured" if captures else "not captured"
        encoder = "fused" if self._encode is not self._static.encoder else "plain"
        self.description = f"cuda, {self.description}, {graph}, {encoder} encoder"
        plan, window = recipe.memory, self.preset.num_maskmem
        self._steady = (plan.steady_slots(window), 1 + max(0, plan.pointers - 1))  # memories and pointers
        # A tracker may be given another policy than the recipe's: the last two hold what any of ours looks at.
        self._foreseen = {self._steady[0], plan.most_slots(window)}
        self._buckets = sorted({*self._foreseen, window, window - 1 + CONDITIONING})

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        with self._turn(), exact_fp32():
            picture_hwc = torch.tensor(np.ascontiguousarray(image_hwc), device=self.device)
            image_1chw: Tensor = self._to_image(*image_hwc.shape[:2])(picture_hwc)
            return image_1chw

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._turn(), exact_fp32():
            top, mid, fine = self._encode(self.prepare(image_hwc))
            return Features(top.float(), mid.float(), fine.float())

    @torch.inference_mode()
    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        known = [i for i, recall in enumerate(recalls) if recall is not None]
        seen = [recall for recall in recalls if recall is not None]
        if not known or len(features.top) > 1:
            return super().attend(features, recalls)
        with self._turn(), exact_fp32():
            inputs = self._inputs(Kind(len(seen), self._bucket(seen), 0, 0))
            inputs.load(np.empty((0, 0, 3), np.uint8), seen, self._keys_of)
            out_bdhw = (features.top + self._network.no_mem_embed.view(1, -1, 1, 1)).repeat(len(recalls), 1, 1, 1)
            out_bdhw[known] = self._static.attend(features.top.to(self._products), self._read(inputs)).float()
            return out_bdhw

    @torch.inference_mode()
    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: Prompts) -> Decoded:
        prompted = prompts.points_bpc.shape[1] or prompts.mask_b1hw is not None or prompts.answer_b1hw is not None
        with self._turn():
            if prompted or len(features.top) > 1:
                return super().decode(conditioned_bchw, features, prompts)
            with exact_fp32():
                maps = [t.to(self._products) for t in (features.mid, features.fine)]
                return Decoded(*(t.float() for t in self._static.decode(conditioned_bchw.to(self._stream), *maps)))

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        with self._turn(), exact_fp32():
            certain_b = torch.tensor(list(prompted), device=self.device)
            tokens_bnm = self._static.remember(features.top.to(self._products), logits_b1hw, score_b, certain_b)
            tokens = copies([t.float() for t in tokens_bnm])
            return [self._remembered(t, self._keys_of(t)) for t in tokens]

    @torch.inference_mode()
    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        """The whole step; nothing here waits for the device. Answers are copies, one for each object's memory."""
        with self._turn():
            prepared = self._prepared(Kind(len(recalls), self._bucket(recalls), *image_hwc.shape[:2]))
            prepared.inputs.load(image_hwc, recalls, self._keys_of)
            # A correction leaves an object with one more pointer for good, and the mask is for pointers too: from
            # there on it is tracked with one.
            alike = all((len(r.memories), len(r.ages)) == self._steady for r in recalls)
            run = prepared.full if alike and prepared.full else prepared.masked
            logits, iou, score, pointer, tokens_bnm, keys_blnd = run()
            fresh = copies([logits, iou, score, pointer, *tokens_bnm, *keys_blnd])
            tokens, keys = fresh[4 : 4 + len(recalls)], fresh[4 + len(recalls) :]
            return Decoded(*fresh[:4]), [self._remembered(t, k) for t, k in zip(tokens, keys, strict=True)]

    def _remembered(self, tokens_nm: Tensor, keys_lnd: Tensor) -> Remembered:
        grid = self.image_size // 16
        return Remembered(tokens_nm.T.unflatten(1, (grid, grid)), keys_lnd)

    def _keys_of(self, tokens_nm: Tensor) -> Tensor:
        """A memory's keys [L, n, D]; for those that were not written by `track`."""
        keys_lnd: Tensor = self._static.attend.keys_of(tokens_nm[None])[0]
        return keys_lnd.to(self._products)

    def _bucket(self, recalls: Sequence[Recall]) -> int:
        """The smallest number of slots that is prepared for and has room for what these objects remember."""
        slots = max(len(r.memories) for r in recalls)
        return next((n for n in self._buckets if n >= slots), slots)

    def _prepared(self, kind: Kind) -> Prepared:
        size = (kind.height, kind.width)
        if size not in self._steps:
            if len(self._steps) >= SIZES:
                self._steps.popitem(last=False)
            self._steps[size] = {}
            # The largest first: where memory does not do, that shows at once.
            for objects in range(self.recipe.max_objects, 0, -1):
                for slots in sorted(self._foreseen, reverse=True):
                    self._prepare(Kind(objects, slots, *size))
        self._steps.move_to_end(size)
        if kind not in self._steps[size]:
            self._prepare(kind)
        return self._steps[size][kind]

    def _prepare(self, kind: Kind) -> None:
        """Capture both runners at once: the second is needed seconds after the first, and would be a hiccup then."""
        inputs, to_image = self._inputs(kind), self._to_image(kind.height, kind.width)
        inputs.noise(0)
        full = None
        with exact_fp32():
            masked = self._runner(lambda: self._step(inputs, to_image), lambda: inputs.noise(1))
            if kind.slots == self._steady[0]:
                full = self._runner(lambda: self._step(inputs, to_image, full=True), lambda: inputs.noise(2))
        inputs.clear()
        self._steps[kind.height, kind.width][kind] = Prepared(inputs, to_image, masked, full)

    def _inputs(self, kind: Kind) -> Inputs:
        p, pointers = self.preset, max(self.recipe.memory.most_pointers(), self._steady[1])
        sizes = (p.attention_layers, self._static.grid**2, p.dim, p.memory_dim)
        return Inputs(
            kind.objects, kind.slots, pointers, kind.height, kind.width, sizes, self._products, self.device
        )  # fmt: skip

    def _read(self, inputs: Inputs, full: bool = False) -> PaddedRead:
        """What the inputs hold; with `full` all slots are taken as real, and the steady number of pointers."""
        p = self._steady[1] if full else inputs.pointers_bpd.shape[1]
        slots_bt, present_bt, ages_bp, real_bp = inputs.facts()
        return PaddedRead(
            self._static.attend, inputs.keys_btlnd, inputs.values_btnm.to(self._products), slots_bt.long(),
            present_bt.bool(), inputs.pointers_bpd[:, :p], ages_bp[:, :p].float(), real_bp[:, :p].bool(), whole=full,
        )  # fmt: skip

    def _step(self, inputs: Inputs, to_image: DeviceInput, full: bool = False) -> tuple[Tensor, ...]:
        """From the inputs to logits, IoU, score, pointer, and the memory's tokens [b, n, M] and keys [b, L, n, D]."""
        static = self._static
        top, mid, fine = self._encode(to_image(inputs.picture_hwc))
        logits, iou, score, pointer = static.decode(static.attend(top, self._read(inputs, full)), mid, fine)
        tokens = static.remember(top, logits, score, inputs.untouched_b)
        keys = static.attend.keys_of(tokens).to(self._products)
        return logits.float(), iou.float(), score.float(), pointer.float(), tokens.float(), keys

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time (the buffers are shared); where the device's memory does not do, what would help."""
        with self._turns:
            try:
                yield
            except torch.OutOfMemoryError as e:
                self._steps.clear()
                r = self.recipe
                asked = f"image_size = {r.image_size}, max_objects = {r.max_objects}"
                lower = f"lower one of them in {r.path or 'the recipe'}, or free the GPU"
                raise EngineError(f"out of GPU memory with {asked}; {lower}") from e


def resizer(size: int, device: torch.device, height: int, width: int) -> DeviceInput:
    """`to_input` on the device, for pictures of one size."""
    return DeviceInput(height, width, size).to(device)
