"""An engine recipe as a value: the file that says which network, with which weights, run how.

It is TOML; a key that is left out has the default that stands here. A mistake is a `ConfigError` in one line that names
the file, the key, what was found and what was expected. A relative path is relative to the file that holds it; a path
given as a keyword is relative to the working directory.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..base.documents import as_path, read_toml
from ..base.errors import ConfigError
from ..base.prompt_schema import MAX_ID
from ..base.tables import Table, expanded

RUNTIMES = (
    "torch", "cpu", "cuda", "tensorrt", "auto",
    "onnx", "onnx:cuda", "onnx:tensorrt", "onnx:openvino", "onnx:coreml", "onnx:directml",
)  # fmt: skip
DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")
PRECISIONS = ("fp32", "bf16", "fp16", "int16", "int8", "fp8", "auto")
CONDITIONING = 4  # prompted frames that a bank keeps: the first, which says what the object is, and the latest three
POLICIES = ("fifo", "efp-window", "efp", "confident", "efp-confident", "anchor", "diverse", "distractor")
PRUNED = ("efp", "efp-confident")  # policies that keep `spatial` memories for good
SHIPPED = Path(__file__).parents[1] / "sam2" / "shipped"  # what `package:NAME` refers to
FILE_SUFFIXES = (".toml", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much an object remembers: `spatial` memories chosen by `policy`, and `pointers` of recent frames."""

    policy: str = "efp"
    spatial: int = 5
    pointers: int = 16

    def steady_slots(self, window: int) -> int:
        """Spatial memories that an object prompted once has in the long run; `window` as the network was trained."""
        return self.spatial if self.policy.startswith("efp") else window

    def most_slots(self, window: int) -> int:
        """Spatial memories that attention can ever see at once."""
        return max(self.spatial, CONDITIONING + 1) if self.policy in PRUNED else window - 1 + CONDITIONING

    def most_pointers(self) -> int:
        """Object pointers that attention can ever see at once."""
        return CONDITIONING + max(0, self.pointers - 1)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine recipe: which network, with which weights, run how.

    `model` is a preset or the path of a .toml preset; `weights` is "package:NAME", a path or a name;
    `image_size` is the side in pixels of the square that the network sees; `runtime` and `precision` "auto" are
    the fastest that `rtseg build` found here, or the best that needs no build; `device` is "auto", "cpu", "cuda" (the
    first GPU that this process sees) or "cuda:1"; `path` is the recipe's own file.
    """

    model: str = "nano"
    weights: str = "package:nano"
    image_size: int = 320
    runtime: str = "auto"
    precision: str = "auto"
    max_objects: int = 4
    memory: MemorySettings = MemorySettings()
    path: Path | None = None
    device: str = "auto"


def load_recipe(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Recipe:
    """Read a recipe file, or take one that is already read (None: the defaults), and override keys by keyword.

    `policy` stands for `memory.policy`. Raises `ConfigError`.
    """
    if not isinstance(recipe, Recipe):
        path = None if recipe is None else as_path(recipe)
        recipe = Recipe() if path is None else _recipe(read_toml(path), str(path), path)
    values = {key: value for key, value in asdict(recipe).items() if key != "path"}
    policy = {"policy": overrides.pop("policy")} if "policy" in overrides else {}
    for key, value in overrides.items():
        if isinstance(value, MemorySettings):
            value = asdict(value)
        values[key] = str(value) if isinstance(value, Path) else value
    if isinstance(values["memory"], dict):
        values["memory"] = values["memory"] | policy
    made = _recipe(values, f"{recipe.path or 'default recipe'} with keywords", Path())
    return replace(made, path=recipe.path)


def _recipe(values: dict[str, Any], where: str, path: Path) -> Recipe:
    table = Table(values, where, [f.name for f in fields(Recipe) if f.name != "path"], ConfigError)
    default = Recipe()
    size = table.integer("image_size", default.image_size, 64, 4096)
    if size % 32:
        raise table.bad("image_size", "a multiple of 32")
    memory = Table(values.get("memory", {}), f"{where}: memory", [f.name for f in fields(MemorySettings)], ConfigError)
    return Recipe(
        model=_name_or_path(table, "model", default.model, path.parent),
        weights=_name_or_path(table, "weights", default.weights, path.parent),
        image_size=size,
        runtime=table.choice("runtime", default.runtime, RUNTIMES),
        precision=table.choice("precision", default.precision, PRECISIONS),
        max_objects=table.integer("max_objects", default.max_objects, 1, MAX_ID),
        memory=MemorySettings(
            policy=memory.choice("policy", default.memory.policy, POLICIES),
            spatial=memory.integer("spatial", default.memory.spatial, 1, 64),
            pointers=memory.integer("pointers", default.memory.pointers, 0, 64),
        ),
        device=_device(table),
        path=path,
    )


def _device(table: Table) -> str:
    text = table.values.get("device", "auto")
    if not isinstance(text, str) or not DEVICE.fullmatch(text):  # mps, xpu: no runtime of ours works there
        raise table.bad("device", '"auto", "cpu", "cuda" or "cuda:N", N from 0 as torch counts the GPUs that it sees')
    return text


def _name_or_path(table: Table, key: str, default: str, folder: Path) -> str:
    """A name stays as it is; with a slash or a file's suffix it is a path."""
    text = table.text(key, default)
    if "://" in text:
        raise table.bad(key, "a name, or the path of a file on this machine")
    is_path = not text.startswith("package:") and ("/" in text or text.endswith(FILE_SUFFIXES))
    return str(folder / expanded(text, f"{table.where}: {key}", ConfigError)) if is_path else text
