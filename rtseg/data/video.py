"""A user's own recordings: videos or folders of frames, with a map of ids for each annotated frame.

    clip.mp4 and clip_masks/00000.png     by frame number; for one video or many
    clip.mp4 and masks/00000.png          for one video
    clip.mp4 and clip/masks/00000.png     as written by `rtseg segment clip.mp4 --out clip`
    images/a.png and masks/a.png          frames and maps with the same names; also SEQ/images, SEQ/masks

An output folder of `rtseg segment` is such a recording itself (segment_result.py). In a map (a PNG with a palette or
grey values), 0 is the background, and each other number is one object on all frames. If the maps hold only 0 and 255,
the sequence has one object. A frame without a map is not annotated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..base.errors import SourceError
from .dataset import Sequence, Target
from .files import MAPS, PICTURES, files, folders, match_maps
from .frame_reader import VIDEOS, FrameReader, VideoInput, frame_count, frame_size
from .id_maps import IdMaps, size_check
from .lazy_sequence import LazySequence, Listing, image_sequence
from .segment_result import RUN, SegmentResult, numbered

EXPECTED = "clip.mp4 with clip_masks/00000.png (or masks/), or images/ and masks/ of the same names"
DRAWN = "overlay.mp4"  # a video that `rtseg segment` writes; not a source


def matches(path: Path) -> bool:
    return bool(_videos(path)) or bool(_folders_of_frames(path))


def read(path: Path) -> Listing:
    """List every video and folder of frames with maps. Raises `SourceError` if a file is not as expected."""
    reader = FrameReader()
    played = [_of_maps(name, source, maps, reader) for name, (source, maps) in _videos(path).items()]
    return Listing((*played, *(_of_frames(folder.name, folder) for folder in _folders_of_frames(path))))


def _videos(path: Path) -> dict[str, tuple[Path, Path]]:
    """Each video with maps and the folder of its maps, by the sequence's name."""
    if (path / RUN).is_file() and (path / "masks").is_dir():
        return {path.name: (path, path / "masks")}
    videos = [file for file in files(path, VIDEOS) if file.name != DRAWN]
    masked = {}
    for video in videos:
        places = [video.with_name(f"{video.stem}_masks"), video.with_suffix("") / "masks"]
        maps = next((place for place in places if place.is_dir()), None)
        if maps is None and len(videos) == 1 and (path / "masks").is_dir():
            maps = path / "masks"
        if maps is not None:
            masked[video.stem] = (video, maps)
    return masked


def _folders_of_frames(path: Path) -> list[Path]:
    """The folders with images and masks: this one and those in it."""
    return [folder for folder in (path, *folders(path)) if (folder / "images").is_dir() and (folder / "masks").is_dir()]


def _of_frames(name: str, folder: Path) -> Sequence:
    pictures = files(folder / "images", PICTURES)
    if not pictures:
        raise SourceError(f"{folder / 'images'}: holds no images; expected the frames that masks/ annotates")
    ids = IdMaps(match_maps(pictures, files(folder / "masks", MAPS)), size_check(pictures))
    return image_sequence(name, pictures, ids.truth, _target)


def _of_maps(name: str, video: Path, folder: Path, reader: FrameReader) -> Sequence:
    """A sequence of a video and a folder of maps, which `rtseg segment` may have written."""
    if not (folder.parent / RUN).is_file():
        return _of_source(name, video, numbered(files(folder, MAPS)), reader, folder)
    result = SegmentResult(folder.parent)
    source: VideoInput | None = result.video() if video == folder.parent else video
    pictures = [] if source else result.pictures()
    if pictures:
        ids = IdMaps({t: path for t, path in result.maps().items() if t < len(pictures)}, size_check(pictures))
        return image_sequence(name, pictures, ids.truth, _target)
    if source is None:
        raise result.missing()
    return _of_source(name, source, result.maps(), reader, folder, result.count)


def _of_source(
    name: str, source: VideoInput, maps: dict[int, Path], reader: FrameReader, folder: Path, known: int | None = None
) -> Sequence:
    """A sequence of a video with maps by frame; `known` is its number of frames, if that is known."""
    if not maps:
        raise SourceError(f"{folder}: holds no 00000.png; expected a map for each frame that is annotated")

    @lru_cache(maxsize=1)
    def count() -> int:
        frames = known or frame_count(source)
        if max(maps) >= frames:
            raise SourceError(f"{maps[max(maps)]}: {source} has {frames} frames; expected frame numbers as names")
        return frames

    ids = IdMaps(maps, _check(source))

    def targets() -> tuple[Target, ...]:
        return tuple(_target(i) for i in sorted({i for t in maps for i in ids.truth(t) or ()}))

    return LazySequence(name, count, targets, lambda t: reader.image(source, t), ids.truth)


def _check(video: VideoInput) -> Callable[[int, tuple[int, ...], Path], None]:
    size = lru_cache(maxsize=1)(lambda: frame_size(video))
    named = Path(str(video)).name

    def check(t: int, shape: tuple[int, ...], path: Path) -> None:
        if shape != size():
            drawn, shown = (f"{w}x{h}" for h, w in (shape, size()))
            raise SourceError(f"{path}: the mask is {drawn}, the frames of {named} {shown}; expected one size")

    return check


def _target(i: int) -> Target:
    return Target(i, f"object {i}")
