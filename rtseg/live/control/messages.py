"""The control requests as msgpack maps, which are checked completely before they are used.

A request is `{v, n, verb, args, who, key}`. `n` is the client's own number, and is part of the answer, which is
`{v, n, ok: true, result}` or `{v, n, ok: false, error}`. `who` is optional: the person who asks; `key`, too: a request
that comes again with the same key is carried out once. Only maps, lists, text, bytes, numbers, true, false and nil are
accepted. A mask is sent as COCO compressed RLE with its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, cast

import msgpack
from msgspec import UNSET, Meta, Struct, UnsetType

from ...base.errors import OutputError, PromptError, did_you_mean
from ...base.prompt_schema import (
    MAX_INT,
    MAX_LABEL,
    MAX_SIDE,
    FrameNumber,
    PromptFields,
    as_label,
    as_mask,
)
from ...base.rle import decode_rle, encode_rle
from ...base.schema import Text, convert
from ...base.types import BoolMask, Prompt
from .verbs import PROMPTED, VERBS, Add, Correct, Look, Preview, Prompted, Rename, Request, Session, Set, verb_of

VERSION = 1
MAX_BYTES = 1 << 20  # of a request
_MAX_DEPTH, _MAX_ITEMS, _MAX_TEXT = 6, 1024, 256  # limits of a request; the items of one list or map
_MAX_PIXELS = 4096 * 4096  # of a mask, which is unpacked to a byte each
_PLAIN = (str, bytes, int, float, bool, type(None))


class _Envelope(Struct, frozen=True):
    """A request as it is sent."""

    v: int
    n: FrameNumber
    verb: Text
    args: Any = UNSET
    who: Text | None = None
    key: Annotated[Text, Meta(max_length=MAX_LABEL)] | None = None


class _Mask(Struct, frozen=True):
    """A mask as it is sent; `rle` are the bytes of a COCO compressed RLE."""

    rle: Annotated[bytes, Meta(min_length=1, description="the bytes of a COCO compressed RLE")]
    height: Annotated[int, Meta(ge=1, le=MAX_SIDE)]
    width: Annotated[int, Meta(ge=1, le=MAX_SIDE)]


class _Fields(PromptFields, frozen=True, kw_only=True):
    """A prompt as it is sent."""

    mask: _Mask | UnsetType = UNSET


class _Prompted(Struct, frozen=True):
    """The arguments of the requests that hold a prompt."""

    prompt: _Fields
    seq: FrameNumber | None = None
    session: Session | None = None


def pack_request(number: int, request: Request, who: str | None = None, key: str | None = None) -> bytes:
    """A request as bytes; raises the error that `request_of` would raise at the other end."""
    verb, error = verb_of(request), PromptError if isinstance(request, PROMPTED) else OutputError
    args = _packed_prompt(request) if isinstance(request, PROMPTED) else asdict(request)
    values = {"v": VERSION, "n": number, "verb": verb, "args": args} | _given({"who": who, "key": key})
    read = request_of(values)
    if not isinstance(read, PROMPTED):
        values["args"] = _given(asdict(read))
    try:
        packed = cast(bytes, msgpack.packb(values, default=_number))
    except (TypeError, ValueError, OverflowError) as e:
        raise error(f"{verb}: cannot be sent ({e}); expected plain numbers and text") from e
    try:
        request_of(opened(packed))
    except OutputError as e:
        raise error(str(e)) from e
    return packed


def _packed_prompt(request: Prompted) -> dict[str, Any]:
    prompt = request.prompt
    content: dict[str, Any] = {"id": prompt.id, "points": [list(point) for point in prompt.points] or None}
    content |= {"box": prompt.box, "label": prompt.label, "mask": None if prompt.mask is None else _rle(prompt.mask)}
    return _given({"prompt": _given(content), "seq": request.seq, "session": request.session})


def pack_answer(number: int | None, **content: Any) -> bytes:
    """An answer as bytes; `OutputError` if its values cannot be sent."""
    try:
        return cast(bytes, msgpack.packb({"v": VERSION, "n": number, **content}, default=_number))
    except (TypeError, ValueError, OverflowError) as e:
        raise OutputError(f"answer: cannot be sent ({e}); expected numbers, text, bytes, lists and maps") from e


def opened(body: bytes | memoryview) -> dict[str, Any]:
    """The map in a request's bytes: plain values within the limits, otherwise unchecked. `OutputError` if malformed."""
    if len(body) > MAX_BYTES:
        raise OutputError(f"request: {len(body)} bytes; expected at most {MAX_BYTES}")
    limits = {"max_array_len": _MAX_ITEMS, "max_map_len": _MAX_ITEMS, "max_str_len": _MAX_TEXT, "max_ext_len": 0}
    try:
        values = msgpack.unpackb(body, max_bin_len=MAX_BYTES, **limits)
    except Exception as e:  # the decoder may raise anything
        raise OutputError(f"request: not msgpack within the limits ({e or type(e).__name__})") from e
    if not isinstance(values, dict):
        raise OutputError(f"request: a {type(values).__name__}; expected a map of: v, n, verb, args")
    _check_plain(values)
    return values


def number_of(values: Mapping[str, Any]) -> int | None:
    """The client's number of a request; None if it has no valid number."""
    number = values.get("n")
    return number if type(number) is int and 0 <= number <= MAX_INT else None


def who_of(values: Mapping[str, Any]) -> str:
    """The person who asks, as a request that `request_of` takes says it; "" where it says nothing."""
    return values.get("who") or ""


def key_of(values: Mapping[str, Any]) -> str:
    """The key of a request that `request_of` takes; "" where it has none."""
    return values.get("key") or ""


def asked_by(values: Mapping[str, Any]) -> bytes:
    """What a request from `opened` asks, whoever sends it: equal for those that ask the same."""
    return cast(bytes, msgpack.packb([values.get("verb"), values.get("args")]))


def request_of(values: dict[str, Any]) -> Request:
    """The request in a map from `opened`. `PromptError` or `OutputError` if it is malformed."""
    if values.get("v", VERSION) != VERSION or type(values.get("v")) is not int:
        raise OutputError(f"request: version {values.get('v')!r:.40}; expected {VERSION}; update the older side")
    envelope = convert(values, _Envelope, "request", OutputError)
    verb, args = envelope.verb, {} if envelope.args is UNSET else envelope.args
    if envelope.who is not None:
        check_who(envelope.who)
    if verb not in VERBS:
        raise OutputError(f"request: unknown verb {verb!r}; {did_you_mean(verb, VERBS)}")
    kind = VERBS[verb]
    if kind is Add or kind is Correct or kind is Preview:
        prompted = convert(args, _Prompted, verb, PromptError)
        return kind(_prompt(prompted.prompt, f"{verb}: prompt"), prompted.seq, prompted.session)
    if isinstance(args, dict) and args and not fields(kind):
        raise OutputError(f"{verb}: found {', '.join(map(str, args))!r:.60}; expected nothing more")
    request = convert(args, kind, verb, OutputError)
    if isinstance(request, Rename):
        as_label(request.label, verb, OutputError)
    if request == Set():
        raise OutputError("set: nothing to set; expected opacity, budget_ms or both")
    if isinstance(request, Look) and request == Look(request.id):
        raise OutputError("look: nothing to change; expected color, hidden or both")
    return request


def check_who(who: str) -> None:
    """`OutputError` unless this can be written into a log as the name of a person."""
    if len(who) > MAX_LABEL or not who.isprintable() or not who.strip():
        raise OutputError(f"who = {who!r:.80}; expected one line of 1 to {MAX_LABEL} characters")


def _check_plain(values: dict[str, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        inner: list[Any] = []
        if isinstance(value, dict):
            if any(type(key) is not str or len(key) > MAX_LABEL for key in value):
                raise OutputError(f"request: a key that is not a text of 1 to {MAX_LABEL} characters; expected names")
            inner = list(value.values())
        elif isinstance(value, list):
            inner = value
        elif type(value) not in _PLAIN:
            raise OutputError(f"request: found a {type(value).__name__}; expected plain numbers, text, lists and maps")
        if inner and depth >= _MAX_DEPTH:
            raise OutputError(f"request: nested deeper than {_MAX_DEPTH}; expected a flat one")
        waiting.extend((thing, depth + 1) for thing in inner)


def _prompt(sent: _Fields, where: str) -> Prompt:
    if sent.mask is UNSET:
        return Prompt.from_fields(sent, None)
    height, width = sent.mask.height, sent.mask.width
    where = f"{where}: mask"
    if height * width > _MAX_PIXELS:
        raise PromptError(f"{where}: {width}x{height}; expected at most {_MAX_PIXELS} pixels")
    try:
        mask_hw = decode_rle(sent.mask.rle, height, width)
    except OutputError as e:
        raise PromptError(f"{where}: not an RLE of {width}x{height} pixels; check the program that sent it") from e
    return Prompt.from_fields(sent, as_mask(mask_hw, where, PromptError))


def _rle(mask_hw: BoolMask) -> dict[str, Any]:
    height, width = mask_hw.shape
    return {"rle": encode_rle(mask_hw), "height": height, "width": width}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _number(value: Any) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")
