"""Messages, and the identities of frames, as MessagePack bytes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec

from ...base.types import FrameId
from .messages import Config, Elsewhere, Message, Request
from .reports import Report


def _encode_special(value: Any) -> Any:
    """A value for which MessagePack has no type, as one for which it has."""
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    raise NotImplementedError(f"a {type(value).__name__} cannot be sent")


def _decode_special(kind: type, value: Any) -> Any:
    """The inverse of `_encode_special`."""
    if kind is Fraction:
        return Fraction(*value)
    raise NotImplementedError(f"a {kind.__name__} cannot be received")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_special)
_MESSAGE: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    Config | Request | Report | Elsewhere, dec_hook=_decode_special
)
_FRAME_ID = msgspec.msgpack.Decoder(FrameId, dec_hook=_decode_special)


def pack(message: Message) -> bytes:
    """A message as bytes."""
    return _ENCODER.encode(message)


def unpack(packed: bytes) -> Any:
    """The message in these bytes; `msgspec.ValidationError` if there is none."""
    return _MESSAGE.decode(packed)


def pack_frame_id(frame_id: FrameId) -> bytes:
    """The identity of a frame as bytes."""
    return _ENCODER.encode(frame_id)


def unpack_frame_id(packed: bytes) -> FrameId:
    """The identity in these bytes."""
    return _FRAME_ID.decode(packed)
