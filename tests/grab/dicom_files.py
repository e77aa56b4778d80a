"""DICOM files, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
STUDY, SERIES, FRAME_OF_REFERENCE = "1.2.3.1", "1.2.3.2", "1.2.3.3"


def dicom(
    path: Path, values: npt.NDArray[Any] | list[bytes], photometric: str = "MONOCHROME2", *, stored: int = 8,
    size: tuple[int, int] = (0, 0), syntax: str = ExplicitVRLittleEndian, sop_class: str = ULTRASOUND, **elements: Any,
) -> Path:  # fmt: skip
    """Write a file. `values`: [H, W], [H, W, 3] or with frames in front; or coded frames, of (height, width) `size`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, syntax
    meta.MediaStorageSOPInstanceUID = elements.get("SOPInstanceUID") or pydicom.uid.generate_uid()
    ds = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, SERIES
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "P1", "Doe^Jane", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "1", ""
    ds.ReferringPhysicianName, ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "", "US", 1, 1
    ds.Manufacturer = ""
    ds.PhotometricInterpretation = photometric
    color = photometric.startswith(("RGB", "YBR"))
    ds.SamplesPerPixel = 3 if color else 1
    if color:
        ds.PlanarConfiguration = 0
    if isinstance(values, list):
        ds.Rows, ds.Columns, frames = *size, len(values)
        ds.PixelData, deep = encapsulate(values), stored > 8
        ds["PixelData"].VR = "OB"
    else:
        array, deep = values, values.dtype.itemsize == 2
        frames = len(array) if array.ndim == (4 if color else 3) else 1
        shape = array.shape[-3:-1] if color else array.shape[-2:]
        ds.Rows, ds.Columns = shape if size == (0, 0) else size
        ds.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
        ds["PixelData"].VR = "OW" if deep else "OB"
    ds.BitsAllocated = 16 if deep else 8
    ds.BitsStored, ds.HighBit = stored, stored - 1
    ds.PixelRepresentation = int(not isinstance(values, list) and values.dtype.kind == "i")
    if frames > 1:
        ds.NumberOfFrames = frames
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def item(**elements: Any) -> Dataset:
    """An item of a sequence."""
    found = Dataset()
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def ct(folder: Path, hu_nhw: npt.NDArray[np.int16], step_mm: float = 2.5, **elements: Any) -> list[Path]:
    """A CT series, one file a slice, oblique, with names and numbers in another order than its places."""
    folder.mkdir(exist_ok=True)
    paths = []
    for n, hu_hw in enumerate(hu_nhw):
        rank = (n * 7 + 3) % len(hu_nhw)
        row, column = np.array([1.0, 0, 0]), np.array([0, 0.8, 0.6])
        position = np.array([-10.0, 5, 20]) + n * step_mm * np.cross(row, column)
        given: dict[str, Any] = {
            "Modality": "CT", "InstanceNumber": rank + 1, "RescaleSlope": 1, "RescaleIntercept": -1024,
            "ImagePositionPatient": [round(float(v), 6) for v in position],
            "ImageOrientationPatient": [*row, *column], "PixelSpacing": [0.8, 0.5], "SliceThickness": step_mm,
            "FrameOfReferenceUID": FRAME_OF_REFERENCE, "PositionReferenceIndicator": "",
        }  # fmt: skip
        paths.append(
            dicom(
                folder / f"IM{rank:04}", (hu_hw + 1024).astype(np.uint16), stored=12, sop_class=CT, **given | elements
            )
        )
    return paths
