"""`dicom-seg`: a DICOM Segmentation (`segmentation.dcm`) of a DICOM source: a binary segment for each object, exact.

It belongs to the patient, the study and the frame of reference of the source, and each of its frames refers to the
image that was segmented. So the source is read again, without its pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import OutputError, RtsegError
from ...build.doctor import versions
from ...grab.medical.dicom_series import Series, read_series
from ...grab.medical.dicom_source import dicom_files
from .segmented_video import SegmentedVideo, TrackedObject

FILE = "segmentation.dcm"
MOST = 4 << 30  # bytes of masks in memory
SERIES_NUMBER = 1000
# What a Segmentation takes over from its source, and that must be there, at least empty.
NEEDED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
Masks = np.ndarray[Any, np.dtype[np.uint8]]


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the file. Raises `OutputError` if the source is no DICOM, is gone, or people in it are not to be known."""
    series = _series(video)
    images = [image for image, _ in series.images]
    size = len(series.images) * video.height * video.width * len(video.objects)
    if size > MOST:
        raise OutputError(f"{size >> 30} GiB of masks; expected at most {MOST >> 30}; segment fewer objects at once")
    masks_nhws, lines = _masks(video, len(series.images))
    if len(images) > 1 and "FrameOfReferenceUID" not in images[0].header:
        raise OutputError(
            "its source has no frame of reference, as most ultrasound and endoscopy; a DICOM Segmentation of several "
            "images needs one; choose another format, such as coco-video"
        )
    headers = [_complete(image.header) for image in dict.fromkeys(images)]
    if len(headers) == 1:  # the frames of one file lie in its own order
        stored = np.zeros_like(masks_nhws)
        stored[[frame for _, frame in series.images]] = masks_nhws
        masks_nhws = stored
    seen = [n for n in range(len(video.objects)) if masks_nhws[..., n].any()]
    if not seen:
        raise OutputError("no object is visible on any image; a DICOM Segmentation cannot be empty")
    unseen = [each.name for n, each in enumerate(video.objects) if n not in seen]
    lines += [f"objects that are nowhere visible were left out: {', '.join(unseen)}"] if unseen else []
    document = _segmentation(headers, masks_nhws[..., seen], [video.objects[n] for n in seen])
    document.save_as(folder / FILE)
    return lines


def _series(video: SegmentedVideo) -> Series:
    """The images of the source. Raises `OutputError` if they are not those that were segmented."""
    run = video.run
    if (run.get("geometry") or {}).get("kind") != "dicom":
        raise OutputError("its source is no DICOM image; expected one, to which a DICOM Segmentation refers")
    if run.get("deidentified"):
        raise OutputError("is de-identified, and a DICOM Segmentation names the patient; choose another format")
    paths: list[Path] = []
    for file in run.get("files") or []:
        path = Path(file["path"])
        changed = path.is_file() and path.stat().st_size != file.get("bytes")
        if not path.exists() or changed:
            found = "another file now" if changed else "gone"
            raise OutputError(f"its source {file['uri']} is {found}; a DICOM Segmentation refers to it; put it back")
        paths += dicom_files(path) if path.is_dir() else [path]
    try:
        series = read_series(paths, str(run.get("source")))
    except RtsegError as e:
        raise OutputError(str(e)) from e
    if series.images[0][0].size != (video.width, video.height):
        raise OutputError("its source has another size than when it was segmented; put it back")
    return series


def _masks(video: SegmentedVideo, count: int) -> tuple[Masks, list[str]]:
    """The masks, uint8 [image, H, W, object], and lines for the user."""
    masks_nhws = np.zeros((count, video.height, video.width, len(video.objects)), np.uint8)
    columns = {each.id: n for n, each in enumerate(video.objects)}
    for frame in video.frames():
        if frame.seq >= count:
            raise OutputError(f"has frame {frame.seq}, and its source {count} images; put the source back")
        for each in frame.seen:
            masks_nhws[frame.seq, ..., columns[each.id]] = each.mask()
    missing = count - video.count
    return masks_nhws, [f"{missing} images were not segmented"] if missing else []


def _complete(header: Any) -> Any:
    """A header, with empty elements where highdicom needs one."""
    for keyword in NEEDED:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _segmentation(headers: Sequence[Any], masks_nhws: Masks, objects: Sequence[TrackedObject]) -> Any:
    """The data set. Its identifiers are made of its content, so that the same result has the same."""
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    about = [str(header.SOPInstanceUID) for header in headers] + [each.name for each in objects]
    algorithm = hd.AlgorithmIdentificationSequence("rtseg", codes.DCM.ArtificialIntelligence, versions()["rtseg"])
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=n + 1, segment_label=each.name[:64], segmented_property_category=codes.SCT.PhysicalObject,
            segmented_property_type=hd.sr.CodedConcept(f"object-{each.id}", "99RTSEG", each.label[:64]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC, algorithm_identification=algorithm,
            tracking_uid=generate_uid(entropy_srcs=[*about, str(each.id)]), tracking_id=each.name[:64],
        )
        for n, each in enumerate(objects)
    ]  # fmt: skip
    content = [*about, sha256(np.packbits(masks_nhws).tobytes()).hexdigest()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hd.seg.Segmentation(
                source_images=list(headers), pixel_array=masks_nhws,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY, segment_descriptions=descriptions,
                series_instance_uid=generate_uid(entropy_srcs=[*content, "series"]), series_number=SERIES_NUMBER,
                sop_instance_uid=generate_uid(entropy_srcs=content), instance_number=1, manufacturer="rtseg",
                manufacturer_model_name="rtseg segment", software_versions=versions()["rtseg"],
                device_serial_number="0", content_label="SEGMENTATION", series_description="rtseg segmentation",
            )  # fmt: skip
    except (ValueError, TypeError, AttributeError, KeyError) as e:
        why = " ".join(str(e).split())
        raise OutputError(f"the source does not allow a DICOM Segmentation ({why:.200}); choose another format") from e
