"""The folders of a network's graphs, in the package or in a cache, and a record of what the graphs were made from.

    rtseg/sam2/shipped/onnx/micro-224/          shipped
    ~/.cache/rtseg/onnx/micro-256-1a2b3c4d/  made on first use; $RTSEG_CACHE or $XDG_CACHE_HOME change the place
        graphs.json                        what they were made from, and the hash of every file; written last
        encode.onnx ...                    one graph for each verb
        weights.bin                        the constants of all graphs

A folder is used only if it matches the network and is undamaged. For shipped graphs the format and the hashes of
preset, weights and files are compared; for cached graphs also the hash of the sources that define them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from ...base.errors import EngineError
from ...base.files import file_sha256, install_folder
from ...sam2 import Preset
from ..recipe import SHIPPED

FORMAT = 1  # of the graphs' ports and files; graphs with another number are not used
SIDECAR, WEIGHTS = "graphs.json", "weights.bin"


@dataclass(frozen=True, slots=True)
class Identity:
    """What graphs were made from; they are used only for an equal identity."""

    format: int
    network: str  # hash of the preset
    image_size: int
    weights: str  # hash of the file

    @staticmethod
    def for_network(preset: Preset, image_size: int, weights_hash: str) -> Identity:
        return Identity(FORMAT, preset.fingerprint, image_size, weights_hash)


def shipped_folder(name: str, image_size: int) -> Path:
    """The package's folder for graphs of its own weights; it may not exist at this size."""
    return SHIPPED / "onnx" / f"{name}-{image_size}"


def cached_folder(root: Path, preset: Preset, expected: Identity) -> Path:
    """The cache folder of such graphs; other versions of rtseg's sources use another folder."""
    key = hashlib.sha256(f"{sorted(asdict(expected).items())} {sources_hash()}".encode()).hexdigest()
    return root / "onnx" / f"{preset.name}-{expected.image_size}-{key[:12]}"


@cache
def sources_hash() -> str:
    """The hash of the sources that define the graphs."""
    package, digest = Path(__file__).parents[2], hashlib.sha256()
    folders = ("sam2", "engine/static", "engine/onnx")
    for path in sorted(p for folder in folders for p in (package / folder).glob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def write_sidecar(folder: Path, identity: Identity) -> None:
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != SIDECAR}
    (folder / SIDECAR).write_text(json.dumps({**asdict(identity), "files": files}, indent=2) + "\n", "utf-8")


def check(folder: Path, expected: Identity) -> None:
    """Raise `EngineError` that names the first difference from `expected`, or the first damaged file."""
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
    """Rename a complete folder to `final`, replacing a damaged one. If another process was first, use its folder."""
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
