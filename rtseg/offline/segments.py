"""The work of a run in segments: after each, everything so far is on the disk, with all that later frames depend on.

So a run that is killed goes on from its latest segment, with the same results. While a run works, `manifest.json` says
which segments are done; it is replaced in one step, after their files are on the disk. In a finished result it says
what the result was made from, and has the hashes of its files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..base.errors import OutputError
from ..base.files import atomic_path, file_sha256
from ..base.state import State, read_state

SEGMENT = 250  # frames; x264 begins a new group of pictures there anyway
FILE = "manifest.json"
WORK = ".segments"  # the folder, in that of the result, with what a run needs to go on
HEAD = 1 << 20  # bytes of a source whose hash tells it from another one


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment that is done: its frames, its part of the overlay, and the hash of its masks and pictures."""

    first: int
    frames: int
    tick: int
    overlay_bytes: int
    overlay_sha256: str
    files_sha256: str

    def part(self, folder: Path) -> Path:
        """Its part of the overlay."""
        return part_of(folder, self.first)


@dataclass(slots=True)
class Manifest:
    """What a run has done so far.

    Attributes:
        made_from: what the result depends on; see identity.py.
        engine: what made the masks, with the libraries that it used.
        segments: those that are done.
        coco: the state of masks.json.
        results: the state of the other files.
        state: the name of the file with the state after the last segment.
        resumed: the frames from which runs went on.
    """

    made_from: dict[str, Any]
    engine: str
    segments: list[Segment] = field(default_factory=list)
    coco: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    state: str = ""
    resumed: list[int] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many frames are done."""
        return sum(one.frames for one in self.segments)

    def write(self, folder: Path) -> None:
        """Replace the manifest in a folder, once it is on the disk. Raises `OutputError` if that fails."""
        write_document(folder / FILE, {"complete": False, "frames": self.frames, **asdict(self)})

    def state_in(self, folder: Path) -> State:
        """The state after the last segment. Raises `OutputError` if it cannot be read."""
        return read_state(folder / WORK / self.state)

    def damaged(self, folder: Path) -> str:
        """What of the files in a folder is not as it was when a segment was done; "" if all is."""
        try:
            for name, key in (("masks.json", "main"), (".masks.json.images", "rows")):
                if _hash_of_head(folder / name, self.coco[key]["bytes"]) != self.coco[key]["sha256"]:
                    return f"{name} has changed"
            rows = (folder / ".masks.json.images").read_bytes()[: self.coco["rows"]["bytes"]]
            images = json.loads(b"[" + rows + b"]")
            for one in self.segments:
                part, own = one.part(folder), images[one.first : one.first + one.frames]
                if file_sha256(part) != one.overlay_sha256:
                    return f"{part.name} has changed"
                if synced(_files_of(folder, own)) != one.files_sha256:
                    return f"masks of frames {one.first} to {one.first + one.frames - 1} have changed"
        except (OSError, OutputError, ValueError, KeyError) as e:
            return f"a file is missing: {e}"
        return ""


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an unfinished run; None if there is none that can be read, or the run is finished."""
    document = read_document(folder)
    try:
        if document is None or document.get("complete") is not False:
            return None
        segments = [Segment(**one) for one in document["segments"]]
        names = ("made_from", "engine", "coco", "results", "state", "resumed")
        given = {name: document[name] for name in names}
        return Manifest(**{**given, "segments": segments})
    except (KeyError, TypeError):
        return None


def read_document(folder: Path) -> dict[str, Any] | None:
    """`manifest.json` of a folder; None if there is none that can be read."""
    try:
        document = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write JSON: all of it or nothing. Raises `OutputError` if that fails."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(document, indent=1, default=str) + "\n", "utf-8")


def part_of(folder: Path, first: int) -> Path:
    """The part of the overlay that begins with this frame."""
    return folder / WORK / f"{first:08d}.mp4"


def synced(files: Iterable[Path]) -> str:
    """Wait until files are on the disk; returns the SHA-256 of their contents, one after another.

    Raises `OutputError` if one cannot be read.
    """
    digest = sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(file.read())
                os.fsync(file.fileno())
        except OSError as e:
            raise OutputError(f"{path}: cannot be read again ({e.strerror}); check the disk") from e
    return digest.hexdigest()


def _files_of(folder: Path, images: Sequence[dict[str, Any]]) -> Iterator[Path]:
    """The files of some frames, by their images in masks.json: of each its mask, and its picture if there is one."""
    has_pictures = (folder / "frames").is_dir()
    for image in images:
        yield folder / image["mask_file"]
        if has_pictures:
            yield folder / "frames" / image["file_name"]


def _hash_of_head(path: Path, size: int) -> str:
    """The SHA-256 of the first `size` bytes of a file."""
    digest, left = sha256(), size
    with path.open("rb") as file:
        while left and (block := file.read(min(HEAD, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def finished(manifest: Manifest, folder: Path, gaps: Sequence[dict[str, Any]], complete: bool) -> None:
    """Write the manifest of a finished result: the hashes of its files. Raises `OutputError` if that fails."""
    segments = [
        {"first": one.first, "frames": one.frames, "files_sha256": one.files_sha256} for one in manifest.segments
    ]
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in ("overlay.mp4", "masks.json", "run.json")
        if (folder / name).is_file()
    }
    document = {
        "complete": complete, "frames": manifest.frames, "made_from": manifest.made_from, "engine": manifest.engine,
        "resumed": manifest.resumed, "gaps": list(gaps), "files": files, "segments": segments,
    }  # fmt: skip
    write_document(folder / FILE, document)
