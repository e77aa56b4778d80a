"""The two files that a user edits, as values: an engine recipe and a stream profile.

Both are TOML; a key that is left out has the default that stands here. A mistake is a `ConfigError` in one line
that names the file, the key, what was found and what was expected. A relative path is relative to the file that
holds it; a path given as a keyword is relative to the working directory.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from .bind import bind_mistake
from .documents import as_path, is_there, read_toml
from .door import MAX_ID, MAX_SIDE
from .errors import ConfigError
from .prompts import FILE_KEYS, read_prompt
from .tables import Table, expanded, listed, short, whole
from .types import Prompt

RUNTIMES = (
    "torch", "cpu", "cuda", "tensorrt", "auto",
    "onnx", "onnx:cuda", "onnx:tensorrt", "onnx:openvino", "onnx:coreml", "onnx:directml",
)  # fmt: skip
DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")
PRECISIONS = ("fp32", "bf16", "fp16", "int16", "int8", "fp8", "auto")
CONDITIONING = 4  # prompted frames that a bank keeps: the first, which says what the object is, and the latest three
POLICIES = ("fifo", "efp-window", "efp", "confident", "efp-confident", "anchor", "diverse", "distractor")
PRUNED = ("efp", "efp-confident")  # policies that keep `spatial` memories for good
OVERLAYS = ("latest", "sync")
PACES = ("native", "flat-out")
DEINTERLACES = ("off", "auto", "on")
CARRIES = ("off", "flow", "behind")
Topic = Literal["video", "overlay", "masks", "status"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
OPACITY = 0.28  # of a mask's tint
MASK_BUDGET_MS = 120.0  # what a clinically used system (GI Genius) allows its annotations
SHIPPED = Path(__file__).with_name("weights")  # what `package:NAME` refers to
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")
STREAM_KEYS = (
    "source", "pace", "deinterlace", "crop", "engine", "target_fps", "overlay", "carry", "opacity", "mask_budget_ms",
    "least_image_size", "publish", "control", "metrics", "record", "security", "object",
)  # fmt: skip
FILE_SUFFIXES = (".toml", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
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
    memory: MemoryPlan = MemoryPlan()
    path: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Publish:
    """Where a stream is published, and which of its topics."""

    bind: str = "tcp://127.0.0.1:5555"
    topics: tuple[Topic, ...] = TOPICS


@dataclass(frozen=True, slots=True)
class StreamProfile:
    """One feed: where its frames come from, the engine, what to track from the first frame, and who gets it.

    `name` is the file's own name and opens every topic; `target_fps` is in frames per second; a mask older than
    `mask_budget_ms` is drawn as an outline, and not at all when it is twice as old; `carry` "flow" moves it along with
    the picture, "behind" does so while the network is too slow for the budget: then the network may also see a smaller
    picture, down to `least_image_size` (None: no smaller one). `crop` is "off", "auto" or a box x0, y0, x1, y1.
    `control` and `metrics` are addresses, `record` the folder of recordings, `keys` that of the CURVE keys; None: there
    is none.
    """

    source: str
    name: str = "stream"
    engine: Recipe = Recipe()
    pace: str = "native"
    deinterlace: str = "auto"
    crop: str | tuple[int, int, int, int] = "off"
    target_fps: float = 25.0
    overlay: str = "latest"
    carry: str = "off"
    least_image_size: int | None = None
    opacity: float = OPACITY
    mask_budget_ms: float = MASK_BUDGET_MS
    publish: Publish = Publish()
    control: str | None = None
    metrics: str | None = None
    record: Path | None = None
    keys: Path | None = None
    objects: tuple[Prompt, ...] = ()
    path: Path | None = None


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
        if isinstance(value, MemoryPlan):
            value = asdict(value)
        values[key] = str(value) if isinstance(value, Path) else value
    if isinstance(values["memory"], dict):
        values["memory"] = values["memory"] | policy
    made = _recipe(values, f"{recipe.path or 'default recipe'} with keywords", Path())
    return replace(made, path=recipe.path)


def load_stream(path: str | Path) -> StreamProfile:
    """Read a stream profile and the engine recipe that it names. Raises `ConfigError`."""
    path = as_path(path)
    folder = path.parent
    table = Table(read_toml(path), str(path), STREAM_KEYS, ConfigError)
    engine = load_recipe(table.path("engine", folder)) if "engine" in table else Recipe()
    keys = _folder(table, "security", "keys", folder)
    control = _bind(_table(table, "control", ("bind",)), None, keys) if "control" in table else None
    publish = _publish(_table(table, "publish", [f.name for f in fields(Publish)]), keys)
    if control == publish.bind and not control.endswith((":0", ":*")):
        raise ConfigError(f"{table.where}: control: bind = {control!r} is that of publish; expected another address")
    objects = _objects(table, folder)
    if len(objects) > engine.max_objects:
        most = f"the engine's recipe says max_objects = {engine.max_objects}"
        raise ConfigError(f"{table.where}: {len(objects)} objects; {most}; raise it, or leave some out")
    return StreamProfile(
        source=_source(table, folder),
        name=re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem),
        pace=table.choice("pace", "native", PACES),
        deinterlace=table.choice("deinterlace", "auto", DEINTERLACES),
        crop=_crop(table),
        engine=engine,
        target_fps=table.number("target_fps", 25.0, 0.1, 1000.0),
        overlay=table.choice("overlay", "latest", OVERLAYS),
        carry=table.choice("carry", "off", CARRIES),
        least_image_size=_least(table, engine.image_size),
        opacity=table.number("opacity", OPACITY, 0.0, 1.0),
        mask_budget_ms=table.number("mask_budget_ms", MASK_BUDGET_MS, 1.0, 10_000.0),
        publish=publish,
        control=control,
        metrics=_table(table, "metrics", ("bind",)).text("bind") if "metrics" in table else None,
        record=_folder(table, "record", "folder", folder),
        keys=keys,
        objects=objects,
        path=path,
    )


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_flags() -> list[str]:
    """The instruction sets of this CPU that matter here, as Linux names them; empty where it does not say."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text("utf-8", "replace").split()) if info.is_file() else set()
    return [flag for flag in CPU_FLAGS if flag in words]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recipe(values: dict[str, Any], where: str, path: Path) -> Recipe:
    table = Table(values, where, [f.name for f in fields(Recipe) if f.name != "path"], ConfigError)
    default = Recipe()
    size = table.integer("image_size", default.image_size, 64, 4096)
    if size % 32:
        raise table.bad("image_size", "a multiple of 32")
    memory = Table(values.get("memory", {}), f"{where}: memory", [f.name for f in fields(MemoryPlan)], ConfigError)
    return Recipe(
        model=_name_or_path(table, "model", default.model, path.parent),
        weights=_name_or_path(table, "weights", default.weights, path.parent),
        image_size=size,
        runtime=table.choice("runtime", default.runtime, RUNTIMES),
        precision=table.choice("precision", default.precision, PRECISIONS),
        max_objects=table.integer("max_objects", default.max_objects, 1, MAX_ID),
        memory=MemoryPlan(
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


def _least(table: Table, image_size: int) -> int | None:
    if "least_image_size" not in table:
        return None
    least = table.integer("least_image_size", image_size, 64, image_size)
    if least % 32:
        raise table.bad("least_image_size", "a multiple of 32")
    return least


def _crop(table: Table) -> str | tuple[int, int, int, int]:
    value = table.values.get("crop", "off")
    if isinstance(value, str) and value in ("off", "auto"):
        return value
    sides = [whole(side) for side in listed(value) or ()]
    if len(sides) == 4:
        x0, y0, x1, y1 = (-1 if side is None else side for side in sides)
        if 0 <= x0 < x1 <= MAX_SIDE and 0 <= y0 < y1 <= MAX_SIDE:
            return x0, y0, x1, y1
    raise table.bad("crop", '"off", "auto" or a box [x0, y0, x1, y1] with x0 < x1 and y0 < y1')


def _table(table: Table, name: str, known: Iterable[str]) -> Table:
    """A table in a table; an empty one where there is none."""
    return Table(table.values.get(name, {}), f"{table.where}: {name}", known, ConfigError)


def _folder(table: Table, name: str, key: str, folder: Path) -> Path | None:
    """The folder that a table names by its one key; None without that table."""
    return _table(table, name, (key,)).path(key, folder) if name in table else None


def _bind(table: Table, default: str | None, keys: Path | None) -> str:
    bind = table.text("bind", default)
    mistake = bind_mistake(bind, keys is not None)
    if mistake is not None:
        raise ConfigError(f"{table.where}: bind = {short(bind)}; {mistake}")
    return bind


def _publish(table: Table, keys: Path | None) -> Publish:
    topics = cast("tuple[Topic, ...]", table.names("topics", TOPICS, TOPICS))
    return Publish(_bind(table, Publish().bind, keys), topics)


def _objects(table: Table, folder: Path) -> tuple[Prompt, ...]:
    entries = table.values.get("object", [])
    if not isinstance(entries, list) or len(entries) > MAX_ID:
        raise table.bad("object", "tables headed [[object]]")
    prompts = [
        read_prompt(Table(entry, f"{table.where}: object {number}", FILE_KEYS, ConfigError), folder)
        for number, entry in enumerate(entries, 1)
    ]
    ids = [prompt.id for prompt in prompts]
    for number, object_id in enumerate(ids, 1):
        if object_id in ids[: number - 1]:
            raise ConfigError(f"{table.where}: object {number}: id = {object_id} is taken; expected one table per id")
    return tuple(prompts)


def _source(table: Table, folder: Path) -> str:
    """What is there as a file is a file, whatever its name; a URI stays as it is (`rtsp://...`, `synthetic:...`)."""
    text = table.text("source")
    if is_there(folder / text):
        return str(folder / text)
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) else str(table.path("source", folder))


def _name_or_path(table: Table, key: str, default: str, folder: Path) -> str:
    """A name stays as it is; with a slash or a file's suffix it is a path."""
    text = table.text(key, default)
    if "://" in text:
        raise table.bad(key, "a name, or the path of a file on this machine")
    is_path = not text.startswith("package:") and ("/" in text or text.endswith(FILE_SUFFIXES))
    return str(folder / expanded(text, f"{table.where}: {key}", ConfigError)) if is_path else text
