"""The formats by name, and writing them: all checks first, then each format whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.errors import ConfigError, OutputError, did_you_mean
from ...base.files import install_folder, part_folder, sweep, unwritable

if TYPE_CHECKING:
    from .segmented_video import SegmentedVideo

Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]
FOLDER = "formats"  # in the folder of the result


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        module: the file of this package whose `write(video, folder)` writes it. What a user should know, such as what
            the format cannot hold, `write` returns as lines.
        about: what it is, for the help.
        needs: the modules that it imports.
        extra: the extra that installs them.
    """

    module: str
    about: str
    needs: tuple[str, ...] = ()
    extra: str = "formats"

    def write(self, video: SegmentedVideo, folder: Path) -> list[str]:
        """Write a result into an empty folder. Returns lines for the user."""
        write: Callable[[SegmentedVideo, Path], list[str]] = import_module(f".{self.module}", __package__).write
        return write(video, folder)


FORMATS = {
    "coco-video": Format("coco_video", "COCO for video (YouTube-VIS): a track for each object, RLE, exact"),
    "yolo": Format("yolo", "YOLO segmentation (ultralytics): a polygon for each object and frame"),
    "cvat": Format("cvat", "CVAT for video 1.1: exact masks, and polygons as tracks"),
    "label-studio": Format("label_studio", "Label Studio: boxes on the video, exact brush masks on the frames"),
    "supervision": Format("supervision_rows", "supervision: the rows of its CSVSink"),
    "npz": Format("npz_volume", "NumPy: id maps [T,H,W] in files of at most 256 MiB, unpacked"),
    "zarr": Format("zarr_volume", "Zarr: id maps [T,H,W] in chunks", ("zarr",)),
    "nifti": Format("nifti", "NIfTI: id maps, voxel on voxel with a volume", ("nibabel",), "dicom"),
    "dicom-seg": Format("dicom_seg", "DICOM Segmentation of a DICOM source", ("pydicom", "highdicom"), "dicom"),
    "csv": Format("csv_tables", "tables of objects, intervals and totals"),
    "parquet": Format("parquet_tables", "the same tables as Parquet", ("pyarrow",)),
}


def check_formats(names: Sequence[str]) -> list[str]:
    """The names, each once. Raises `ConfigError` for an unknown one, and for a library that is not installed."""
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"format {name!r} is unknown; {did_you_mean(name, FORMATS)}")
        for module in FORMATS[name].needs:
            if find_spec(module) is None:
                how = f"pip install 'rtseg[{FORMATS[name].extra}]'"
                raise ConfigError(f"format {name!r} needs {module}, which is not installed: {how}")
    if not names:
        raise ConfigError(f"no format; expected one or more of: {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def write_formats(
    result: Path,
    names: Sequence[str],
    *,
    incomplete: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = lambda line: None,
) -> list[Path]:
    """Write a result in other programs' formats, to `formats/NAME/` in its folder; what is there is replaced.

    Arguments:
        result: the folder that `rtseg segment` wrote.
        names: of formats, from `FORMATS`.
        incomplete: also of a result that ended early; its frames are whole as far as they go.
        progress: called with the number of frames done, and of all frames, for each format anew.
        say: called with each line for the user.

    Returns:
        The folders, in the order of the names.

    Raises:
        ConfigError: before anything is written: not a complete result, an unknown name, a missing library.
        OutputError: masks.json is damaged, or a format cannot be written; the formats before it are whole.
    """
    from .segmented_video import open_result

    wanted = check_formats(names)
    video = open_result(result, incomplete)
    video.progress = progress
    return [_write_one(video, name, say) for name in wanted]


def _write_one(video: SegmentedVideo, name: str, say: Say) -> Path:
    final = video.folder / FOLDER / name
    try:
        final.parent.mkdir(exist_ok=True)
        sweep(final)
        with part_folder(final) as part:
            for line in FORMATS[name].write(video, part):
                say(f"{name}: {line}")
            install_folder(part, final, durable=False)
    except OSError as e:
        raise unwritable(final, e) from e
    except OutputError as e:
        raise OutputError(f"{final}: {e}") from e
    finally:
        _remove_if_empty(final.parent)
    return final


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
