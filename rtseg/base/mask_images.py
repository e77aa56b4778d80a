"""Masks as picture files: one object in black and white, or one of several by its id or colour.

An ambiguous mask is refused: ids are not united, an alpha channel is not interpreted, and greys that may be ids get no
threshold. Only a lossy picture (JPEG), where black and white are never exact, is split at half if few pixels are grey.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PromptError, RtsegError
from .files import write_bytes
from .prompt_schema import MAX_SIDE, as_mask
from .types import BoolMask, ImageU8

LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
MOST_BETWEEN = 0.01  # share of a lossy mask's pixels that may be grey (64 to 191)
SHOWN = 6  # ids or colours that an error names

Values = npt.NDArray[Any]  # [H, W] of numbers, or [H, W, 3] of colours
Picked = int | tuple[int, ...]


def mask_of_image(
    path: Path, name: str, error: type[RtsegError] = PromptError, value: Picked | None = None
) -> BoolMask:
    """The mask in a picture file as bool [H, W]; `name` opens an error line, `value` is the object's id or colour."""
    values, palette, lossy = _read(path, name, error)
    if value is not None and lossy:
        raise error(f"{name} is a {lossy}, which blurs values; expected a PNG to pick value = {value} from")
    if value is not None:
        return _pick(values, palette, value, name, error)
    if palette is not None:
        values = _by_palette(values, palette, name, error)
    if values.ndim == 3:
        raise error(
            f"{name} has the colours {_colors(values)}; expected black and white, or which colour is the object: "
            f'"value": {_first_color(values)}'
        )
    if lossy and values.dtype == np.uint8 and values.max() > 1:
        between = float(((values >= 64) & (values < 192)).mean())
        if between > MOST_BETWEEN:
            raise error(
                f"{name} is a {lossy} with {between:.0%} greys; expected black and white; save it as a hard PNG"
            )
        values = values >= 128
    return as_mask(values, name, error, _advice)


def _read(path: Path, name: str, error: type[RtsegError]) -> tuple[Values, Values | None, str]:
    """The values of a picture, its palette [n, 3] or None, and its format if that is lossy, else ""."""
    from PIL import Image, ImageOps

    expected = "cannot be read as an image ({}); expected a PNG of the frame's size"
    try:
        with Image.open(path) as opened:
            count, kind = getattr(opened, "n_frames", 1), opened.format or ""
            lossy = kind if kind in LOSSY else ""
            if max(opened.size) > MAX_SIDE:
                raise error(f"{name} has {opened.width}x{opened.height} pixels; expected {MAX_SIDE} a side at most")
            if count != 1 and kind != "MPO":
                raise error(f"{name} holds {count} pictures; expected one; save the one of this frame as PNG")
            image = ImageOps.exif_transpose(opened)
            image.load()
            return _values(image, name, error), _palette(image), lossy
    except OSError as e:
        why = e.strerror or " ".join(str(e).split("'")[0].split()) or type(e).__name__
        raise error(f"{name} {expected.format(why.lower())}") from e
    except RtsegError:
        raise
    except Exception as e:  # a decoder may raise anything for a broken file
        raise error(f"{name} {expected.format(' '.join(str(e).split())[:80] or type(e).__name__)}") from e


def _values(image: Any, name: str, error: type[RtsegError]) -> Values:
    """The values of a picture: [H, W] if all colours are grey, else [H, W, 3]."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa", "RGBX"):
        alpha_hw = np.asarray(image.getchannel(image.getbands()[-1]))
        if alpha_hw.min() < 255:
            clear = float((alpha_hw < 255).mean())
            raise error(
                f"{name} has an alpha channel ({clear:.0%} of it is not opaque); expected black and white without one: "
                "save the colours or the alpha alone as a picture"
            )
        image = image.convert("P" if image.mode == "PA" else image.mode[:-1] if image.mode[-1] in "AaX" else "RGB")
    if image.mode == "P" or len(image.getbands()) == 1:
        values_hw = np.asarray(image)
        wide = image.mode == "I" and values_hw.min() >= 0 and values_hw.max() <= 65535  # some 16-bit files
        return values_hw.astype(np.uint16) if wide else values_hw
    values_hwc = np.asarray(image.convert("RGB"))
    grey = bool((values_hwc == values_hwc[..., :1]).all())
    return values_hwc[..., 0] if grey else values_hwc


def _palette(image: Any) -> Values | None:
    """The palette [n, 3] of a picture; None for one without."""
    if image.mode != "P":
        return None
    flat = image.getpalette("RGB") or []
    return np.array(flat, np.uint8).reshape(-1, 3)


def _by_palette(values_hw: Values, palette: Values, name: str, error: type[RtsegError]) -> Values:
    """The indices as ids if index 0 is black; their grey values if the picture uses black and white only."""
    used = np.unique(values_hw)
    colors = _in_color(used[None], palette)[0]
    if all(set(color.tolist()) in ({0}, {255}) for color in colors):
        return _in_color(values_hw, palette)[..., 0]
    if 0 in used and colors[0].any():
        raise error(
            f"{name} has a palette with {colors[0].tolist()} as 0; expected black as the background, or which "
            f'is the object: "value": {next((int(n) for n in used if n), 1)}'
        )
    return values_hw


def _pick(values: Values, palette: Values | None, value: Picked, name: str, error: type[RtsegError]) -> BoolMask:
    """The pixels of one id or colour."""
    if isinstance(value, int):
        if values.ndim == 3:
            raise error(f'{name} has colours; expected a colour to pick: "value": {_first_color(values)}')
        found_hw = values == value
    else:
        colors = values if values.ndim == 3 else _in_color(values, palette)
        found_hw = (colors == np.array(value, np.uint8)).all(axis=2)
    if not found_hw.any():
        present = _colors(values) if values.ndim == 3 else _ids(values)
        shown = value if isinstance(value, int) else list(value)
        raise error(f"{name} has no pixel of value = {shown}; it has {present}")
    return as_mask(found_hw, name, error)


def _in_color(values_hw: Values, palette: Values | None) -> Values:
    if palette is None:
        return np.repeat(values_hw[..., None], 3, axis=2)
    full = np.zeros((256, 3), np.uint8)
    full[: len(palette)] = palette
    return full[values_hw]


def _advice(values_hw: Values) -> str:
    """The end of the error line for a picture that is not black and white: how to save it, or which value to pick."""
    if values_hw.dtype.kind == "f":
        return "; save it as a hard PNG"
    ids = np.unique(values_hw)
    if len(ids) > 64 or (len(ids) > SHOWN and ids[-1] == 255):
        return "; soft edges? threshold them at half, and save a PNG"
    one = next(int(value) for value in ids if value != 0)
    return f'; for one object of an id map say which: "value": {one}'


def _ids(values_hw: Values) -> str:
    ids = np.unique(values_hw)
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return "the values " + ", ".join(str(value) for value in ids[:SHOWN]) + more


def _unique_colors(values_hwc: Values) -> list[list[int]]:
    codes = values_hwc.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found = np.unique(codes)
    return [[int(code) >> 16, int(code) >> 8 & 255, int(code) & 255] for code in found]


def _colors(values_hwc: Values) -> str:
    colors = _unique_colors(values_hwc)
    more = f" and {len(colors) - SHOWN} more" if len(colors) > SHOWN else ""
    return ", ".join(map(str, colors[:SHOWN])) + more


def _first_color(values_hwc: Values) -> list[int]:
    return next(color for color in _unique_colors(values_hwc) if any(color))


def _davis_palette() -> list[int]:
    """The palette of Pascal VOC and DAVIS for ids 0..255, as flat RGB: the bits of the id go to R, G and B in turn."""
    ids = np.arange(256)
    rgb = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            rgb[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in rgb.ravel()]


def write_palette_png(path: Path, id_map_hw: ImageU8) -> None:
    """Write object ids, uint8 [H, W], as a palette PNG like those of DAVIS: a pixel's index is its object's id.

    The rows above and below all objects are compressed once for all frames, in a third of the time for all rows.
    """
    height, width = id_map_hw.shape
    rows = np.flatnonzero(id_map_hw.any(axis=1))
    first, end = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (height, height)
    lines_hw = np.zeros((end - first, 1 + width), np.uint8)  # each row begins with its filter: 0, none
    lines_hw[:, 1:] = id_map_hw[first:end]
    above, lines, below = bytes(first * (1 + width)), lines_hw.tobytes(), bytes((height - end) * (1 + width))
    checksum = zlib.adler32(below, zlib.adler32(lines, zlib.adler32(above)))
    blocks = _deflated_zeros(len(above)) + _deflated(lines) + _deflated_zeros(len(below))
    data = b"\x78\x01" + blocks + b"\x03\x00" + checksum.to_bytes(4, "big")  # between zlib's head and its end
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits a pixel, which are indices
    chunks = ((b"IHDR", header), (b"PLTE", _palette_bytes()), (b"IDAT", data), (b"IEND", b""))
    write_bytes(path, b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _deflated(data: bytes) -> bytes:
    """Compressed so that other blocks may come before and after it. Level 1 is fast, and enough for areas of one id."""
    coder = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush(zlib.Z_FULL_FLUSH)


@lru_cache(maxsize=64)
def _deflated_zeros(count: int) -> bytes:
    return _deflated(bytes(count))


@lru_cache(maxsize=1)
def _palette_bytes() -> bytes:
    return bytes(_davis_palette())
