"""Where the graphs of a network lie: in the package, or in a cache; and what they were made of.

    rtseg/sam2/shipped/onnx/micro-224/          shipped
    ~/.cache/rtseg/onnx/micro-256-1a2b3c4d/  made at the first opening; $RTSEG_CACHE or $XDG_CACHE_HOME say where else
        graphs.json                        what it was made of, and the hash of every file; written last
        encode.onnx ...                    one graph a verb
        weights.bin                        the constants of them all

A folder is used only where everything is what it was. Of what is shipped, the format and the hashes say so; of what is
cached, the hash of our own sources too.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from ...base.errors import EngineError
from ...base.files import file_sha256, install_folder
from ...sam2 import Preset
from ..recipe import SHIPPED

FORMAT = 1  # of the graphs' ports and files: another number, and none made before is used
SIDECAR, WEIGHTS = "graphs.json", "weights.bin"


@dataclass(frozen=True, slots=True)
class Identity:
    """What graphs are made of; they are used for nothing else."""

    format: int
    network: str  # hash of the preset
    image_size: int
    weights: str  # hash of the file

    @staticmethod
    def for_network(preset: Preset, image_size: int, weights_hash: str) -> Identity:
        return Identity(FORMAT, hashlib.sha256(repr(preset).encode()).hexdigest(), image_size, weights_hash)


def shipped_folder(name: str, image_size: int) -> Path:
    """Where the package holds the graphs of its own weights, if it has them at this size."""
    return SHIPPED / "onnx" / f"{name}-{image_size}"


def cached_folder(root: Path, preset: Preset, expected: Identity) -> Path:
    """Where a cache holds such graphs; other sources of ours have another folder."""
    key = hashlib.sha256(f"{sorted(asdict(expected).items())} {sources_hash()}".encode()).hexdigest()
    return root / "onnx" / f"{preset.name}-{expected.image_size}-{key[:12]}"


def cache_root() -> Path:
    """The user's cache."""
    if given := os.environ.get("RTSEG_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtseg"


@cache
def sources_hash() -> str:
    """The hash of the sources that say what the graphs are."""
    package, digest = Path(__file__).parents[2], hashlib.sha256()
    folders = ("sam2", "engine/static", "engine/onnx")
    for path in sorted(p for folder in folders for p in (package / folder).glob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def write_sidecar(folder: Path, identity: Identity) -> None:
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != SIDECAR}
    (folder / SIDECAR).write_text(json.dumps({**asdict(identity), "files": files}, indent=2) + "\n", "utf-8")


def check(folder: Path, expected: Identity) -> None:
    """`EngineError` that names the first thing that is not as expected."""
    path = folder / SIDECAR
    try:
        found = json.loads(path.read_text("utf-8"))
        files = dict(found["files"])
    except OSError as e:
        raise EngineError(f"{path}: cannot be read ({e.strerror}); expected graphs and what they were made of") from e
    except (ValueError, KeyError, TypeError) as e:
        raise EngineError(f"{path}: truncated or edited; expected what the graphs were made of") from e
    for key, value in asdict(expected).items():
        if found.get(key) != value:
            raise EngineError(f"{folder}: made with {key} = {_short(found.get(key))}; expected {_short(value)}")
    for name, digest in files.items():
        try:
            actual = file_sha256(folder / name)
        except OSError as e:
            raise EngineError(f"{folder / name}: cannot be read ({e.strerror}); expected a graph") from e
        if actual != digest:
            raise EngineError(f"{folder / name}: damaged: sha256 {_short(actual)}; expected {_short(digest)}")


def install(part: Path, final: Path) -> Path:
    """Put a complete folder in its place, instead of a damaged one; who comes second takes the first one's."""
    if final.is_dir() and not _sound(final):
        install_folder(part, final)
        return final
    try:
        part.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final


def _sound(folder: Path) -> bool:
    try:
        found = json.loads((folder / SIDECAR).read_text("utf-8"))
        return all(file_sha256(folder / name) == digest for name, digest in found["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
