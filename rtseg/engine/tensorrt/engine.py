"""The engine that runs TensorRT plans: a tracked frame is one CUDA graph, replayed.

What a person prompts goes through torch on the same GPU, where only that can be asked (`decode`); everything else,
`remember` included, through the plans. `make` compiles, `open` runs what `make` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor

from ...config import Recipe, file_sha256
from ...errors import EngineError
from ...sam2 import Decoded, Features, Prompts, Recall, Remembered, Sam2
from ...types import ImageU8
from ..base import Engine, Verbs
from ..reference import TorchEngine
from .buffers import TO_HOST, Buffers
from .gpu import CudaGpu, Gpu
from .onnx import Shapes, export, typed
from .picture import Pictures
from .plans import Context, Plan, bindings, build
from .quantize import TYPES, calibrate

TIMINGS = "tensorrt-timings"
NEEDS = {"bf16": (8, 0), "int8": (8, 0), "fp8": (8, 9)}  # compute capability; int8 is bf16 where it is not int8
MOVES = ("top", "conditioned_bdhw", "score_b", "tokens_bnm")  # an output of each verb, which no picture leaves alone


class TensorRTEngine(TorchEngine):
    """Answers are copies; `track` gives logits, IoU and scores in host memory, and all else on the GPU.

    Threads may share an engine, and take turns.
    """

    def __init__(
        self, network: Sam2, recipe: Recipe, weights_hash: str, plans: dict[str, Plan], shapes: Shapes, gpu: Gpu
    ) -> None:
        super().__init__(network, recipe, weights_hash, gpu.name)
        self.description = f"tensorrt {bindings().__version__}, {recipe.precision}, {gpu.facts()['gpu']}"
        self._shapes, self._gpu, self._plans = shapes, gpu, plans
        self._turns = RLock()
        self._buffers = Buffers(shapes, gpu)
        self._pictures = Pictures(self._buffers.of(1)["image_1chw"], gpu)
        # One scratch for all: the plans run one after the other, on one stream.
        size = max(1, *(plan.scratch_bytes for plan in plans.values()))
        self._scratch = gpu.zeros((size,), torch.uint8)
        self._contexts: dict[tuple[str, int], Context] = {}
        self._steps: dict[tuple[int, int], Callable[[], None]] = {}

    @torch.inference_mode()
    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        if not self._keyed(recalls):
            return Verbs.track(self, image_hwc, recalls)
        objects, slots = self._room(recalls)
        with self._turn():
            step = self._step(objects, slots)
            self._pictures.give(image_hwc)
            self._buffers.load(recalls, slots)
            step()
            pointer_bd = self._buffers.of(objects)["pointer_bd"].clone()
            written = self._written(objects)
            host, device = self._buffers.host(objects), self._buffers.of(objects)
            for name in TO_HOST:
                host[name].copy_(device[name], non_blocking=True)
            self._gpu.wait()
            logits_b1hw, iou_b, score_b = (host[name].clone() for name in TO_HOST)
        return Decoded(logits_b1hw, iou_b, score_b, pointer_bd), written

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        with self._turn():
            self._pictures.give(image_hwc)
            return self._buffers.of(1)["image_1chw"]

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._turn():
            self._pictures.give(image_hwc)
            self._run("encode", 1)
            b = self._buffers.of(1)
            return Features(b["top"].clone(), b["mid"].clone(), b["fine"].clone())

    @torch.inference_mode()
    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        known = [i for i, recall in enumerate(recalls) if recall is not None]
        seen = [recall for recall in recalls if recall is not None]
        if not known or len(features.top) > 1 or not self._keyed(seen):
            return super().attend(features, recalls)
        objects, slots = self._room(seen)
        with self._turn():
            b = self._buffers.of(objects)
            b["top"].copy_(features.top)
            self._buffers.load(seen, slots)
            self._run(f"attend{slots}", objects, slots)
            fresh = features.top + self._network.no_mem_embed.view(1, -1, 1, 1)
            out_bdhw = fresh.repeat(len(recalls), 1, 1, 1)
            out_bdhw[known] = b["conditioned_bdhw"]
            return out_bdhw

    @torch.inference_mode()
    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: Prompts) -> Decoded:
        prompted = prompts.points_bpc.shape[1] or prompts.mask_b1hw is not None or prompts.answer_b1hw is not None
        if prompted or len(features.top) > 1:
            return super().decode(conditioned_bchw, features, prompts)
        objects = self._fits(len(conditioned_bchw))
        with self._turn():
            b = self._buffers.of(objects)
            for name, given in (("conditioned_bdhw", conditioned_bchw), ("mid", features.mid), ("fine", features.fine)):
                b[name].copy_(given)
            self._run("decode", objects)
            return Decoded(*(b[name].clone() for name in ("logits_b1hw", "iou_b", "score_b", "pointer_bd")))

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        objects = self._fits(len(logits_b1hw))
        with self._turn():
            b = self._buffers.of(objects)
            for name, given in (("top", features.top), ("logits_b1hw", logits_b1hw), ("score_b", score_b)):
                b[name].copy_(given)
            self._buffers.host(objects)["certain_b"].copy_(torch.tensor(prompted))
            self._buffers.upload(objects, 0, "certain_b")
            self._run("remember", objects)
            b["certain_b"].fill_(False)  # as tracked frames find it
            return self._written(objects)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time, on the GPU's stream: the buffers are shared."""
        with self._turns, self._gpu.work():
            yield

    def _keyed(self, recalls: Sequence[Recall]) -> bool:
        """Whether these memories were written by an engine like this one."""
        return all(m.keys_lnd is not None for recall in recalls for m in recall.memories)

    def _fits(self, objects: int) -> int:
        if objects > self._shapes.max_objects:
            raise EngineError(
                f"{objects} objects, and the plans are built for up to {self._shapes.max_objects}; raise max_objects in"
                f" the recipe and run: rtseg build {self.recipe.path}"
            )
        return objects

    def _room(self, recalls: Sequence[Recall]) -> tuple[int, int]:
        """How many objects, and the smallest `attend` that has room for what they remember."""
        most = max(len(recall.slots) for recall in recalls)
        pointers = max(len(recall.ages) for recall in recalls)
        enough = [slots for slots in self._shapes.slots if slots >= most]
        if not enough or pointers > self._shapes.pointers:
            raise EngineError(
                f"an object remembers {most} frames and {pointers} pointers, and the plans have room for"
                f" {self._shapes.slots[-1]} and {self._shapes.pointers}; run: rtseg build {self.recipe.path}"
            )
        return self._fits(len(recalls)), enough[0]

    def _written(self, objects: int) -> list[Remembered]:
        """Copies of the memories in the buffers: a view would be written over by the next frame."""
        b, grid = self._buffers.of(objects), self.image_size // 16
        pairs = zip(b["tokens_bnm"], b["written_blnd"], strict=True)
        return [Remembered(tokens.clone().T.unflatten(1, (grid, grid)), keys.clone()) for tokens, keys in pairs]

    def _context(self, graph: str, objects: int, slots: int) -> Context:
        """A plan at the buffers of this many objects; made once."""
        key = (graph, 0 if graph == "encode" else objects)
        if key not in self._contexts:
            self._contexts[key] = self._plans[graph].context(self._buffers.of(objects, slots), self._scratch)
        return self._contexts[key]

    def _run(self, graph: str, objects: int, slots: int = 0) -> None:
        self._context(graph, objects, slots).enqueue()

    def _step(self, objects: int, slots: int) -> Callable[[], None]:
        """The whole tracked frame as one recording; made once for each number of objects."""
        if (objects, slots) not in self._steps:
            graphs = ("encode", f"attend{slots}", "decode", "remember")
            contexts = [self._context(graph, objects, slots) for graph in graphs]

            def enqueue() -> None:
                for context in contexts:
                    context.enqueue()

            self._buffers.of(objects, slots)["present_bt"].fill_(True)  # all absent would be no number
            enqueue()  # on its first run TensorRT does things that cannot be recorded
            self._gpu.wait()
            self._steps[objects, slots] = self._proved(self._gpu.capture(enqueue), objects)
        return self._steps[objects, slots]

    def _proved(self, step: Callable[[], None], objects: int) -> Callable[[], None]:
        """The recording, if another picture gives other answers: one that is empty is recorded without an error."""
        seen, b = [], self._buffers.of(objects)
        for seed in (0, 1):
            noise = torch.randn(b["image_1chw"].shape, generator=torch.Generator().manual_seed(seed))
            b["image_1chw"].copy_(noise)
            step()
            seen.append([b[name].clone() for name in MOVES])
        self._gpu.wait()
        wrong = [name for name, *both in zip(MOVES, *seen, strict=True) if not all(map(finite, both))]
        if wrong:  # two answers of NaN would never be equal
            raise EngineError(f"the plans give what is no number ({', '.join(wrong)}); use another precision")
        same = [name for name, one, two in zip(MOVES, *seen, strict=True) if torch.equal(one, two)]
        if same:
            raise EngineError(
                f"the recorded CUDA graph does not answer to the picture ({', '.join(same)}); update TensorRT or the"
                ' driver, or use runtime = "cuda"'
            )
        return step


def finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def make(
    network: Sam2, recipe: Recipe, folder: Path, note: Callable[[str], None], pictures: Sequence[ImageU8] = ()
) -> dict[str, object]:
    """Compile the plans of a recipe into `folder`, and return what they were made from.

    `pictures` calibrate int8 and fp8. How fast each kernel was is kept beside the folder, for the next build. Raises
    `EngineError`.
    """
    trt, gpu = bindings(), CudaGpu()
    _check_precision(recipe.precision, gpu)
    shapes = Shapes.of(network.preset, recipe)
    peaks = None
    if recipe.precision in TYPES:
        note(f"calibrating {recipe.precision} on {len(pictures)} frames")
        peaks = calibrate(network, shapes.slots[0], shapes.pointers, recipe.precision, pictures)
    graphs = export(typed(network, recipe.precision, peaks), shapes, folder, note)
    hashes = {name: file_sha256(path) for name, path in graphs.items()}
    for name, path in graphs.items():
        note(f"compiling {name}")
        plan = build(path, shapes.max_objects, folder.parent / TIMINGS, gpu)
        path.with_suffix(".plan").write_bytes(plan)
        path.unlink()  # as large as the plan, and never read again
    flags = {"strongly_typed": True, "tf32": False, "slots": list(shapes.slots), "pointers": shapes.pointers}
    return {"tensorrt": trt.__version__, **gpu.facts(), "precision": recipe.precision, "flags": flags, "onnx": hashes}


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> Engine:
    """The engine of what `make` wrote to `built`, which the caller has found to be whole and made for this machine.

    Raises `EngineError`.
    """
    bindings()
    gpu = CudaGpu()
    if built is None:
        again = f"run: rtseg build {recipe.path or 'NAME.toml'}"
        raise EngineError(f'runtime = "tensorrt" runs what was built, and nothing is built for this recipe; {again}')
    shapes = Shapes.of(network.preset, recipe)
    plans = {name: Plan(built / f"{name}.plan", gpu) for name in shapes.graphs}
    return TensorRTEngine(network, recipe, weights_hash, plans, shapes, gpu)


def _check_precision(precision: str, gpu: Gpu) -> None:
    facts = gpu.facts()
    has = tuple(int(n) for n in facts["compute_capability"].split("."))
    needs = NEEDS.get(precision, (0, 0))
    if has < needs:
        raise EngineError(
            f'precision = "{precision}" needs compute capability {needs[0]}.{needs[1]}, {facts["gpu"]} has'
            f' {facts["compute_capability"]}; use "fp16" or "fp32"'
        )
