"""The requests, as values, and as msgpack maps that are checked before anything is done with them.

A request is `{v, n, verb, args}`; `n` is the client's own number, and comes back with the answer, which is
`{v, n, ok: true, result}` or `{v, n, ok: false, error}`. Nothing but maps, lists, text, bytes, numbers, true, false
and nil is taken. A mask travels as COCO compressed RLE with its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import msgpack

from ...base.errors import OutputError, PromptError, did_you_mean
from ...base.prompt_schema import MAX_ID, MAX_INT, MAX_LABEL, MAX_SIDE, PROMPT_KEYS, as_label, as_mask
from ...base.rle import decode_rle, encode_rle
from ...base.tables import Table
from ...base.types import BoolMask, Prompt

VERSION = 1
MAX_BYTES = 1 << 20  # of a request
_MAX_DEPTH, _MAX_ITEMS, _MAX_TEXT = 6, 1024, 256  # of a request; the items are those of one list or map
_MAX_PIXELS = 4096 * 4096  # of a mask: its bytes once unpacked
_PLAIN = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Follow a new object; `seq` is the frame that the person pointed at, None the newest."""

    prompt: Prompt
    seq: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Correct:
    """Say more about an object that is followed; `seq` as for `Add`."""

    prompt: Prompt
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget one object."""

    id: int


@dataclass(frozen=True, slots=True)
class Rename:
    """Give an object another label."""

    id: int
    label: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget all objects."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let the network rest; the picture goes on."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the network work again."""


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """The original picture of frame `seq` (None: the newest) and its masks."""

    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """What can be set, as it is."""


@dataclass(frozen=True, slots=True)
class Set:
    """How masks are drawn: `opacity` 0..1, `budget_ms` 1..10000. None leaves a value as it is."""

    opacity: float | None = None
    budget_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How the feed is."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the feed, in order."""


Request = Add | Correct | Remove | Rename | Reset | Pause | Resume | TakeSnapshot | Get | Set | Status | Shutdown
PROMPTED = (Add, Correct)  # what is wrong with these is wrong with a prompt

_SEQ = "seq"
_NAMES: dict[type, str] = {TakeSnapshot: "snapshot"}


def verb_of(request: Request) -> str:
    """The name of a request on the wire."""
    return _NAMES.get(type(request), type(request).__name__.lower())


def pack_request(number: int, request: Request) -> bytes:
    """A request as it is sent; `PromptError` or `OutputError`, as `request_of`, if it would be refused."""
    verb, error = verb_of(request), PromptError if isinstance(request, PROMPTED) else OutputError
    if isinstance(request, PROMPTED):
        prompt = request.prompt
        about: dict[str, Any] = {"id": prompt.id, "points": [list(point) for point in prompt.points] or None}
        about |= {"box": prompt.box, "label": prompt.label, "mask": None if prompt.mask is None else _rle(prompt.mask)}
        args = _given({"prompt": _given(about), "seq": request.seq})
        _seq(Table(args, verb, _VERBS[verb][0], error))
    else:
        args = asdict(request) if isinstance(request, Remove | Rename) else _given(asdict(request))
        _VERBS[verb][1](Table(args, verb, _VERBS[verb][0], error))
    values = {"v": VERSION, "n": number, "verb": verb, "args": args}
    try:
        packed = cast(bytes, msgpack.packb(values, default=_number))
    except (TypeError, ValueError, OverflowError) as e:
        raise error(f"{verb}: cannot be sent ({e}); expected plain numbers and text") from e
    try:
        request_of(opened(packed))
    except OutputError as e:
        raise error(str(e)) from e
    return packed


def pack_answer(number: int | None, **said: Any) -> bytes:
    """An answer as it is sent; `OutputError` if its values cannot be."""
    try:
        return cast(bytes, msgpack.packb({"v": VERSION, "n": number, **said}, default=_number))
    except (TypeError, ValueError, OverflowError) as e:
        raise OutputError(f"answer: cannot be sent ({e}); expected numbers, text, bytes, lists and maps") from e


def opened(body: bytes | memoryview) -> dict[str, Any]:
    """The map in a request's bytes, plain and bounded, its content not looked at; `OutputError` if it is none."""
    if len(body) > MAX_BYTES:
        raise OutputError(f"request: {len(body)} bytes; expected at most {MAX_BYTES}")
    limits = {"max_array_len": _MAX_ITEMS, "max_map_len": _MAX_ITEMS, "max_str_len": _MAX_TEXT, "max_ext_len": 0}
    try:
        values = msgpack.unpackb(body, max_bin_len=MAX_BYTES, **limits)
    except Exception as e:  # whatever a stranger sends
        raise OutputError(f"request: not msgpack within the limits ({e or type(e).__name__})") from e
    if not isinstance(values, dict):
        raise OutputError(f"request: a {type(values).__name__}; expected a map of: v, n, verb, args")
    _check_plain(values)
    return values


def number_of(values: Mapping[str, Any]) -> int | None:
    """The client's number of a request; None if it has none that can be given back."""
    number = values.get("n")
    return number if type(number) is int and 0 <= number <= MAX_INT else None


def request_of(values: dict[str, Any]) -> Request:
    """The request in a map that was `opened`; `PromptError` or `OutputError`, in one line, if it is none."""
    table = Table(values, "request", ("v", "n", "verb", "args"), OutputError)
    if values.get("v") != VERSION or type(values["v"]) is not int:
        raise OutputError(f"request: version {values.get('v')!r:.40}; expected {VERSION}; update the older side")
    table.integer("n", None, 0, MAX_INT)
    verb = table.text("verb")
    if verb not in _VERBS:
        raise OutputError(f"request: unknown verb {verb!r}; {did_you_mean(verb, _VERBS)}")
    known, read = _VERBS[verb]
    args = values.get("args", {})
    if isinstance(args, dict) and args and not known:
        raise OutputError(f"{verb}: found {', '.join(args)!r:.60}; expected nothing more")
    return read(Table(args, verb, known, OutputError))


def _check_plain(values: dict[str, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        inner: list[Any] = []
        if isinstance(value, dict):
            if any(type(key) is not str or len(key) > MAX_LABEL for key in value):
                raise OutputError(f"request: a key that is no text of 1 to {MAX_LABEL} characters; expected names")
            inner = list(value.values())
        elif isinstance(value, list):
            inner = value
        elif type(value) not in _PLAIN:
            raise OutputError(f"request: found a {type(value).__name__}; expected plain numbers, text, lists and maps")
        if inner and depth >= _MAX_DEPTH:
            raise OutputError(f"request: nested deeper than {_MAX_DEPTH}; expected a flat one")
        waiting.extend((thing, depth + 1) for thing in inner)


def _prompt(table: Table) -> Prompt:
    if "prompt" not in table:
        raise table.bad("prompt", "a table of: " + ", ".join(PROMPT_KEYS))
    inner = Table(table.values["prompt"], f"{table.where}: prompt", PROMPT_KEYS, PromptError)
    return Prompt.read(inner, _mask)


def _mask(table: Table) -> BoolMask:
    inner = Table(table.values["mask"], f"{table.where}: mask", ("rle", "height", "width"), PromptError)
    height, width = (inner.integer(side, None, 1, MAX_SIDE) for side in ("height", "width"))
    if height * width > _MAX_PIXELS:
        raise PromptError(f"{inner.where}: {width}x{height}; expected at most {_MAX_PIXELS} pixels")
    counts = inner.values.get("rle")
    if not isinstance(counts, bytes) or not counts:
        raise inner.bad("rle", "the bytes of a COCO compressed RLE")
    try:
        mask_hw = decode_rle(counts, height, width)
    except OutputError as e:
        raise PromptError(f"{inner.where}: not an RLE of {width}x{height} pixels; is its sender sound?") from e
    return as_mask(mask_hw, inner.where, PromptError)


def _set(table: Table) -> Set:
    if not table.values:
        raise OutputError("set: nothing to set; expected opacity, budget_ms or both")
    opacity = table.number("opacity", 0.0, 0.0, 1.0) if "opacity" in table else None
    return Set(opacity, table.number("budget_ms", 1.0, 1.0, 10_000.0) if "budget_ms" in table else None)


def _id(table: Table) -> int:
    return table.integer("id", None, 1, MAX_ID)


def _seq(table: Table) -> int | None:
    return table.integer(_SEQ, None, 0, MAX_INT) if _SEQ in table else None


def _rle(mask_hw: BoolMask) -> dict[str, Any]:
    height, width = mask_hw.shape
    return {"rle": encode_rle(mask_hw), "height": height, "width": width}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _number(value: Any) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")


_VERBS: dict[str, tuple[tuple[str, ...], Callable[[Table], Request]]] = {
    "add": (("prompt", _SEQ), lambda table: Add(_prompt(table), _seq(table))),
    "correct": (("prompt", _SEQ), lambda table: Correct(_prompt(table), _seq(table))),
    "remove": (("id",), lambda table: Remove(_id(table))),
    "rename": (("id", "label"), lambda table: Rename(_id(table), as_label(table))),
    "reset": ((), lambda table: Reset()),
    "pause": ((), lambda table: Pause()),
    "resume": ((), lambda table: Resume()),
    "snapshot": ((_SEQ,), lambda table: TakeSnapshot(_seq(table))),
    "get": ((), lambda table: Get()),
    "set": (("opacity", "budget_ms"), _set),
    "status": ((), lambda table: Status()),
    "shutdown": ((), lambda table: Shutdown()),
}
