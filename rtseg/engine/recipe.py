"""The engine recipe: which network runs, with which weights, and how.

The file is TOML; a missing key has the default given here. A mistake raises `ConfigError`, one line that names the
file, the key, the value found and the value expected. A relative path is relative to the file that holds it; a path
given as a keyword is relative to the working directory.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from ..base.documents import as_path, expanded, is_file, read_toml
from ..base.errors import ConfigError, did_you_mean, short
from ..base.prompt_schema import MAX_ID
from ..base.schema import ImageSize, Text, convert, convert_value, one_of
from ..sam2 import get_preset
from .catalogue import find_entry, read_table
from .policy import MAX_CONDITIONING, POLICIES, BankSize, get_policy

RUNTIMES = (
    "torch", "cpu", "cuda", "tensorrt", "auto",
    "onnx", "onnx:cuda", "onnx:tensorrt", "onnx:openvino", "onnx:coreml", "onnx:directml",
)  # fmt: skip
DEVICE = r"\A(auto|cpu|cuda(:(0|[1-9]\d?))?)\Z"  # not mps or xpu: none of our runtimes works there
DEVICES = '"auto", "cpu", "cuda" or "cuda:N", N from 0 as torch counts the GPUs that it sees'
PRECISIONS = ("fp32", "bf16", "fp16", "int16", "int8", "fp8", "auto")
SHIPPED = Path(__file__).parents[1] / "sam2" / "shipped"  # what `package:NAME` refers to
FILE_SUFFIXES = (".toml", ".pt", ".pth", ".safetensors")

log = logging.getLogger("rtseg.engine")
_warned: set[str] = set()  # lines that this process has logged: each is logged once


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much an object remembers.

    `policy` names a memory policy. `spatial` is how many spatial memories the EFP policies keep of the `window` that
    the network was trained with; other policies ignore it. `pointers` is the number of object pointers of recent
    frames, of which one is a conditioning memory's: 0 and 1 are the same.
    """

    policy: str = "efp"
    spatial: Annotated[int, Meta(ge=1, le=64)] = 5
    pointers: Annotated[int, Meta(ge=0, le=64)] = 16

    def full_bank(self, window: int) -> int:
        """How many spatial memories an object prompted once attends to in the long run."""
        return get_policy(self.policy).full_bank(BankSize(window, self.spatial))

    def most_slots(self, window: int) -> int:
        """The most spatial memories that attention ever reads at once."""
        return get_policy(self.policy).most(BankSize(window, self.spatial))

    def most_pointers(self) -> int:
        """The most object pointers that attention ever reads at once."""
        return MAX_CONDITIONING + max(0, self.pointers - 1)

    def warning(self, window: int) -> str:
        """A line for settings with which the policy acts like another one; "" for all other settings."""
        text = get_policy(self.policy).warning(BankSize(window, self.spatial))
        settings = f"policy = {self.policy!r} with spatial = {self.spatial} and a window of {window} memories"
        return f"memory: {settings}: {text}" if text else ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine recipe: which network runs, with which weights, and how.

    `model` is a preset or the path of a .toml preset; `weights` is "package:NAME", a path or the name of published
    weights; `image_size` is
    the side in pixels of the square that the network sees; "auto" as `runtime` or `precision` is the fastest that
    `rtseg build` found here, or else the best that needs no build; `device` is "auto", "cpu", "cuda" (the first GPU
    that this process sees) or "cuda:1"; `adapter` is the path of an adapter that was trained on these weights; `path`
    is the recipe's own file.
    """

    model: Text = "nano"
    weights: Text = "package:nano"
    image_size: ImageSize = 320
    runtime: Annotated[str, one_of(RUNTIMES)] = "auto"
    precision: Annotated[str, one_of(PRECISIONS)] = "auto"
    max_objects: Annotated[int, Meta(ge=1, le=MAX_ID)] = 4
    memory: MemorySettings = MemorySettings()
    path: Path | None = None
    device: Annotated[str, Meta(pattern=DEVICE, description=DEVICES)] = "auto"
    adapter: Text | None = None


def load_recipe(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Recipe:
    """Read a recipe file, or take a recipe that was read (None: the defaults), and override its keys by keyword.

    The name of published weights, such as "edgetam", is a recipe too: these weights as they were published.
    `policy` stands for `memory.policy`. Raises `ConfigError` for a mistake. Settings with which the memory policy acts
    like another one give a warning in the log.
    """
    if not isinstance(recipe, Recipe):
        path = None if recipe is None else as_path(recipe)
        if path is None:
            recipe = Recipe()
        elif is_published(path):
            recipe = _published(str(path))
        else:
            recipe = _recipe(read_toml(path), str(path), path.parent, path)
    values = {key: value for key, value in asdict(recipe).items() if key != "path"}
    policy = {"policy": overrides.pop("policy")} if "policy" in overrides else {}
    for key, value in overrides.items():
        values[key] = asdict(value) if isinstance(value, MemorySettings) else value
    if isinstance(values["memory"], dict):
        values["memory"] = values["memory"] | policy
    made = _recipe(values, f"{recipe.path or 'default recipe'} with keywords", Path(), recipe.path)
    with suppress(ConfigError):  # a missing preset is reported when the engine is opened
        warn_once(made.memory, get_preset(made.model).num_maskmem, recipe.path or "recipe")
    return made


def is_published(name: str | Path, where: str = "engine") -> bool:
    """Whether this names published weights, and no file. Raises `ConfigError` for a name that is neither.

    `where` opens the error line: the file, and the key in it.
    """
    text = str(name)
    if "/" in text or text.endswith(FILE_SUFFIXES) or not text.strip() or is_file(Path(text)):
        return False
    entries = read_table().entries
    if text not in entries:
        near = did_you_mean(text, entries)
        raise ConfigError(
            f"{where} = {short(text)}: no such recipe file, and no published weights of this name; {near}"
        )
    return True


def _published(name: str) -> Recipe:
    entry = find_entry(name)
    values = {"model": entry.preset, "weights": name, "image_size": entry.image_size, "memory": entry.memory}
    return _recipe(values, name, Path(), None)


def warn_once(settings: MemorySettings, window: int, where: object) -> None:
    """Log a warning, once in this process, if the policy acts like another one. `where` starts the line."""
    line = settings.warning(window)
    if line and (line := f"rtseg: {where}: {line}") not in _warned:
        _warned.add(line)
        log.warning("%s", line)


def _recipe(values: dict[str, Any], where: str, folder: Path, path: Path | None) -> Recipe:
    """A recipe from a dict; relative paths in it are relative to `folder`, and `path` is its own file."""
    recipe = convert(values, Recipe, where, internal=("path",))
    # Checked here and not by the type, because a policy may be registered at any time.
    convert_value(recipe.memory.policy, Annotated[str, one_of(POLICIES)], f"{where}: memory: policy")
    model, weights = (_name_or_path(getattr(recipe, key), f"{where}: {key}", folder) for key in ("model", "weights"))
    adapter = recipe.adapter and str(folder / expanded(recipe.adapter, f"{where}: adapter", ConfigError))
    return replace(recipe, model=model, weights=weights, adapter=adapter, path=path)


def _name_or_path(text: str, where: str, folder: Path) -> str:
    """A name as it is; a text with a slash or a file's suffix as a path, relative to `folder`."""
    if "://" in text:
        raise ConfigError(f"{where} = {short(text)}; expected a name, or the path of a file on this machine")
    is_path = not text.startswith("package:") and ("/" in text or text.endswith(FILE_SUFFIXES))
    return str(folder / expanded(text, where, ConfigError)) if is_path else text
