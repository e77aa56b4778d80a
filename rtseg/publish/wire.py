"""The wire format, version 1: `[topic, header, payload...]`.

The topic is `STREAM/video`, `/overlay`, `/masks` or `/status`. The header is a msgpack map. Every message has every
key, with nil where a key does not apply. Four keys are optional: `carried` (true: the masks of the overlay were moved
along with the picture), `cut` (true: the masks are of the first frame of another scene), `lost` (ids of objects that
are out of view, in overlay and masks), and `sample_aspect` (two integers: width and height of a pixel that is not
square). The payload is the pixels (rgb24, or one JPEG), one COCO compressed RLE for each object, or one msgpack map for
a status. Times are nanoseconds on the monotonic clock that `clock` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import cv2
import msgpack
import numpy as np

from ..base.defaults import MASK_BUDGET_MS, TOPICS, Topic
from ..base.errors import OutputError
from ..base.rle import decode_rle, encode_rle
from ..base.types import BoolMask, Frame, FrameId, ImageU8, Masks, now_ns
from .looks import PLAIN, Looks
from .mask_state import ObjectSummary, mask_state, measure
from .overlay import Drawn

VERSION = 1
Parts = list[bytes | memoryview]

_MAX_SIDE, _MAX_HEADER = 16384, 1 << 16
_WIDEST = 16  # largest aspect ratio of a pixel; a larger one is damage
_INT, _TEXT, _REAL, _NIL = (int,), (str,), (int, float), type(None)
_KEYS: dict[str, tuple[type, ...]] = {
    "v": _INT, "session": _TEXT, "seq": _INT, "pts": (int, _NIL), "time_base": (list, _NIL),
    "captured_ns": _INT, "published_ns": _INT, "clock": _TEXT, "width": (int, _NIL), "height": (int, _NIL),
    "pixfmt": (str, _NIL), "color": (dict, _NIL), "mask_seq": (int, _NIL), "mask_age_ms": (*_REAL, _NIL),
    "state": _TEXT, "engine": _TEXT, "objects": (list,),
}  # fmt: skip
# Optional keys, which older readers ignore.
_OPTIONAL_KEYS: dict[str, tuple[type, ...]] = {
    "carried": (bool,), "cut": (bool,), "lost": (list,), "sample_aspect": (list,),
}  # fmt: skip
_OBJECT_KEYS: dict[str, tuple[type, ...]] = {"id": _INT, "label": _TEXT, "score": _REAL, "area": _INT, "box": (list,)}
_OPTIONAL_OBJECT_KEYS: dict[str, tuple[type, ...]] = {"color": (list,), "hidden": (bool,)}
_COUNTS = {"time_base": 2, "box": 4, "sample_aspect": 2, "color": 3}  # how many integers these lists have


def _clock() -> str:
    """A name for this boot's monotonic clock: two processes have the same name only if they read the same clock."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"monotonic:{boot.read_text().strip() if boot.exists() else uuid4()}"


CLOCK = _clock()


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message from a feed. Its header and the size of its payload are checked; its content is when it is read.

    Attributes:
        topic: `STREAM/video`, `/overlay`, `/masks` or `/status`.
        stream: the name of the stream.
        kind: "video", "overlay", "masks" or "status".
        header: the header as docs/wire.md defines it: `state`, `mask_seq`, `mask_age_ms`, `objects`, ...
        payload: the parts after the header, as received.
    """

    topic: str
    stream: str
    kind: Topic
    header: dict[str, Any]
    payload: tuple[bytes | memoryview, ...] = field(repr=False)

    @property
    def seq(self) -> int:
        """The number of the frame; of a status, its own count."""
        return int(self.header["seq"])

    @property
    def age_ms(self) -> float | None:
        """Milliseconds since the capture; None if the publisher is on another machine with another clock."""
        return (now_ns() - self.header["captured_ns"]) / 1e6 if self.header["clock"] == CLOCK else None

    def image_hwc(self) -> ImageU8:
        """The picture of a video or overlay message.

        Returns:
            uint8 [H, W, 3] RGB, a copy that may be changed.

        Raises:
            OutputError: the payload is not a picture of the stated size.
        """
        height, width = self.header["height"], self.header["width"]
        flat = np.frombuffer(self.payload[0], np.uint8)
        if self.header["pixfmt"] == "rgb24":
            return flat.reshape(height, width, 3).copy()
        try:
            image_hwc = cv2.imdecode(flat, cv2.IMREAD_COLOR)
        except cv2.error:
            image_hwc = None
        if image_hwc is None or image_hwc.shape != (height, width, 3):
            raise OutputError(
                f"{self.topic} {self.seq}: not a JPEG of {width}x{height}; check the program that sent it"
            )
        return np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_BGR2RGB), np.uint8)

    def masks(self) -> dict[int, BoolMask]:
        """The masks of a masks message.

        Returns:
            A mask, bool [H, W], for each object id.

        Raises:
            OutputError: a mask is broken.
        """
        height, width = self.header["height"], self.header["width"]
        ids = (thing["id"] for thing in self.header["objects"])
        return {i: decode_rle(bytes(rle), height, width) for i, rle in zip(ids, self.payload, strict=True)}

    def status(self) -> dict[str, Any]:
        """The content of a status message, as docs/live.md describes it; `OutputError` if it is broken."""
        return _unpack_map(bytes(self.payload[0]), self.topic)


def aspect_of(header: Mapping[str, Any]) -> Fraction:
    """The aspect ratio (width / height) of a pixel, from a header; 1 if it states none, or no sensible one."""
    width, height = header.get("sample_aspect") or (1, 1)
    sensible = width > 0 < height and max(width, height) <= _WIDEST * min(width, height)
    return Fraction(width, height) if sensible else Fraction(1)


def check_stream(stream: str) -> None:
    """`OutputError` unless the name can be used in a topic, a file name and a one-line message."""
    if not re.fullmatch(r"[\w.-]{1,64}", stream):
        raise OutputError(f"stream name {stream!r:.60}: expected 1 to 64 letters, digits, '_', '-' or '.'; rename it")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")


def _pack(thing: Mapping[str, Any], what: str) -> bytes:
    try:
        return cast(bytes, msgpack.packb(thing, default=_plain))
    except (TypeError, ValueError, OverflowError) as e:
        raise OutputError(f"{what}: cannot be sent ({e}); expected numbers, text, lists and maps of these") from e


def _head(frame: FrameId, stream: str, kind: Topic, pixfmt: str, engine: str, **about_masks: Any) -> Parts:
    header = {
        "v": VERSION, "session": frame.session, "seq": frame.seq, "pts": frame.pts,
        "time_base": [frame.time_base.numerator, frame.time_base.denominator],
        "captured_ns": frame.captured_ns, "published_ns": now_ns(), "clock": CLOCK,
        "width": frame.width, "height": frame.height, "pixfmt": pixfmt, "color": asdict(frame.color),
        "mask_seq": None, "mask_age_ms": None, "state": "none", "engine": engine, "objects": [], **about_masks,
    }  # fmt: skip
    if frame.sample_aspect != 1:
        header["sample_aspect"] = [frame.sample_aspect.numerator, frame.sample_aspect.denominator]
    return [f"{stream}/{kind}".encode(), _pack(header, f"{stream}/{kind} {frame.seq}")]


def _pixels(image_hwc: ImageU8, jpeg_quality: int | None) -> tuple[str, bytes | memoryview]:
    if jpeg_quality is None:
        return "rgb24", np.ascontiguousarray(image_hwc).data.cast("B")
    image_bgr = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not done:
        raise OutputError(f"a {image_hwc.shape[1]}x{image_hwc.shape[0]} picture cannot be coded as JPEG; send it raw")
    return "jpeg", jpeg.tobytes()


def _objects(seen: Sequence[ObjectSummary]) -> list[dict[str, Any]]:
    return [asdict(thing) | {"box": list(thing.box), "color": list(thing.color)} for thing in seen]


def encode_video(frame: Frame, stream: str, *, engine: str = "", jpeg_quality: int | None = None) -> Parts:
    """A video message: the original picture, bit-identical, or as JPEG if a quality is given."""
    pixfmt, pixels = _pixels(frame.image_hwc, jpeg_quality)
    return [*_head(frame, stream, "video", pixfmt, engine), pixels]


def encode_overlay(
    frame: Frame, drawn: Drawn, stream: str, *, engine: str = "", jpeg_quality: int | None = None
) -> Parts:
    """An overlay message: the picture with masks drawn on it, and their age."""
    pixfmt, pixels = _pixels(drawn.image_hwc, jpeg_quality)
    about: dict[str, Any] = {"mask_seq": drawn.mask_seq, "mask_age_ms": drawn.age_ms, "state": drawn.state}
    about |= {"carried": True} if drawn.carried else {}
    about |= {"lost": list(drawn.lost)} if drawn.lost else {}
    return [*_head(frame, stream, "overlay", pixfmt, engine, **about, objects=_objects(drawn.objects)), pixels]


def encode_masks(
    masks: Masks, frame: FrameId, stream: str, *, engine: str = "", budget_ms: float = MASK_BUDGET_MS,
    looks: Looks = PLAIN,
) -> Parts:  # fmt: skip
    """A masks message: one RLE for each mask, also for empty masks and those too old to be drawn: see `state`.

    The size is that of the masks. `seq` and timestamps are the frame's, `mask_seq` and `mask_age_ms` the masks'.
    """
    state, age_ms = mask_state(frame, masks, budget_ms)
    masks_hw, seen = zip(*(measure(masks, i, looks) for i in masks.ids), strict=True) if masks.ids else ((), ())
    about: dict[str, Any] = {"mask_seq": masks.seq, "mask_age_ms": age_ms, "state": state}
    about |= {"width": masks.width, "height": masks.height}
    about |= ({"cut": True} if masks.cut else {}) | ({"lost": list(masks.lost)} if masks.lost else {})
    objects = _objects(seen)
    return [*_head(frame, stream, "masks", "rle", engine, **about, objects=objects), *map(encode_rle, masks_hw)]


def encode_status(
    status: Mapping[str, Any], stream: str, *, session: str, seq: int, stated_ns: int, engine: str = ""
) -> Parts:
    """A status message. `stated_ns`: when the status was set; `seq`: how often a status was sent."""
    header: dict[str, Any] = dict.fromkeys(_KEYS)
    header |= {"v": VERSION, "session": session, "seq": seq, "captured_ns": stated_ns, "published_ns": now_ns()}
    header |= {"clock": CLOCK, "state": str(status.get("state", "unknown")), "engine": engine, "objects": []}
    topic = f"{stream}/status"
    return [topic.encode(), _pack(header, topic), _pack(status, topic)]


def _unpack_map(packed: bytes, what: str) -> dict[str, Any]:
    try:
        thing = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException) as e:
        raise OutputError(f"{what}: not msgpack ({e or type(e).__name__}); is this an rtseg publisher?") from e
    if not isinstance(thing, dict):
        raise OutputError(f"{what}: a {type(thing).__name__}; expected a map; is this an rtseg publisher?")
    return thing


def _check_keys(thing: Any, keys: Mapping[str, tuple[type, ...]], what: str) -> None:
    if not isinstance(thing, dict):
        raise OutputError(f"{what}: a {type(thing).__name__}; expected a map; check the program that sent it")
    for key, kinds in keys.items():
        if key not in thing:
            raise OutputError(
                f"{what}: no {key!r}; expected all keys of version {VERSION}; check the program that sent it"
            )
        value = thing[key]
        count = _COUNTS.get(key) if list in kinds else None  # `color` of a header is a map, that of an object a list
        if type(value) not in kinds or (count and value is not None and [type(n) for n in value] != [int] * count):
            wanted = f"{count} integers" if count else " or ".join(kind.__name__ for kind in kinds)
            raise OutputError(f"{what}: {key} is {value!r:.40}; expected {wanted}; check the program that sent it")


def _there(keys: Mapping[str, tuple[type, ...]], thing: Any) -> dict[str, tuple[type, ...]]:
    """Those of some optional keys that a map has."""
    return {key: kinds for key, kinds in keys.items() if isinstance(thing, dict) and key in thing}


def _check_sizes(kind: Topic, header: dict[str, Any], sizes: Sequence[int], what: str) -> None:
    """Check that the payload has the number of parts and bytes that the header states."""
    parts = len(header["objects"]) if kind == "masks" else 1
    if len(sizes) != parts:
        raise OutputError(f"{what}: {len(sizes)} payload parts; expected {parts}; check the program that sent it")
    if kind == "status":
        return
    width, height = header["width"], header["height"]
    if not all(type(side) is int and 0 < side <= _MAX_SIDE for side in (width, height)):
        raise OutputError(
            f"{what}: size {width}x{height}; expected 1 to {_MAX_SIDE} a side; check the program that sent it"
        )
    known = ("rle",) if kind == "masks" else ("rgb24", "jpeg")
    if header["pixfmt"] not in known:
        raise OutputError(f"{what}: pixfmt {header['pixfmt']!r:.40}; expected {' or '.join(known)}; update rtseg?")
    if header["pixfmt"] == "rgb24" and sizes[0] != width * height * 3:
        raise OutputError(
            f"{what}: {sizes[0]} bytes of pixels; expected {width * height * 3}; check the program that sent it"
        )


def decode(parts: Sequence[bytes | memoryview]) -> Message:
    """The message in received parts; `OutputError`, in one line, if they are not a message of this version."""
    if len(parts) < 2:
        raise OutputError(f"message: {len(parts)} parts; expected topic, header, payload; is this an rtseg publisher?")
    topic = bytes(parts[0])[:200].decode(errors="replace")
    stream, _, last = topic.rpartition("/")
    kind = next((known for known in TOPICS if known == last), None)
    if kind is None:
        raise OutputError(f"message: topic {topic!r:.60}; expected STREAM/{'|'.join(TOPICS)}")
    check_stream(stream)
    if len(parts[1]) > _MAX_HEADER:
        raise OutputError(f"{topic}: a header of {len(parts[1])} bytes; expected at most {_MAX_HEADER}")
    header = _unpack_map(bytes(parts[1]), topic)
    if header.get("v") != VERSION:
        raise OutputError(f"{topic}: wire version {header.get('v')!r:.40}; expected {VERSION}; update the older side")
    _check_keys(header, _KEYS | _there(_OPTIONAL_KEYS, header), topic)
    for thing in header["objects"]:
        _check_keys(thing, _OBJECT_KEYS | _there(_OPTIONAL_OBJECT_KEYS, thing), f"{topic} {header['seq']}: object")
    _check_sizes(kind, header, [len(part) for part in parts[2:]], f"{topic} {header['seq']}")
    return Message(topic, stream, kind, header, tuple(parts[2:]))
