"""Files that are there whole, or not at all: written under another name in the same folder, then renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np

from .errors import OutputError
from .types import ImageU8


def unwritable(final: Path, error: Exception) -> OutputError:
    """The one line that a user gets for any failure to write `final`."""
    why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return OutputError(f"{final}: cannot be written ({why}); expected a folder with room that you may write to")


def part_of(final: Path) -> Path:
    """A hidden name of its own in the same folder, so that the rename neither copies nor collides."""
    return final.with_name(f".{final.name}.{uuid4().hex[:8]}.part")


def commit(part: Path, final: Path) -> None:
    """Put the finished part under its final name, once its bytes are on the disk; `OSError` if it cannot be."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(final)


def discard(part: Path) -> None:
    """Remove a part, if it is there."""
    with suppress(OSError):
        part.unlink()


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A path to write to, which becomes `final` on a clean exit and is removed on any other.

    An `OSError` inside becomes an `OutputError` about `final`: do nothing there but write.
    """
    part = part_of(final)
    try:
        yield part
        commit(part, final)
    except OSError as e:
        raise unwritable(final, e) from e
    finally:
        discard(part)


def _palette() -> list[int]:
    """The colours that Pascal VOC and DAVIS give to ids 0..255, as flat RGB: the bits of the id, dealt out in turn."""
    ids = np.arange(256)
    rgb = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            rgb[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in rgb.ravel()]


def write_palette_png(path: Path, id_map_hw: ImageU8) -> None:
    """Write object ids, uint8 [H, W], as a palette PNG in the manner of DAVIS: the index of a pixel is its object.

    Unlike `atomic_path` it does not wait for the disk: there is one for every frame, in a folder that is atomic itself.
    """
    from PIL import Image

    image = Image.fromarray(id_map_hw)
    image.putpalette(_palette())
    coded = BytesIO()
    image.save(coded, format="PNG", compress_level=1)  # areas of one colour: twice as fast, and not much larger
    try:
        path.write_bytes(coded.getbuffer())  # at once: who is killed leaves no half of it
    except OSError as e:
        discard(path)
        raise unwritable(path, e) from e


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
