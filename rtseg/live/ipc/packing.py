"""Values as MessagePack bytes: messages, and the identities of frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from ...base.types import FrameId


def encode_special(value: Any) -> Any:
    """What MessagePack has no type for, as something that it has."""
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} cannot be sent")


def decode_special(kind: type, value: Any) -> Any:
    """The value again, of its own type."""
    if kind is Fraction:
        return Fraction(*value)
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"a {kind.__name__} cannot be received")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=encode_special)
_FRAME_ID = msgspec.msgpack.Decoder(FrameId, dec_hook=decode_special)


def pack(value: Any) -> bytes:
    """A message or another value of msgspec's types, as bytes."""
    return _ENCODER.encode(value)


def pack_frame_id(frame_id: FrameId) -> bytes:
    """The identity of a frame as bytes."""
    return _ENCODER.encode(frame_id)


def unpack_frame_id(packed: bytes) -> FrameId:
    """The identity again."""
    return _FRAME_ID.decode(packed)
