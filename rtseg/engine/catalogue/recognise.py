"""What network a file of weights is of: its tensors against those of every preset, and its hash against the table.

The networks are made without memory (on torch's meta device), and reading the file executes nothing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ...base.documents import is_file
from ...base.errors import WeightsError
from ...base.files import file_sha256
from ...sam2 import PRESETS, Preset, Sam2
from ...sam2.weights import read_state
from .table import read_table

SIZE = 1024  # px at which every network can be made; its tensors are the same at all sizes
MAX_HEADER = 1 << 26  # bytes of the header of a safetensors file

Shapes = dict[str, tuple[int, ...]]
# Files that people have instead of weights, by how they begin.
OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the file; git lfs pull fetches the file itself"),
    (b"<!doctype html", "a web page; fetch the file itself"),
    (b"<html", "a web page; fetch the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file of weights. `presets`: all whose network it fits; `name`: of the published weights that it is, or ""."""

    path: Path
    sha256: str
    name: str
    presets: tuple[str, ...]
    tensors: int
    parameters: int


@dataclass(frozen=True, slots=True)
class _Fit:
    """How tensors fit a preset: how many of its own do, and in words the first that does not, or ""."""

    preset: str
    fitting: int
    of: int
    first: str


def recognise(path: Path) -> Recognised:
    """Find out what network a file is of. Raises `WeightsError` in one line that says what the file seems to be."""
    _refuse_others(path)
    state = read_state(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    presets = presets_of(shapes, path)
    _check_finite(path, presets[0], state)
    sha256 = file_sha256(path)
    known = [entry.name for entry in read_table().entries.values() if entry.sha256 == sha256]
    count = sum(tensor.numel() for tensor in state.values())
    return Recognised(path, sha256, known[0] if known else "", presets, len(state), count)


def presets_of(shapes: Shapes, path: Path) -> tuple[str, ...]:
    """All presets whose network has tensors of these names and shapes, which are those of the file `path`."""
    fits = [_fit(name, shapes) for name in PRESETS]
    presets = tuple(fit.preset for fit in fits if not fit.first)
    if not presets:
        raise WeightsError(f"{path}: {_nearest(fits, shapes)}")
    return presets


@cache
def _shapes(preset: Preset) -> Shapes:
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in Sam2(preset, SIZE).state_dict().items()}


def _fit(name: str, shapes: Shapes) -> _Fit:
    own = _shapes(PRESETS[name])
    fitting = sum(shapes.get(key) == shape for key, shape in own.items())
    missing, extra = sorted(own.keys() - shapes.keys()), sorted(shapes.keys() - own.keys())
    other = [key for key, shape in own.items() if key in shapes and shapes[key] != shape]
    first = ""
    if missing:
        first = f"{len(missing)} tensors are missing, such as {missing[0]}"
    elif extra:
        first = f"{len(extra)} tensors are too many, such as {extra[0]}"
    elif other:
        key = other[0]
        first = f"{key} and {len(other) - 1} more have other shapes: {list(shapes[key])}, expected {list(own[key])}"
    return _Fit(name, fitting, len(own), first)


def _nearest(fits: list[_Fit], shapes: Shapes) -> str:
    """What tensors that fit no preset seem to be."""
    best = max(fits, key=lambda fit: 2 * fit.fitting / (fit.of + len(shapes)))
    if best.fitting < best.of // 4:
        first = next(iter(shapes), "none")
        return f"weights of no network that rtseg has: {len(shapes)} tensors, such as {first}"
    return f"most like {best.preset}, with {best.fitting} of its {best.of} tensors; {best.first}"


def _check_finite(path: Path, preset: str, state: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in state.items() if not (tensor.is_floating_point() and tensor.isfinite().all())]
    if wrong:
        raise WeightsError(
            f"{path}: the network is {preset}, but {len(wrong)} tensors hold something else than finite numbers, such"
            f" as {wrong[0]}; the file is damaged"
        )


def _refuse_others(path: Path) -> None:
    """Raise `WeightsError` for a file that its first bytes or its size show to be no whole file of weights."""
    if not is_file(path):
        raise WeightsError(f"{path}: no such file; expected weights as .pt or .safetensors")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as e:
        raise WeightsError(f"{path}: cannot be read ({e.strerror}); expected weights as .pt or .safetensors") from e
    size = path.stat().st_size
    if not start.strip(b"\0"):
        raise WeightsError(f"{path}: {'empty' if not size else 'begins with zeros'}; expected weights")
    for begin, what in OTHERS:
        if start.lstrip().lower().startswith(begin):
            raise WeightsError(f"{path}: {what}")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"{path}: half a file: it begins as torch's files do, and its end is missing ({size} bytes)")
    if path.suffix == ".safetensors" and (whole := _whole_size(path)) > size:
        raise WeightsError(f"{path}: half a file: {size} of at least {whole} bytes")


def _whole_size(path: Path) -> int:
    """The size that the header of a safetensors file says; the header's own if it is cut; 0 if it is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, MAX_HEADER))
    if len(header) < length:
        return 8 + length if header.startswith(b"{") else 0
    try:
        spans = [table["data_offsets"] for key, table in json.loads(header).items() if key != "__metadata__"]
        return 8 + length + max((end for _, end in spans), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0
