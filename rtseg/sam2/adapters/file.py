"""The file of an adapter: fp16 safetensors, the names of its methods, and the hash of the weights it was trained on.

Reading executes nothing and guesses nothing: an adapter of other weights is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...base.errors import ConfigError, OutputError, WeightsError, did_you_mean
from ..presets import Preset
from .base import Adapters
from .registry import ADAPTERS

VERSION = "1"
KIND = "rtseg_adapter"  # the key of the metadata that says what the file is


@dataclass(frozen=True, slots=True, eq=False)
class AdapterFile:
    """What a file holds: the methods, the preset, the SHA-256 of the base weights, and the tensors."""

    methods: tuple[str, ...]
    preset: str
    base_sha256: str
    state: dict[str, Tensor]


def adapters_of(methods: Sequence[str], preset: Preset) -> Adapters:
    """New adapters of these methods. Raises `ConfigError` for an unknown one, and one that the preset cannot have."""
    made = []
    for name in methods:
        if name not in ADAPTERS:
            raise ConfigError(f"method = {name!r}: no such adapter; {did_you_mean(name, ADAPTERS)}")
        if preset.perceiver and name in ("bottleneck", "depthwise-3d", "temporal"):
            raise ConfigError(f"method = {name!r}: memories of {preset.name} are latents, and no maps; choose another")
        made.append(ADAPTERS[name](preset))
    return Adapters(made)


def write_adapter(
    adapters: Adapters, methods: Sequence[str], path: Path, base_sha256: str, made_by: dict[str, str] | None = None
) -> None:
    """Write the file; no partial file is left. Raises `OutputError` if it cannot be written."""
    from safetensors.torch import save

    state = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in adapters.state_dict().items()}
    preset = adapters.each()[0].preset.name
    metadata = {KIND: VERSION, "methods": ",".join(methods), "preset": preset, "base_sha256": base_sha256}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save(state, metadata | (made_by or {})))
        partial.replace(path)
    except OSError as e:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({e.strerror}); expected a folder with room for it") from e


def read_adapter(path: Path) -> AdapterFile:
    """Read a file. Raises `WeightsError` if it is no adapter, damaged, or of a later version."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected an adapter, as rtseg train writes it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError, ValueError) as e:
        raise WeightsError(f"{path}: not a readable safetensors file; expected an adapter") from e
    if metadata.get(KIND) != VERSION:
        found = f"version {metadata[KIND]}" if KIND in metadata else "weights, and no adapter"
        raise WeightsError(f"{path}: holds {found}; expected an adapter of version {VERSION}")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise WeightsError(f"{path}: holds something else than finite numbers; the file is damaged")
    methods = tuple(metadata.get("methods", "").split(","))
    return AdapterFile(methods, metadata.get("preset", ""), metadata.get("base_sha256", ""), state)


def load_adapter(path: Path, preset: Preset, base_sha256: str) -> Adapters:
    """The adapters of a file, for a network of these weights. Raises `WeightsError` if it is for others."""
    file = read_adapter(path)
    if file.preset != preset.name or file.base_sha256 != base_sha256:
        raise WeightsError(
            f"{path}: an adapter of {file.preset} with weights {file.base_sha256[:12]}; expected one of "
            f"{preset.name} with {base_sha256[:12]}: is `weights` in the recipe what it was trained on?"
        )
    adapters = adapters_of(file.methods, preset)
    try:
        adapters.load_state_dict(file.state)
    except RuntimeError as e:
        raise WeightsError(f"{path}: its tensors do not fit {', '.join(file.methods)}; the file is damaged") from e
    return adapters.eval().requires_grad_(False)
