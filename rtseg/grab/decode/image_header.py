"""Headers of image files: how many pictures a file holds, their bit depth, and their colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...base.types import Color
from .display_color import PRIMARIES, TRANSFERS, is_displayable

JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")  # of images; `.mjpeg` is a video
HEIC = (b"heic", b"heix", b"heim", b"heis")
MAX_PICTURES = 100_000  # a larger number in a file is damaged
PNG, TIFF, BIG_TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
# A second JPEG with one of these marks is a gain map of the first, not a picture.
_GAIN_MAPS = (b"hdrgm:", b"apple:photo:2020:aux:hdrgainmap")
_REDUCED, _MASK = 1, 4  # of TIFF's NewSubfileType: a page that is a smaller copy, or a transparency mask
# NewSubfileType, BitsPerSample, Orientation, MaxSampleValue, PlanarConfiguration, TileWidth, ExtraSamples,
# SampleFormat, ICC profile.
_TAGS = (254, 258, 274, 281, 284, 322, 338, 339, 34675)
_FORMS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file. `starts` has an entry for each picture: where its JPEG begins, or its page number.

    `bits`: how many bits of a 16-bit value are used, if the file says so. `color`: colours that need a conversion to
    sRGB; `has_icc`: it has an ICC profile. `by_pillow`: Pillow has to read it, because OpenCV fails at its tiles or
    would multiply its colours by the alpha channel. `is_float`: floating-point values. `unread`: why it is not
    supported, "" if it is.
    """

    kind: str
    starts: tuple[int, ...] = (0,)
    bits: int | None = None
    color: Color | None = None
    has_icc: bool = False
    by_pillow: bool = False
    is_float: bool = False
    unread: str = ""


def holds_images(path: Path) -> bool:
    """Whether a file is an image file. An animated PNG is not, nor is a video of JPEGs."""
    try:
        with path.open("rb") as file:
            begin = file.read(1 << 16)
    except OSError:  # opening it will raise the error
        return False
    if begin.startswith(b"\xff\xd8\xff"):
        return path.suffix.lower() in JPEGS
    header = header_of(begin)
    return header is not None and not (header.kind == "PNG" and len(header.starts) > 1)


def header_of(data: bytes) -> Header | None:
    """The header in a file's bytes; None if it is no PNG, JPEG, BMP, WebP, TIFF or HEIC."""
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return Header("JPEG", tuple(_jpegs(data)) or (0,), has_icc=b"ICC_PROFILE\0" in data[: _first_scan(data, 0)])
    if data.startswith(b"BM"):
        return Header("BMP")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        count = data.count(b"ANMF") if data[12:16] == b"VP8X" and data[20:21] and data[20] & 2 else 1
        return Header("WebP", tuple(range(max(1, count))), has_icc=b"ICCP" in data[12:64])
    if data.startswith((*TIFF, *BIG_TIFF)):
        return _tiff(data)
    if data[4:8] == b"ftyp" and data[8:12] in HEIC:
        return Header(
            "HEIC", unread="a HEIC picture, of which a video's decoder would show a tile; expected a PNG or JPEG"
        )
    return None


def _png(data: bytes) -> Header | None:
    # Check the CRC first: for a damaged size, a decoder may allocate a gigabyte before it does.
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    bits, icc, count, transfer, primaries = None, False, 1, "unknown", "unknown"
    gamma, deep = "unknown", False
    for name, body in _chunks(data):
        if name == b"IHDR" and len(body) >= 9:
            deep = body[8] == 16
        elif name == b"acTL" and len(body) >= 4:
            count = min(max(1, struct.unpack(">I", body[:4])[0]), MAX_PICTURES)
        elif name == b"sBIT" and body and deep:
            bits = max(body)
        elif name == b"iCCP":
            icc = True
        elif name == b"cICP" and len(body) >= 2:
            primaries, transfer = PRIMARIES.get(body[0], "unknown"), TRANSFERS.get(body[1], "unknown")
        elif name == b"gAMA" and len(body) >= 4:
            gamma = _gamma(struct.unpack(">I", body[:4])[0])
        elif name == b"sRGB":
            transfer = "iec61966-2-1"
    if transfer == "unknown" and not icc:
        transfer = gamma
    color = Color("rgb", "full", primaries, transfer)
    return Header("PNG", tuple(range(count)), bits, None if is_displayable(color) else color, icc)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the PNG chunks before the pixels."""
    at = len(PNG)
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + size]
        at += 12 + size


def _gamma(value: int) -> str:
    """The name of the transfer function of a PNG gamma; "unknown" (then sRGB) if it is close to sRGB's."""
    tenths = round(1_000_000 / value) if value else 22
    return "unknown" if 20 <= tenths <= 24 or not 5 <= tenths <= 40 else f"gamma{tenths:02}"


def _jpegs(data: bytes) -> Iterator[int]:
    """Where each JPEG in the file begins: a stereo or multi-angle picture (MPO) has several."""
    at = 0
    while scan := _first_scan(data, at):
        yield at
        begin = at
        at = data.find(b"\xff\xd8\xff", scan)  # these bytes cannot occur within the pixels of a JPEG
        if at < 0 or any(mark in data[begin:scan] or mark in data[at : at + (1 << 16)] for mark in _GAIN_MAPS):
            return


def _first_scan(data: bytes, at: int) -> int:
    """Where the pixels of the JPEG at `at` begin; 0 if there is none."""
    at += 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _tiff(data: bytes) -> Header:
    try:
        pages = list(enumerate(_directories(data)))
    except (struct.error, OverflowError):  # it was cut off or is damaged: reading it will raise the error
        return Header("TIFF")
    whole = [(number, tags) for number, tags in pages if not tags[254] & (_REDUCED | _MASK)]
    if pages and not whole:
        return Header("TIFF", unread="small copies of a picture alone, as in a camera's raw file; expected a whole one")
    return _of_pages(whole) if whole else Header("TIFF")


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """For each page of a TIFF, the tags that are used here: their largest value, 0 if they are absent."""
    order, big = "<" if data[:2] == b"II" else ">", data.startswith(BIG_TIFF)
    word, count_form, entry_form, entry_size = ("Q", "Q", "HHQ", 20) if big else ("I", "H", "HHI", 12)
    (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
    seen = set[int]()
    while at and at not in seen:
        seen.add(at)
        tags = dict.fromkeys(_TAGS, 0)
        (count,) = struct.unpack_from(order + count_form, data, at)
        at += struct.calcsize(count_form)
        for start in range(at, at + count * entry_size, entry_size):
            tag, kind, length = struct.unpack_from(order + entry_form, data, start)
            if tag in tags:
                form, at_values = _FORMS.get(kind, "B"), start + struct.calcsize(order + entry_form)
                if struct.calcsize(form) * length > struct.calcsize(word):
                    (at_values,) = struct.unpack_from(order + word, data, at_values)
                tags[tag] = max(struct.unpack_from(f"{order}{min(length, 8)}{form}", data, at_values), default=0)
        yield tags
        (at,) = struct.unpack_from(order + word, data, at + count * entry_size)


def _of_pages(pages: list[tuple[int, dict[int, int]]]) -> Header:
    tags = pages[0][1]
    depth, most, kind = tags[258] or 1, tags[281], tags[339] or 1  # by default one bit, unsigned
    unread = ""
    if kind not in (1, 3) or (kind == 1 and depth > 16):
        unread = f"values of {depth} bits, {'signed' if kind == 2 else 'unsigned' if kind == 1 else 'complex'}"
    elif kind == 3 and (tags[274] > 1 or depth not in (32, 64)):
        unread = f"floating-point values of {depth} bits" + (" that are to be turned" if tags[274] > 1 else "")
    elif depth > 8 and tags[284] == 2:
        unread = f"{depth} bits a value, each colour in a plane of its own"
    unread += "; expected whole numbers of 8 or 16 bits, pixel by pixel" if unread else ""
    bits = depth if 8 < depth < 16 else most.bit_length() if 0 < most < 65535 and depth == 16 else None
    return Header(
        "TIFF", tuple(number for number, _ in pages), bits, has_icc=bool(tags[34675]),
        by_pillow=depth == 8 and kind == 1 and (tags[338] == 2 or tags[322] > 0), is_float=kind == 3, unread=unread,
    )  # fmt: skip
