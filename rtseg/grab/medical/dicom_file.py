"""One DICOM file: what its header says of each of its frames, and their pixels. Only here pydicom reads files."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...base.errors import SourceError

MARK = b"DICM"  # after 128 bytes
# Transfer syntaxes of MPEG-2 (100, 101), H.264 (102 to 106) and HEVC (107, 108), and those with fragments (100.1, ...).
VIDEO = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
INSTALL = "pip install 'rtseg[dicom]'"
CENTIMETRES = 3  # of PhysicalUnitsXDirection of an ultrasound region
# Several frames of one file that are moments have their times in one of these; FrameIncrementPointer says in which.
_TIMES = {0x00181063: "FrameTime", 0x00181065: "FrameTimeVector"}
_RATES = ("CineRate", "RecommendedDisplayFrameRate")
# What pydicom raises for files and pixels that it cannot read.
_FAILURES = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, NotImplementedError,
    struct.error,
)  # fmt: skip

Array = npt.NDArray[Any]


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM files."""
    try:
        with path.open("rb") as file:
            return file.read(128 + len(MARK))[128:] == MARK
    except OSError:  # opening it will raise the error
        return False


def import_pydicom(path: Path) -> Any:
    """pydicom; `SourceError` about `path` if it is not installed."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as e:
        raise SourceError(f"{path}: pydicom, which reads DICOM, is not installed: {INSTALL}") from e
    return pydicom


@contextmanager
def _one_line(path: Path, what: str) -> Iterator[None]:
    """Turn what pydicom raises into a `SourceError`, and keep its warnings to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SourceError:
        raise
    except _FAILURES as e:
        why = " ".join(str(e).split()) or type(e).__name__
        raise SourceError(f"{path}: {what} ({why:.200}); copy it again, or convert it") from e


def end_of_header(file: BinaryIO, path: Path) -> int:
    """The position of the pixels in an open file, before their head; `SourceError` about `path` if there are none."""
    with _one_line(path, "not a readable DICOM file"):
        import_pydicom(path).dcmread(file, stop_before_pixels=True)
        return file.tell()


class DicomFile:
    """A DICOM file. Frames are counted from 0.

    Attributes:
        path: of the file.
        header: the data set without its pixels, a `pydicom.Dataset`.
        count: the number of frames; 0 if it is no image.
    """

    def __init__(self, path: Path) -> None:
        """Read the header; `SourceError` if that fails."""
        self.path, self._pydicom = path, import_pydicom(path)
        with _one_line(path, "not a readable DICOM file"):
            self.header = self._pydicom.dcmread(path, stop_before_pixels=True)
            shape = self.header.get("Rows"), self.header.get("Columns"), self.header.get("BitsAllocated")
            self.count = int(self.header.get("NumberOfFrames") or 1) if all(shape) else 0
        self._iterator: Iterator[Array] = iter(())
        self._next = -1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.header.Columns), int(self.header.Rows)

    @property
    def photometric(self) -> str:
        return str(self.header.get("PhotometricInterpretation", "")).strip().upper()

    @property
    def bits(self) -> int:
        """How many bits of a value are used."""
        return int(self.header.get("BitsStored") or self.header.BitsAllocated)

    @property
    def syntax(self) -> str:
        """The transfer syntax: how the pixels are coded."""
        return str(self.header.file_meta.get("TransferSyntaxUID", ""))

    @property
    def is_video(self) -> bool:
        """Whether its pixels are a video: MPEG-2, H.264 or HEVC."""
        return self.syntax.startswith(VIDEO)

    def text(self, keyword: str) -> str:
        """An element of the header as text; "" if it is missing."""
        return str(self.header.get(keyword) or "").strip()

    def group(self, frame: int, name: str, keyword: str) -> Any:
        """The data set that holds `keyword` of a frame: its functional group `name`, or the header; None if neither."""
        own = self.header.get("PerFrameFunctionalGroupsSequence")
        shared = self.header.get("SharedFunctionalGroupsSequence")
        for holder in (own[frame] if own and frame < len(own) else None, shared[0] if shared else None):
            found = holder.get(name) if holder is not None else None
            if found:
                return found[0]
        return self.header if keyword in self.header else None

    def numbers(self, frame: int, name: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """An element of `count` numbers of a frame; None if it is missing."""
        holder = self.group(frame, name, keyword)
        value = holder.get(keyword) if holder is not None else None
        if value is None or isinstance(value, str) or len(value) != count:
            return None
        return tuple(float(each) for each in value)

    def position(self, frame: int) -> tuple[float, ...] | None:
        """The place of the first pixel, in mm of LPS."""
        return self.numbers(frame, "PlanePositionSequence", "ImagePositionPatient", 3)

    def orientation(self, frame: int) -> tuple[float, ...] | None:
        """The directions of a row and of a column, in LPS."""
        return self.numbers(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)

    @cached_property
    def spacing_mm(self) -> tuple[float, float] | None:
        """The size of a pixel, down and across; None if it is not stated, or not the same everywhere."""
        stated = self.numbers(0, "PixelMeasuresSequence", "PixelSpacing", 2)
        if stated and min(stated) > 0:
            return stated[0], stated[1]
        regions = self.header.get("SequenceOfUltrasoundRegions") or []
        found = {
            (10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX)))
            for region in regions
            if region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == CENTIMETRES
            and region.get("PhysicalDeltaX") and region.get("PhysicalDeltaY")
        }  # fmt: skip
        return found.pop() if len(found) == 1 else None

    def times_ms(self) -> list[float] | None:
        """The time of each frame, from 0; None if the header states none."""
        pointed = self.header.get("FrameIncrementPointer")
        tags = [pointed] if isinstance(pointed, int) else list(pointed or [])
        named = [_TIMES[int(tag)] for tag in tags if int(tag) in _TIMES]
        for keyword in (*named, "FrameTimeVector", "FrameTime", *_RATES):
            value = self.header.get(keyword)
            if keyword == "FrameTimeVector" and value is not None:
                steps = [float(each) for each in np.atleast_1d(value)]
                steps = [0.0, *steps] if len(steps) == self.count - 1 else steps
                if len(steps) == self.count and all(step > 0 for step in steps[1:]):
                    return list(accumulate([0.0, *steps[1:]]))
            elif value and float(value) > 0:
                step = 1000 / float(value) if keyword in _RATES else float(value)
                return [step * frame for frame in range(self.count)]
        return None

    def pixels(self, frame: int) -> Array:
        """The stored values of a frame: [H, W], or RGB [H, W, 3]. Frames in order are read once."""
        with _one_line(self.path, f"picture {frame + 1} cannot be decoded: {self._coding}"):
            if not self._pydicom.uid.UID(self.syntax).is_encapsulated:
                # Not iterated: pydicom 3.0 then takes the second frame of YBR_FULL_422 for RGB.
                return np.asarray(self._pydicom.pixels.pixel_array(self.path, index=frame))
            if frame != self._next:
                # Without indices the frames of a compressed file are found in one pass.
                indices = None if frame == 0 else range(frame, self.count)
                self._iterator = self._pydicom.pixels.iter_pixels(self.path, indices=indices)
            self._next = -1
            values = next(self._iterator, None)
            if values is None:
                raise SourceError(f"{self.path}: ends before picture {frame + 1} of {self.count}; copy it again")
            if frame + 1 < self.count:
                self._next = frame + 1
            else:
                self._iterator = iter(())  # closes the file
            return np.asarray(values)

    @property
    def _coding(self) -> str:
        name = self._pydicom.uid.UID(self.syntax).name if self.syntax else "no transfer syntax"
        return f"{name}, {self.photometric or 'no photometric interpretation'}"

    def modality_values(self, frame: int, stored_hw: Array) -> npt.NDArray[np.float32]:
        """Stored values in the units of the modality, such as Hounsfield units."""
        name, keyword = "PixelValueTransformationSequence", "RescaleSlope"
        holder = self.header if "ModalityLUTSequence" in self.header else self.group(frame, name, keyword)
        if holder is None:
            return np.asarray(stored_hw, np.float32)
        with _one_line(self.path, "its modality LUT cannot be applied"):
            return np.asarray(self._pydicom.pixels.apply_modality_lut(stored_hw, holder), np.float32)

    def lut_values(self, values_hw: Array) -> Array:
        """Values through the VOI LUT of the header, 0 to 1."""
        with _one_line(self.path, "its VOI LUT cannot be applied"):
            lut = self.header.VOILUTSequence[0]
            count, first, bits = (int(each) for each in lut.LUTDescriptor)
            data, count = lut.LUTData, count or 1 << 16
            if isinstance(data, bytes):
                data = np.frombuffer(data, "<u2" if len(data) >= 2 * count else np.uint8)
            table = np.atleast_1d(data)[:count] / (2**bits - 1)
            return np.asarray(table[np.clip(np.rint(values_hw) - first, 0, count - 1).astype(int)])

    def palette_rgb(self, stored_hw: Array) -> npt.NDArray[np.uint8]:
        """Numbers of a palette as 8-bit RGB [H, W, 3]."""
        with _one_line(self.path, "its palette cannot be applied"):
            colors_hwc = self._pydicom.pixels.apply_color_lut(stored_hw, self.header)
            deep = colors_hwc.dtype != np.uint8
            return np.asarray(colors_hwc[..., :3] >> (8 if deep else 0), np.uint8)
