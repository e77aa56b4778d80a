"""Decodes image files to 8-bit RGB. All 16-bit images of a source are scaled alike, or refused."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...base.account import Account
from ...base.errors import SourceError
from ...base.types import ImageU8
from .display_color import HDR, display_transform
from .image_header import Header, header_of

EXPECTED = "expected PNG, JPEG, BMP, TIFF or WebP"
DEPTHS = (8, 10, 12, 14)  # bit depths of sensors, whose values are often stored in 16 bits without scaling
_SAME = 2  # a profile that changes colours by at most so many levels counts as sRGB


class ImageReader:
    """Reads the image files of one source. `bits`: the used bits of a 16-bit value; None: as the files state."""

    def __init__(self, account: Account, bits: int | None = None) -> None:
        self._account, self._given = account, bits
        self._bits = bits  # of all 16-bit images, once the first was read
        self._most = 0

    def read(self, path: Path, number: int | None = None) -> ImageU8:
        """One picture of a file, uint8 RGB [H, W, 3]; without a number, the only one.

        `SourceError` if it cannot be read.
        """
        data, header = load(path)
        if number is None and len(header.starts) > 1:
            raise SourceError(
                f"{path}: holds {len(header.starts)} pictures; expected one in each file of a folder; split it, "
                "or give it as a source of its own"
            )
        image_hwc = _decoded(path, data, header, header.starts[number or 0])
        if image_hwc.dtype == np.uint8 and self._given not in (None, 8):
            raise SourceError(f"{path}: has 8 bits a value; bits={self._given} is for pictures of 16; leave it out")
        if header.color is not None:
            return self._to_srgb(path, image_hwc, header)
        shallow_hwc = self._to_8_bits(path, image_hwc, header)
        return self._apply_profile(path, data, shallow_hwc) if header.has_icc else shallow_hwc

    def _to_8_bits(self, path: Path, image_hwc: npt.NDArray[Any], header: Header) -> ImageU8:
        if image_hwc.dtype == np.uint16:
            return np.asarray(_table(self._depth(path, image_hwc, header.bits))[image_hwc], np.uint8)
        if image_hwc.dtype == np.uint8:
            return np.asarray(image_hwc, np.uint8)
        low, high = float(image_hwc.min()), float(image_hwc.max())
        if not 0 <= low <= high <= 1:  # also false if a value is NaN
            found = f"from {low:g} to {high:g}" if low <= high else "that are no numbers"
            raise SourceError(f"{path}: floating-point values {found}; expected 0 to 1; save it with 8 or 16 bits")
        self._account.assumed["depth"] = "floating-point values from 0 to 1"
        return np.asarray(np.rint(image_hwc * 255), np.uint8)

    def _depth(self, path: Path, image_hwc: npt.NDArray[np.uint16], declared: int | None) -> int:
        """How many bits a value has: as given, as the file says, or 16; `SourceError` if a value contradicts that."""
        largest = int(image_hwc.max())
        if self._bits is None and largest:
            self._bits = declared if declared and _is_unscaled(image_hwc, declared) else 16
        bits = self._bits or 16
        if largest >> bits:
            how = f"bits={bits}" if self._given else f"the {bits} bits of the pictures before it"
            raise SourceError(
                f"{path}: holds the value {largest}; {how} end at {2**bits - 1}; give bits={_bits_for(largest)}"
            )
        if self._given is None and bits < 16:
            self._account.repaired["depth"] = f"values of {bits} bits, as the files say, to 8"
        elif self._given is None and (declared is None or _is_unscaled(image_hwc, declared)):
            self._note_unused_bits(largest)
        return bits

    def _note_unused_bits(self, largest: int) -> None:
        """Note in the account if no value so far needs the 16 bits that are assumed."""
        self._most = max(largest, self._most)
        looks = next((bits for bits in DEPTHS if 0 < self._most < 2**bits), None)
        if looks:
            text = f"16 bits, although no value is above {2**looks - 1}; if they have {looks}, say --bits {looks}"
            self._account.assumed["depth"] = text
        else:
            self._account.assumed.pop("depth", None)

    def _to_srgb(self, path: Path, image_hwc: npt.NDArray[Any], header: Header) -> ImageU8:
        """Convert colours that are not sRGB, as the file states, to sRGB."""
        assert header.color is not None
        deep_hwc = image_hwc.astype(np.uint16) * 257 if image_hwc.dtype == np.uint8 else image_hwc
        white = 2 ** self._depth(path, deep_hwc, header.bits) - 1 if image_hwc.dtype == np.uint16 else 65535
        toned = ", toned down to an ordinary display's" if header.color.transfer in HDR else ", shown as sRGB"
        self._account.repaired["colours"] = f"{header.color.primaries} with {header.color.transfer}{toned}"
        return display_transform(header.color.primaries, header.color.transfer, 0, white)(deep_hwc)

    def _apply_profile(self, path: Path, data: bytes, image_hwc: ImageU8) -> ImageU8:
        try:
            with _opened(data) as image:
                profile = image.info.get("icc_profile")
        except OSError:  # the pixels are good, only the profile is not
            profile = None
        transform = _transform(profile) if profile else None
        if transform is None:
            return image_hwc
        name, apply = transform
        self._account.repaired["colours"] = f"of the ICC profile {name!r}, shown as sRGB"
        return np.asarray(apply(image_hwc), np.uint8)


def load(path: Path) -> tuple[bytes, Header]:
    """An image file's bytes and header; `SourceError` if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the file's permissions") from e
    header = header_of(data)
    if header is None:
        raise SourceError(f"{path}: not a readable image; {EXPECTED}; copy it again")
    if header.unread:
        raise SourceError(f"{path}: {header.unread}; convert it")
    return data, header


def _decoded(path: Path, data: bytes, header: Header, start: int) -> npt.NDArray[Any]:
    """The picture as stored, RGB [H, W, 3] of 8 or 16 bits, or of floating-point numbers."""
    # OpenCV, not FFmpeg: it reads every TIFF, obeys EXIF orientation, and upsamples JPEG chroma as the readers of
    # datasets do. From memory, because imread pads a JPEG that was cut off with grey and says nothing.
    if header.by_pillow:
        return _by_pillow(path, data, start)
    coded = np.frombuffer(data, np.uint8)[start if header.kind == "JPEG" else 0 :]
    try:
        image = _by_opencv(coded, header, start)
    except cv2.error:  # for example a size that does not fit into memory
        image = None
    if image is None:
        raise SourceError(f"{path}: not a readable image; {EXPECTED}; copy it again")
    return np.asarray(image)


def _by_opencv(coded: ImageU8, header: Header, start: int) -> Any:
    if header.kind != "TIFF":
        return cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH) if coded.size else None
    # Not directly as RGB: OpenCV 5 then returns noise for 16 bits.
    flags = cv2.IMREAD_UNCHANGED if header.is_float else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    found, pages = cv2.imdecodemulti(coded, flags, range=(start, start + 1))
    if not found or not len(pages):
        return None
    page = pages[0].astype(np.float32) if header.is_float else pages[0]
    return cv2.cvtColor(page, cv2.COLOR_GRAY2RGB if page.ndim == 2 else cv2.COLOR_BGR2RGB)


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """An image opened by Pillow; every failure becomes an OSError."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tags that are not used here
            with Image.open(BytesIO(data)) as image:
                yield image
    except (ValueError, SyntaxError, TypeError, KeyError, struct.error, Image.DecompressionBombError) as e:
        raise OSError(str(e)) from e


def _by_pillow(path: Path, data: bytes, page: int) -> ImageU8:
    from PIL import ImageOps

    try:
        with _opened(data) as image:
            image.seek(page)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except OSError as e:
        raise SourceError(f"{path}: not a readable image; {EXPECTED}; copy it again") from e


def _is_unscaled(image_hwc: npt.NDArray[np.uint16], bits: int) -> bool:
    """Whether values of `bits` bits are stored without scaling, not scaled to 16 bits as PNG's standard asks."""
    return not (int(image_hwc.max()) >> bits) and bool((image_hwc & (2 ** (16 - bits) - 1)).any())


def _bits_for(largest: int) -> int:
    return next((bits for bits in (*DEPTHS, 16) if largest < 2**bits), 16)


@lru_cache(maxsize=4)
def _table(bits: int) -> ImageU8:
    """The lookup table from values of `bits` bits to 8 bits."""
    table: ImageU8 = np.rint(np.minimum(np.arange(65536) * (255 / (2**bits - 1)), 255)).astype(np.uint8)
    return table


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[str, Any] | None:
    """A profile's name, and its conversion to sRGB; None if that changes nothing, or is impossible."""
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        name = ImageCms.getProfileDescription(source).strip()
    except (ImageCms.PyCMSError, OSError):  # a profile of CMYK or grey: the decoder has already converted to RGB
        return None

    def apply(image_hwc: ImageU8) -> ImageU8:
        return np.asarray(ImageCms.applyTransform(Image.fromarray(image_hwc), conversion), np.uint8)

    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 36, 3)
    changed = np.abs(apply(np.ascontiguousarray(grid)).astype(int) - grid).max() > _SAME
    return (name, apply) if changed else None


def read_image(path: Path) -> ImageU8:
    """The only picture of a file, uint8 RGB [H, W, 3]; `SourceError` if it holds none, or several."""
    return ImageReader(Account()).read(path)
