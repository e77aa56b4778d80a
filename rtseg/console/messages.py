"""The messages between the page and the console, and their JSON schema.

Text messages are JSON with a `type`. A binary message is a uint32, little-endian: the length of a JSON header; the
header; and the payload.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..base.errors import OutputError
from ..base.prompt_schema import MAX_INT

VERSION = 1
MAX_BYTES = 1 << 20  # of a message from a browser: room for a mask as RLE
MAX_FEEDS = 64

Right = Literal["viewer", "pointer"]
Link = Literal["up", "silent", "refused"]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Number = Annotated[int, Meta(ge=0, le=MAX_INT)]
Rgb = tuple[int, int, int]


class Hello(Struct, tag="hello", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first message of a page, within 5 s. `feeds`: None means all; `width`: device pixels that a picture fills."""

    token: Annotated[str, Meta(max_length=256)] | None = None
    feeds: Annotated[tuple[Name, ...], Meta(max_length=MAX_FEEDS)] | None = None
    width: Annotated[int, Meta(ge=1, le=1 << 16)] | None = None


class Painted(Struct, tag="painted", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A picture was painted: the console may send another."""

    feed: Name
    seq: Number
    session: Annotated[str, Meta(max_length=128)]


class Order(Struct, tag="order", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person asks of a feed. `client` and `n` together are unique: an order that is repeated is done once."""

    n: Annotated[int, Meta(ge=1, le=1 << 53)]
    feed: Name
    verb: Annotated[str, Meta(min_length=1, max_length=32)]
    args: dict[str, Any] = {}
    client: Annotated[str, Meta(max_length=64)] = ""


class Ping(Struct, tag="ping", tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Is the connection alive? `t` comes back in the `pong`."""

    t: float


Received = Hello | Painted | Order | Ping


class FeedName(Struct, frozen=True, kw_only=True):
    """A feed. `stream` is None until its first message came."""

    feed: str
    stream: str | None
    recording: bool


class Preset(Struct, frozen=True, kw_only=True):
    """A class of objects that the profile names."""

    label: str
    color: Rgb | None = None


class Welcome(Struct, tag="welcome", tag_field="type", frozen=True, kw_only=True):
    """The answer to a `hello`. `console` is a random name of this run of the console."""

    right: Right
    name: str | None
    feeds: tuple[FeedName, ...]
    version: int
    presets: tuple[Preset, ...]
    console: str


class Refused(Struct, tag="refused", tag_field="type", frozen=True, kw_only=True):
    """Why the connection is closed now."""

    why: str


class Status(Struct, tag="status", tag_field="type", frozen=True, kw_only=True):
    """The newest status of a feed, at least twice a second. `age_ms`: since it came; None if none came yet."""

    feed: str
    stream: str | None
    link: Link
    age_ms: float | None
    status: dict[str, Any]


class Picture(Struct, tag="picture", tag_field="type", frozen=True, kw_only=True):
    """The header of a picture; its JPEG follows. `captured_age_ms`: at sending; None where the clocks differ.

    `sample_aspect`: the width of a pixel divided by its height.
    """

    feed: str
    seq: int
    session: str
    width: int
    height: int
    source_width: int
    source_height: int
    captured_age_ms: float | None
    codec: Literal["jpeg"] = "jpeg"
    sample_aspect: float = 1.0


class Object(Struct, frozen=True, kw_only=True):
    """An object in a masks message; `size` is that of its RLE, in bytes."""

    id: int
    label: str
    score: float
    area: int
    box: tuple[int, int, int, int]
    color: Rgb
    hidden: bool
    size: int


class Masks(Struct, tag="masks", tag_field="type", frozen=True, kw_only=True):
    """The header of the masks of the picture `mask_seq`; the objects' RLEs follow, one after the other."""

    feed: str
    seq: int
    session: str
    mask_seq: int | None
    mask_age_ms: float | None
    state: str
    width: int
    height: int
    objects: tuple[Object, ...]
    lost: tuple[int, ...]
    cut: bool


class Answer(Struct, tag="answer", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the order `n`: its `result`, or why it was not done."""

    n: int
    ok: bool
    result: dict[str, Any] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class Event(Struct, tag="event", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """What happened to a feed, in words. `at`: seconds since 1970; `who` gave the order."""

    feed: str
    at: float
    kind: str
    text: str
    who: str | UnsetType = UNSET


class Pong(Struct, tag="pong", tag_field="type", frozen=True, kw_only=True):
    """The answer to a `ping`."""

    t: float


Sent = Welcome | Refused | Status | Picture | Masks | Answer | Event | Pong
_decoder = msgspec.json.Decoder(Received)
_encoder = msgspec.json.Encoder()


def parse(text: str | bytes) -> Received:
    """The message in a text from a browser; `OutputError`, in one line, if it is malformed."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as e:
        line = " ".join(str(e).split())[:160]
        raise OutputError(f"message: {line or type(e).__name__}; expected hello, painted, order or ping") from e


def parse_order(body: bytes, feed: str) -> Order:
    """The order in the body of an HTTP request, in which `n` and `feed` may be missing. `OutputError` if malformed."""
    try:
        values = msgspec.json.decode(body, type=dict[str, Any])
        return msgspec.convert({"n": 1, **values, "type": "order", "feed": feed}, Order)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as e:
        line = " ".join(str(e).split())[:160]
        raise OutputError(f"order: {line or type(e).__name__}; expected {{verb, args}} as JSON") from e


def text(message: Struct) -> bytes:
    """A message as JSON. Bytes inside become text: RLE as it is, anything else as base64."""
    return _encoder.encode(message)


def binary(header: Struct, *payload: bytes | memoryview) -> bytes:
    """A binary message."""
    head = _encoder.encode(header)
    return b"".join((struct.pack("<I", len(head)), head, *payload))


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the payload of a binary message; `OutputError` if it is malformed."""
    try:
        (length,) = struct.unpack_from("<I", message)
        return msgspec.json.decode(message[4 : 4 + length], type=dict[str, Any]), message[4 + length :]
    except (struct.error, msgspec.MsgspecError) as e:
        raise OutputError(f"message: not a header and a payload ({e}); is this an rtseg console?") from e


def plain(value: Any) -> Any:
    """A value of the wire format as JSON has it: the bytes of an RLE as text."""
    if isinstance(value, dict):
        return {
            str(key): thing.decode("ascii", "replace") if key == "rle" and isinstance(thing, bytes) else plain(thing)
            for key, thing in value.items()
        }
    return [plain(thing) for thing in value] if isinstance(value, list | tuple) else value
