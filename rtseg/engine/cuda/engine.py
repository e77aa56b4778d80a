"""The `cuda` engine: a tracked frame as one CUDA graph, from the bytes of the picture to masks and memories.

A step reads fixed buffers on the device (`Inputs`) and is captured once for each number of objects, number of memory
slots and size of picture. On a frame the host fills one pinned buffer, copies it up, copies the memories (the
caller's values) into their slots, launches the graph, and copies the answers out. It waits for nothing.

Objects that have just appeared bring fewer memories than there are slots; the empty ones are masked. In the long run
every slot is full, and a second graph without a mask may use kernels that take none. Frames with prompts are rare,
and go through the verbs of `TorchEngine`.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ...config import CONDITIONING, Recipe
from ...errors import EngineError
from ...sam2 import Decoded, Features, Prompts, Recall, Remembered, Sam2
from ...types import ImageU8
from ..reference import DTYPES, TorchEngine
from ..static import PaddedRead, StaticNetwork
from .attention import CudaAttention
from .buffers import Inputs, copies
from .graph import Disturb, Step, captured, plain
from .resize import DeviceInput

PRECISIONS = ("fp32", "bf16", "fp16")
STEPS = 16  # prepared steps that are kept; the least recently used one makes room
FUSED_ERROR = 0.05  # of the features' norm: what other roundings may do to them, and a wrong kernel does not stay under

Encode = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None = None) -> CudaEngine:
    """The engine on the current CUDA device; there is nothing to build, so `built` is not read.

    Raises `EngineError` where there is no usable GPU, it lacks the precision, or its memory does not do.
    """
    check_precision(recipe.precision)
    check_device(recipe.precision)
    return CudaEngine(network, recipe, weights_hash, "cuda", fuse=importlib.util.find_spec("triton") is not None)


def check_precision(precision: str) -> None:
    """`EngineError` for a precision that this engine does not have."""
    if precision not in PRECISIONS:
        has = f"the cuda runtime has {', '.join(PRECISIONS)}"
        raise EngineError(f'precision = "{precision}": {has}; for int8 and fp8 use runtime = "tensorrt"')


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
    """The inputs of a step, and the two ways to run it: `full` where each slot holds a memory (None: not worth one)."""

    inputs: Inputs
    masked: Step
    full: Step | None


class FullRead(PaddedRead):
    """All slots and pointers are real: nothing to mask, and attention may be of a kind that takes no mask."""

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        q = q_bnd.expand(self.objects, -1, -1)[:, None]
        answer: Tensor = self.attention(q, self.keys_blnd[:, layer, None], self.values_b1nm)[:, 0]
        return answer


class CudaEngine(TorchEngine):
    """`TorchEngine` with the tracked frame in fixed shapes; on a CPU it does the same without a graph.

    `fuse` compiles the image encoder with torch's inductor when the engine is opened (a minute the first time, then
    seconds). Only the encoder: its shape never changes, so that nothing is ever compiled in the middle of a feed.
    """

    def __init__(
        self, network: Sam2, recipe: Recipe, weights_hash: str, device: str = "cuda", *, fuse: bool = False
    ) -> None:
        check_precision(recipe.precision)
        self._steps: OrderedDict[Kind, Prepared] = OrderedDict()
        self._products = DTYPES.get(recipe.precision, torch.float32)
        self.recipe = recipe
        with self._room(), torch.inference_mode():
            super().__init__(network, recipe, weights_hash, device)
            captures = self.device.type == "cuda"
            self._runner: Callable[[Step, Disturb], Step] = plain
            if captures:
                self._runner = partial(captured, pool=torch.cuda.graph_pool_handle())
            # fp16 overflows where activations are added up over layers; bf16 has the range of fp32.
            stream = torch.bfloat16 if self._products == torch.bfloat16 else torch.float32
            static = StaticNetwork(deepcopy(self._network), CudaAttention(self._products))  # which it would change
            self._static = static.to(self.device).precise(self._products, stream)
            self._encode: Encode = self._static.encoder
            if fuse:
                self._encode = fused(self._static.encoder, torch.rand(1, 3, *[self.image_size] * 2, device=self.device))
        graph = "captured" if captures else "not captured"
        encoder = "fused" if self._encode is not self._static.encoder else "plain"
        self.description = f"cuda, {self.description}, {graph}, {encoder} encoder"
        plan, window = recipe.memory, self.preset.num_maskmem
        self._steady = (plan.steady_slots(window), 1 + max(0, plan.pointers - 1))  # memories and pointers
        # A tracker may be given another policy than the recipe's: the last two hold what any of ours looks at.
        self._buckets = sorted({self._steady[0], plan.most_slots(window), window, window - 1 + CONDITIONING})

    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._room():
            return super().encode_image(image_hwc)

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        with self._room():
            return super().attend(features, recalls)

    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: Prompts) -> Decoded:
        with self._room():
            return super().decode(conditioned_bchw, features, prompts)

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        with self._room(), exact_fp32():
            written = super().remember(features, logits_b1hw, score_b, prompted)
            tokens = [w.map_chw.flatten(1).T.contiguous() for w in written]
            return [self._remembered(t, self._keys_of(t)) for t in tokens]

    @torch.inference_mode()
    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        """The whole step; nothing here waits for the device. Answers are copies, one for each object's memory."""
        with self._room():
            slots = max(len(r.memories) for r in recalls)
            bucket = next((n for n in self._buckets if n >= slots), slots)
            prepared = self._prepared(Kind(len(recalls), bucket, *image_hwc.shape[:2]))
            prepared.inputs.load(image_hwc, recalls, self._keys_of)
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

    def _prepared(self, kind: Kind) -> Prepared:
        if kind not in self._steps:
            if len(self._steps) >= STEPS:
                self._steps.popitem(last=False)
            with exact_fp32():
                self._steps[kind] = self._prepare(kind)
        self._steps.move_to_end(kind)
        return self._steps[kind]

    def _prepare(self, kind: Kind) -> Prepared:
        """Capture both runners at once: the second is needed seconds after the first, and would be a hiccup then."""
        p, slots, pointers = self.preset, *self._steady
        inputs = Inputs(
            kind.objects, kind.slots, max(self.recipe.memory.most_pointers(), pointers), kind.height, kind.width,
            (p.attention_layers, self._static.grid**2, p.dim, p.memory_dim), self._products, self.device,
        )  # fmt: skip
        to_image = DeviceInput(kind.height, kind.width, self.image_size).to(self.device)
        inputs.noise(0)
        masked = self._runner(lambda: self._step(inputs, to_image, None), lambda: inputs.noise(1))
        full = None
        if kind.slots == slots:
            full = self._runner(lambda: self._step(inputs, to_image, pointers), lambda: inputs.noise(2))
        inputs.clear()
        return Prepared(inputs, masked, full)

    def _step(self, inputs: Inputs, to_image: nn.Module, full_pointers: int | None) -> tuple[Tensor, ...]:
        """From the inputs to logits, IoU, score, pointer, and the memory's tokens [b, n, M] and keys [b, L, n, D].

        With `full_pointers` all slots are taken as real, and that many pointers.
        """
        static = self._static
        top, mid, fine = self._encode(to_image(inputs.picture_hwc))
        p = inputs.pointers_bpd.shape[1] if full_pointers is None else full_pointers
        slots_bt, present_bt, ages_bp, real_bp = inputs.facts()
        read = (PaddedRead if full_pointers is None else FullRead)(
            static.attend, inputs.keys_btlnd, inputs.values_btnm.to(self._products), slots_bt.long(),
            present_bt.bool(), inputs.pointers_bpd[:, :p], ages_bp[:, :p].float(), real_bp[:, :p].bool(),
        )  # fmt: skip
        logits, iou, score, pointer = static.decode(static.attend(top, read), mid, fine)
        tokens = static.remember(top, logits, score, inputs.untouched_b)
        keys = static.attend.keys_of(tokens).to(self._products)
        return logits.float(), iou.float(), score.float(), pointer.float(), tokens.float(), keys

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Where the device's memory does not do, one line that says what would help."""
        try:
            yield
        except torch.OutOfMemoryError as e:
            self._steps.clear()
            r = self.recipe
            asked = f"image_size = {r.image_size}, max_objects = {r.max_objects}"
            where = r.path or "the recipe"
            raise EngineError(f"out of GPU memory with {asked}; lower one of them in {where}, or free the GPU") from e


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Inside, fp32 means fp32 (TF32 keeps ten bits of mantissa), and cuDNN measures which kernels are fastest."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = False, False, True
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def fused(encoder: nn.Module, image_1chw: Tensor, backend: str = "inductor") -> Encode:
    """The encoder compiled, or as it is where that fails or gives something else."""
    # Nothing of it changes any more, so there is nothing to watch: else another number of CPU threads, say, would make
    # torch compile again, in the middle of a feed. (An older torch has no such switch.)
    unwatched = getattr(torch.compiler, "skip_all_guards_unsafe", None)
    options = {"guard_filter_fn": unwatched} if unwatched else None
    compiled: Encode = torch.compile(encoder, fullgraph=True, dynamic=False, backend=backend, options=options)
    expected = encoder(image_1chw)
    try:
        with exact_fp32():
            found = compiled(image_1chw)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the family of torch's compilation errors; no compiler on this machine is one of them
        return encoder
    errors = [float((f.float() - e.float()).norm() / e.float().norm()) for f, e in zip(found, expected, strict=True)]
    return compiled if max(errors) <= FUSED_ERROR else encoder
