"""The state of a work that is interrupted and goes on later, possibly in another process: plain values and arrays.

A file holds one state, in numpy's NPZ format: the plain values as JSON, the arrays as they are, each with its checksum.
Nothing in it is code, so reading one runs none.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import OutputError
from .files import atomic_path

_PLAIN = "plain.json"


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """`plain`: what JSON can hold, exactly. `arrays`: by name. Neither may be changed once it is here."""

    plain: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def under(self, name: str) -> State:
        """The state that `joined` has put under a name."""
        start = f"{name}/"
        arrays = {key.removeprefix(start): x for key, x in self.arrays.items() if key.startswith(start)}
        return State(self.plain[name], arrays)

    @staticmethod
    def joined(parts: dict[str, State]) -> State:
        """Several states as one."""
        arrays = {f"{name}/{key}": x for name, part in parts.items() for key, x in part.arrays.items()}
        return State({name: part.plain for name, part in parts.items()}, arrays)


def write_state(path: Path, state: State) -> None:
    """Write a state; `path` has it once all of it is on the disk. Raises `OutputError` if it cannot be written."""
    arrays: dict[str, Any] = {_PLAIN: _bytes_of(state.plain), **{f"a/{name}": x for name, x in state.arrays.items()}}
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def read_state(path: Path) -> State:
    """Read what `write_state` wrote. Raises `OutputError` for a file that is missing, damaged, or something else."""
    try:
        with np.load(path, allow_pickle=False) as found:
            plain = json.loads(found[_PLAIN].tobytes())
            arrays = {name.removeprefix("a/"): found[name] for name in found.files if name != _PLAIN}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        why = getattr(e, "strerror", None) or " ".join(str(e).split())[:80] or type(e).__name__
        raise OutputError(f"{path}: is no checkpoint that can be read ({why}); begin again with --force") from e
    return State(plain, arrays)


def _bytes_of(plain: dict[str, Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(plain, allow_nan=False).encode(), np.uint8)
