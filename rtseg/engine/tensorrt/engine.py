"""The engine that runs TensorRT plans: a tracked step is one CUDA graph, which is replayed.

A prompted `decode` runs in torch on the same GPU; everything else, including `remember`, runs on the plans. `make`
compiles them, `open` opens the engine on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.types import ImageU8
from ...sam2 import Decoded, Features, Recall, Remembered, Sam2
from ..gpu import Gpu
from ..picture.recorded import PictureInputs, PictureSize, Recorded
from ..recipe import Recipe
from ..static.copies import copies, copy_all
from ..static.engine import SPARE
from ..static.pool import BLANK, SCRATCH, Pool
from ..static.pooled import PooledEngine
from .buffers import Buffers
from .library import bindings
from .onnx import Shapes
from .plans import Context, Plan

MOVES = (
    "top",
    "conditioned_bdhw",
    "score_b",
    "tokens_bnm",
)  # one output of each verb that depends on the picture
ANSWERS = ("logits_b1hw", "iou_b", "score_b", "pointer_bd")


class TensorRTEngine(PooledEngine):
    """The engine. Results are copies on the GPU. Only `ready` and the first frame of a new size wait for the GPU.

    Threads may share an engine; they take turns, and each may have a CUDA stream of its own.
    """

    def __init__(
        self, network: Sam2, recipe: Recipe, weights_hash: str, plans: dict[str, Plan], shapes: Shapes, gpu: Gpu
    ) -> None:
        super().__init__(network, recipe, weights_hash, gpu.name)
        self.description = f"tensorrt {bindings().__version__}, {recipe.precision}, {gpu.facts()['gpu']}"
        self._shapes, self._gpu, self._plans = shapes, gpu, plans
        self._turns = RLock()
        self._contexts: dict[tuple[str, int], Context] = {}
        with self._turns, gpu.work():  # not in inference mode: tensors made in it cannot be written outside it
            self._buffers = Buffers(shapes, gpu)
            kept = shapes.max_objects * (shapes.slots[-1] + SPARE)
            grid = self.image_size // 16
            self._pool = Pool(network.preset, grid, shapes.max_objects, kept, shapes.keys, self.device)
            self._pictures = PictureInputs(self._buffers.for_objects(1)["image_1chw"], self._buffers.facts.bytes, gpu)
            # One scratch for all, because the plans run one after the other on one stream.
            size = max(1, *(plan.scratch_bytes for plan in plans.values()))
            self._scratch = gpu.zeros((size,), torch.uint8)

    @torch.inference_mode()
    def ready(self, height: int, width: int, beat: Callable[[], None] = lambda: None) -> None:
        """Record a tracked step for pictures [H, W], for every number of objects and each `attend`."""
        for kind in self._foreseen():
            with self._call():
                self._recorded(self._pictures.for_size(height, width), *kind)
            beat()

    def _run_step(
        self, image_hwc: ImageU8, recalls: Sequence[Recall], slots: Sequence[Sequence[int]], own: Sequence[int]
    ) -> Sequence[Tensor]:
        objects, capacity = self._capacity_for(recalls)
        size = self._pictures.for_size(*image_hwc.shape[:2])
        step = self._step(size, objects, capacity)
        with size.filling(image_hwc) as bytes_u8:
            self._buffers.facts.write(bytes_u8, recalls, capacity, slots, own)
        self._buffers.copy_pointers(recalls)
        step()
        b = self._buffers.for_objects(objects)
        return [b[name] for name in ANSWERS]

    def _step_takes(self, recalls: Sequence[Recall]) -> bool:
        keyed = self._keyed(recalls)
        if keyed:
            self._capacity_for(recalls)
        return keyed

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        with self._call():
            self._pictures.give(image_hwc)
            return self._buffers.for_objects(1)["image_1chw"]

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._call():
            self._pictures.give(image_hwc)
            self._run("encode", 1)
            b = self._buffers.for_objects(1)
            return Features(*copies([b["top"], b["mid"], b["fine"]]))

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        return bool(known) and len(features.top) == 1 and self._keyed(known)

    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Tensor:
        objects, capacity = self._capacity_for(recalls)
        b = self._buffers.for_objects(objects, capacity)
        b["top"].copy_(features.top)
        if self.preset.match_dim:
            b["mid"].copy_(features.mid)
        slots = self._pool_slots(recalls)
        self._buffers.upload_facts(recalls, capacity, slots or [[BLANK] * len(recall.slots) for recall in recalls])
        self._buffers.gather(self._pool, objects, capacity)
        if slots is None:
            self._buffers.copy_in(recalls, capacity)
        self._buffers.copy_pointers(recalls)
        self._run(f"attend{capacity}", objects, capacity)
        return copies([b["conditioned_bdhw"]])[0]

    def _matched(self, attended_bdhw: Tensor, features: Features, recalls: Sequence[Recall]) -> Tensor:
        return attended_bdhw  # the plan has added it

    def _decode_tracked(self, conditioned_bchw: Tensor, features: Features) -> Decoded:
        objects = self._fits(len(conditioned_bchw))
        b = self._buffers.for_objects(objects)
        given = {"conditioned_bdhw": conditioned_bchw, "mid": features.mid, "fine": features.fine}
        copy_all([(b[name], tensor) for name, tensor in given.items()])
        self._run("decode", objects)
        return Decoded(*copies([b[name] for name in ANSWERS]))

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        objects = self._fits(len(logits_b1hw))
        with self._call():
            b = self._buffers.for_objects(objects)
            given = {"top": features.top, "logits_b1hw": logits_b1hw, "score_b": score_b}
            copy_all([(b[name], tensor) for name, tensor in given.items()])
            self._buffers.upload_certain(prompted)
            self._run("remember", objects)
            return self._with_cells(self._pool.put(b["tokens_bnm"], b["written_blnd"]), features, logits_b1hw, prompted)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """A context for one thread at a time on the GPU's stream, because the buffers are shared."""
        with self._turns, self._gpu.work(), torch.inference_mode():
            yield

    def _keyed(self, recalls: Sequence[Recall]) -> bool:
        """Whether all these memories have keys, as those of an engine like this one do."""
        return all(m.keys_lnd is not None for recall in recalls for m in recall.memories)

    def _fits(self, objects: int) -> int:
        if objects > self._shapes.max_objects:
            raise EngineError(
                f"{objects} objects, and the plans are built for up to {self._shapes.max_objects}; raise max_objects in"
                f" the recipe and run: rtseg build {self.recipe.path}"
            )
        return objects

    def _capacity_for(self, recalls: Sequence[Recall]) -> tuple[int, int]:
        """The number of objects, and the slots of the smallest `attend` with room for their memories."""
        most = max(len(recall.slots) for recall in recalls)
        pointers = max(len(recall.ages) for recall in recalls)
        enough = [slots for slots in self._shapes.slots if slots >= most]
        if not enough or pointers > self._shapes.pointers:
            raise EngineError(
                f"an object remembers {most} frames and {pointers} pointers, and the plans have room for"
                f" {self._shapes.slots[-1]} and {self._shapes.pointers}; run: rtseg build {self.recipe.path}"
            )
        return self._fits(len(recalls)), enough[0]

    def _keys_of(self, memory: Remembered) -> Tensor:
        assert memory.keys_lnd is not None  # `_keyed` has checked it
        return memory.keys_lnd

    def _context(self, graph: str, objects: int, slots: int) -> Context:
        """The context of a plan on the buffers for this many objects; made once."""
        key = (graph, 0 if graph == "encode" else objects)
        if key not in self._contexts:
            self._contexts[key] = self._plans[graph].context(self._buffers.for_objects(objects, slots), self._scratch)
        return self._contexts[key]

    def _run(self, graph: str, objects: int, slots: int = 0) -> None:
        self._context(graph, objects, slots).enqueue()

    def _foreseen(self) -> list[tuple[int, int]]:
        """All (objects, slots), the largest first, so that too little memory is found at once."""
        objects, slots = range(self._shapes.max_objects, 0, -1), sorted(self._shapes.slots, reverse=True)
        return [(b, t) for b in objects for t in slots]

    def _step(self, size: PictureSize, objects: int, slots: int) -> Recorded:
        """The tracked step as one recording. The first call for a size records all, as doing so later delays a feed."""
        for kind in [] if size.steps else self._foreseen():
            self._recorded(size, *kind)
        return self._recorded(size, objects, slots)

    def _recorded(self, size: PictureSize, objects: int, slots: int) -> Recorded:
        if (objects, slots) not in size.steps:
            size.steps[objects, slots] = self._record(size, objects, slots)
        return size.steps[objects, slots]

    def _record(self, size: PictureSize, objects: int, slots: int) -> Recorded:
        graphs = ("encode", f"attend{slots}", "decode", "remember")
        contexts = [self._context(graph, objects, slots) for graph in graphs]
        buffers, facts, b = self._buffers, self._buffers.facts, self._buffers.for_objects(objects, slots)

        def enqueue() -> None:
            buffers.facts_u8.copy_(size.upload.device_u8[: facts.bytes])
            buffers.gather(self._pool, objects, slots)
            size.convert()
            for context in contexts:
                context.enqueue()
            self._pool.write(b["own_b"], b["tokens_bnm"], b["written_blnd"])

        size.upload.device_u8.zero_()
        facts_of_all = facts.cut(size.upload.device_u8, objects, slots)
        facts_of_all["present_bt"].fill_(True)  # attention to nothing would give NaN
        torch.arange(SCRATCH, SCRATCH + objects, out=facts_of_all["own_b"])
        enqueue()  # TensorRT's first run does things that cannot be recorded
        self._gpu.wait()
        return self._proved(self._gpu.capture(enqueue), size, objects)

    def _proved(self, step: Recorded, size: PictureSize, objects: int) -> Recorded:
        """The recording. Raises `EngineError` if its results do not depend on the picture, as those of an empty one."""
        seen, b = [], self._buffers.for_objects(objects)
        for seed in (0, 1):
            size.picture_hwc.random_(0, 256, generator=torch.Generator(self.device).manual_seed(seed))
            step()
            seen.append(copies([b[name] for name in MOVES]))
        wrong = [name for name, *both in zip(MOVES, *seen, strict=True) if not all(map(finite, both))]
        if wrong:  # checked first, because two results of NaN are never equal
            raise EngineError(f"the plans return NaN or infinity ({', '.join(wrong)}); use another precision")
        same = [name for name, one, two in zip(MOVES, *seen, strict=True) if torch.equal(one, two)]
        if same:
            raise EngineError(
                f"the recorded CUDA graph does not answer to the picture ({', '.join(same)}); update TensorRT or the"
                ' driver, or use runtime = "cuda"'
            )
        return step


def finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())
