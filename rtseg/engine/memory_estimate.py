"""The memory estimate: how much memory each part of an engine will take, before any of it is allocated.

It is computed from the recipe, the preset and the size of the pictures. Weights, tables and buffers are exact.
Intermediate values ("on the way") are the most that a verb of the network holds at once, within a few per cent. CUDA
and its libraries, and TensorRT's scores where attention is not fused, are rough estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..base.errors import EngineError
from ..base.hardware.gpu import free_gpu_bytes
from ..sam2 import Preset, get_preset
from .attention_shapes import scores_bytes
from .buffer_sizes import Sizes, parameters
from .policy import MAX_CONDITIONING
from .recipe import Recipe
from .static.engine import SPARE

MIB = 2**20
HD = (1080, 1920)  # height and width of a picture, unless given
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int16": 2, "int8": 2, "fp8": 2}  # of a number in matrix products
CUDA = 600 * MIB  # context and code of torch's and NVIDIA's libraries: an estimate, it differs with card and version
PROCESS = {"onnx": 80 * MIB, "other": 310 * MIB}  # Python with ONNX Runtime, or with torch: measured on Linux
ARENA = 3  # times what is computed is kept by ONNX Runtime, as measured: its arena grows by doubling
JOINED = 62  # bytes for each D x D that `StaticNetwork.join` adds: heads of one width, in fp32, and wider products
SURE = ("weights", "tables", "memories", "buffers", "pictures")  # the exact parts
LEAST = 0.75  # the share of an estimated part that is needed for certain


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The memory of an engine: bytes by part, in the host's memory if `host`, else in the GPU's."""

    parts: dict[str, int]
    host: bool = False

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def sure(self) -> int:
        """The bytes needed for certain, without CUDA itself: the exact parts, and 3/4 of the estimated ones."""
        rest = sum(size for name, size in self.parts.items() if name not in (*SURE, "CUDA"))
        return sum(self.parts.get(name, 0) for name in SURE) + int(LEAST * rest)

    def mib(self) -> dict[str, int]:
        """MiB by part."""
        return {name: round(size / MIB) for name, size in self.parts.items()}

    def __str__(self) -> str:
        where = "host" if self.host else "GPU"
        parts = ", ".join(f"{name} {size}" for name, size in self.mib().items() if size)
        return f"{self.bytes / MIB:.0f} MiB of the {where}: {parts}"


def estimate_memory(
    recipe: Recipe, height: int = HD[0], width: int = HD[1], on_gpu: bool | None = None
) -> MemoryEstimate:
    """The memory that the engine of a recipe takes for pictures [H, W]. The recipe has to name a runtime.

    Precision "auto" counts as bf16 on a GPU and in our CPU kernels, else as fp32. `on_gpu`: whether runtime torch works
    on a GPU (None: as the recipe's device says).
    """
    preset = get_preset(recipe.model)
    gpu = recipe.device.startswith("cuda") if on_gpu is None else on_gpu
    kind = recipe.runtime.partition(":")[0]
    halves = gpu or kind not in ("torch", "onnx")
    precision = ("bf16" if halves else "fp32") if recipe.precision == "auto" else recipe.precision
    sizes = _sizes(preset, replace(recipe, precision=precision))
    picture = 3 * height * width
    if kind == "cuda":
        return MemoryEstimate(_cuda(recipe, preset, sizes, picture))
    if kind == "tensorrt":
        return MemoryEstimate(_tensorrt(recipe, preset, sizes, picture))
    if kind == "torch" and gpu:
        return MemoryEstimate({"weights": sizes.network(), **_torch(sizes), "CUDA": CUDA})
    process = PROCESS.get(kind, PROCESS["other"])
    network = sizes.network() if kind == "torch" else 4 * parameters(preset) + sizes.tables()
    both = sizes.network() + sizes.weights() + sizes.tables() if kind == "cpu" else network
    scores = scores_bytes(preset, recipe.image_size, sizes.slots, sizes.pointers, sizes.objects, "fp32")
    on_the_way = ARENA * (sizes.step() + scores) if kind == "onnx" else sizes.step()
    found = _torch(sizes) if kind == "torch" else {"memories": _bank(sizes), "on the way": on_the_way}
    return MemoryEstimate({"weights": both, **found, "process": process}, host=True)


def _sizes(preset: Preset, recipe: Recipe) -> Sizes:
    memory, product = recipe.memory, BYTES[recipe.precision]
    # fp16 overflows in the residual stream; the graphs of TensorRT and of the CPU keep fp32 between the layers.
    stream = 2 if recipe.precision == "bf16" and recipe.runtime == "cuda" else 4
    slots = max(memory.most_slots(preset.num_maskmem), memory.full_bank(preset.num_maskmem))
    return Sizes(preset, recipe.image_size, recipe.max_objects, slots, memory.most_pointers(), product, stream)


def _bank(sizes: Sizes) -> int:
    """The memories of all objects, and for each one more while it is written."""
    return (sizes.keys + sizes.values) * (sizes.slots + 1) // sizes.slots + _cells(sizes)


def _cells(sizes: Sizes) -> int:
    """What frames are compared with: the cells of the conditioning memories, and of one more while it is written."""
    return sizes.objects * (MAX_CONDITIONING + 1) * sizes.compared


def _pool(sizes: Sizes) -> int:
    """The pool: slots for all memories of the objects, for the new ones, spare ones, and slot 0, which is blank."""
    slot = (sizes.keys + sizes.values) // (sizes.objects * sizes.slots)
    return (1 + sizes.objects * (1 + sizes.slots + SPARE)) * slot + _cells(sizes)


def _torch(sizes: Sizes) -> dict[str, int]:
    """The plain network, which projects keys from the values at each step."""
    memories = sizes.values * (sizes.slots + 1) // sizes.slots + _cells(sizes)
    return {"memories": memories, "on the way": sizes.plain()}


def _cuda(recipe: Recipe, preset: Preset, sizes: Sizes, picture: int) -> dict[str, int]:
    """A pool of memories, one set of inputs, and graphs that share all memory but that of their output masks."""
    full_bank = recipe.memory.full_bank(preset.num_maskmem)
    graphs = 2 + (sizes.slots != full_bank)  # with a mask for each number of slots, and one without
    masks = sum(range(1, recipe.max_objects + 1)) * sizes.cells * 16 * 4
    return {
        "weights": sizes.network() + sizes.weights() + JOINED * preset.dim**2,
        "tables": sizes.tables(rows=sizes.product),
        "memories": _pool(sizes),
        "pictures": picture,
        **({"buffers": recipe.max_objects * sizes.compared} if sizes.compared else {}),
        "on the way": sizes.step(full=True),
        "warm-up": sizes.step(full=True),  # the run before a capture, in memory that the graphs do not share
        "graphs": graphs * masks,
        "CUDA": CUDA,
    }


def _tensorrt(recipe: Recipe, preset: Preset, sizes: Sizes, picture: int) -> dict[str, int]:
    """Buffers for every input and output of the graphs, one scratch for all plans, the plain network for prompts."""
    memory, window = recipe.memory, preset.num_maskmem
    every = {memory.full_bank(window), memory.most_slots(window)}
    n = sizes.cells
    one = sizes.objects * n
    image = 4 * 3 * recipe.image_size**2
    outputs = one * (4 * preset.dim + 16 * 4 + 4 * preset.memory_dim)
    written = one * preset.attention_layers * preset.dim * sizes.product
    features = 4 * 4 * n * preset.dim
    return {
        "weights": sizes.network() + sizes.weights(),
        "tables": sizes.tables(),
        "memories": _pool(sizes),
        "buffers": (sizes.keys + sizes.values) * sum(every) // sizes.slots
        + outputs
        + written
        + features
        + image
        + sizes.objects * sizes.compared,
        "pictures": picture,
        "on the way": sizes.step(),
        "scores, if not fused": scores_bytes(
            preset, recipe.image_size, sizes.slots, sizes.pointers, sizes.objects, recipe.precision
        ),
        "CUDA": CUDA,
    }


def check(recipe: Recipe, device: str, height: int = HD[0], width: int = HD[1]) -> None:
    """Raise `EngineError`, before anything is allocated, if the engine of a recipe does not fit on its GPU."""
    if not device.startswith("cuda"):
        return
    free, needed = free_gpu_bytes(device), estimate_memory(recipe, height, width, on_gpu=True)
    if free is None or needed.sure <= free:
        return
    size, objects = largest(recipe, lambda r: estimate_memory(r, height, width, on_gpu=True).sure <= free)
    ways = [f"image_size = {size}"] * bool(size) + [f"max_objects = {objects}"] * bool(objects)
    remedy = f"{' or '.join(ways)} would fit" if ways else "neither a smaller size nor fewer objects would fit"
    asked = f"image_size = {recipe.image_size}, max_objects = {recipe.max_objects}"
    raise EngineError(
        f"{recipe.path or 'recipe'}: {asked} needs {needed.sure // MIB} MiB on {device} at least, and {free // MIB} MiB"
        f" are free; {remedy}; or close what else uses the GPU"
    )


def largest(recipe: Recipe, fits: Callable[[Recipe], bool]) -> tuple[int, int]:
    """The largest image_size that fits with as many objects, and the most objects that fit at this image_size.

    Each is 0 if nothing fits.
    """
    sizes = range(recipe.image_size - recipe.image_size % 32, 63, -32)
    size = next((s for s in sizes if fits(replace(recipe, image_size=s))), 0)
    return size, next((n for n in range(recipe.max_objects, 0, -1) if fits(replace(recipe, max_objects=n))), 0)
