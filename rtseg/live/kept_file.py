"""The file of kept prompts: the accepted prompts of a feed with their pictures, and how its objects are drawn.

A line that names the format, the SHA-256 of the rest, and a MessagePack map. Pictures are PNG, so without loss. It is
checked as a whole before any of it is used.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import msgspec
import numpy as np

from ..base.colors import Rgb
from ..base.errors import ConfigError, RtsegError
from ..base.files import atomic_path
from ..base.types import ImageU8, Prompt
from .ipc.messages import PromptData

_FORMAT = b"rtseg prompts 1\n"
_MOST_BYTES = 1 << 30  # far more than 255 objects with four pictures each of common sizes


class KeptObject(msgspec.Struct, frozen=True):
    """One object. Each of `prompts` comes with the index of its picture, oldest first."""

    id: int
    label: str | None
    color: Rgb | None
    hidden: bool
    prompts: tuple[tuple[int, PromptData], ...]


class KeptPrompts(msgspec.Struct, frozen=True):
    """What a feed of the stream `stream` keeps; `saved`: when, in words. Pictures are PNG, oldest first."""

    stream: str
    saved: str
    objects: tuple[KeptObject, ...]
    pictures: tuple[bytes, ...]


def write_kept(path: Path, kept: KeptPrompts) -> None:
    """Write the file, readable by its owner alone; after a failure (`OutputError`) the old one is still there."""
    body = msgspec.msgpack.encode(kept)
    with atomic_path(path) as part, open(part, "wb", opener=_private) as file:
        file.write(_FORMAT + hashlib.sha256(body).digest() + body)


def read_kept(path: Path, stream: str) -> KeptPrompts | None:
    """The file's content; None if there is no file. `ConfigError` unless it is whole, and of this stream."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MOST_BYTES else b""
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); expected a file of kept prompts, or none") from e
    body = content[len(_FORMAT) + 32 :]
    if not content.startswith(_FORMAT):
        raise _unusable(path, "is not a file of kept prompts")
    if hashlib.sha256(body).digest() != content[len(_FORMAT) : len(_FORMAT) + 32]:
        raise _unusable(path, "is damaged")
    try:
        kept = msgspec.msgpack.decode(body, type=KeptPrompts)
        _check(kept)
    except (msgspec.ValidationError, msgspec.DecodeError, RtsegError, IndexError) as e:
        raise _unusable(path, f"holds something else ({e})") from e
    if kept.stream != stream:
        raise _unusable(path, f"keeps the prompts of another stream, {kept.stream!r:.60}")
    return kept


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path}: {what}; expected what this feed kept; move it away, or change control: keep")


def _check(kept: KeptPrompts) -> None:
    sizes = [picture_of(png).shape[:2] for png in kept.pictures]
    for thing in kept.objects:
        if not thing.prompts:
            raise ConfigError(f"object {thing.id} has no prompt")
        for number, (index, data) in enumerate(thing.prompts):
            _prompt_of(thing, data).check(*sizes[index], first=not number)


def _prompt_of(thing: KeptObject, data: PromptData) -> Prompt:
    if data.id != thing.id:
        raise ConfigError(f"object {thing.id} has a prompt of object {data.id}")
    return data.to_prompt()


def coded(image_hwc: ImageU8) -> bytes:
    """A picture as PNG, coded quickly."""
    image_bgr = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image_bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def picture_of(png: bytes) -> ImageU8:
    """The picture, uint8 RGB [H, W, 3]; `ConfigError` if it is none."""
    try:
        image_hwc = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image_hwc = None
    if image_hwc is None:
        raise ConfigError("a picture cannot be decoded")
    return np.asarray(image_hwc, np.uint8)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
