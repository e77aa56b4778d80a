"""One's own recordings: videos or folders of frames, and a map of ids for each frame that is annotated.

    clip.mp4 and clip_masks/00000.png     a frame's number; one video or many
    clip.mp4 and masks/00000.png          one video alone
    clip.mp4 and clip/masks/00000.png     what `rtseg segment clip.mp4 --out clip` wrote beside it
    images/a.png and masks/a.png          frames with the names of their maps; or in folders SEQ/images, SEQ/masks

A folder that `rtseg segment` wrote is itself one, too: its run.json says where the video is. In a map (palette or
grey PNG), 0 is the background, and each other number an object, the same throughout; a sequence whose maps hold 0
and 255 alone has one object. A frame without a map is not annotated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ...errors import SourceError
from ..dataset import Sequence, Target
from .files import MAPS, PICTURES, files, folders, frames, pair, read_json
from .id_maps import IdMaps, fits
from .lazy import Found, Lazy, of_pictures
from .player import VIDEOS, Player, frame_count, frame_size

EXPECTED = "clip.mp4 with clip_masks/00000.png (or masks/), or images/ and masks/ of the same names"
RUN, DRAWN = "run.json", "overlay.mp4"  # of `rtseg segment`: what it did, and a video that is no source


def found(path: Path) -> bool:
    return bool(_videos(path)) or bool(_folders_of_frames(path))


def read(path: Path) -> Found:
    """Every video and folder of frames with maps. `SourceError` where a file is not as expected."""
    player = Player()
    played = [_of_source(name, source, maps, player) for name, (source, maps) in _videos(path).items()]
    return Found((*played, *(_of_frames(folder.name, folder) for folder in _folders_of_frames(path))))


def _videos(path: Path) -> dict[str, tuple[Path, Path]]:
    """Each video that has maps, and their folder, by name."""
    if (path / RUN).is_file() and (path / "masks").is_dir():
        return {path.name: (_source(path), path / "masks")}
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


def _source(run: Path) -> Path:
    """What `rtseg segment` read, by its run.json; or a file or folder of that name beside its result."""
    source = Path(str(read_json(run / RUN, dict).get("source", "")))
    places = [place for place in (source, run.parent / source.name) if place.exists()]
    if not places:
        raise SourceError(f"{run / RUN}: there is no {str(source)!r}; put what was segmented beside {run.name}/")
    return places[0]


def _folders_of_frames(path: Path) -> list[Path]:
    """Folders that hold images and masks: this one, or those in it."""
    return [folder for folder in (path, *folders(path)) if (folder / "images").is_dir() and (folder / "masks").is_dir()]


def _of_frames(name: str, folder: Path) -> Sequence:
    pictures = files(folder / "images", PICTURES)
    if not pictures:
        raise SourceError(f"{folder / 'images'}: holds no pictures; expected the frames that masks/ annotates")
    ids = IdMaps(pair(pictures, files(folder / "masks", MAPS)), fits(pictures))
    return of_pictures(name, pictures, ids.truth, _target)


def _of_source(name: str, source: Path, folder: Path, player: Player) -> Sequence:
    """A sequence whose maps are called by the numbers of the frames."""
    maps = {_number(path): path for path in files(folder, MAPS)}
    if not maps:
        raise SourceError(f"{folder}: holds no 00000.png; expected a map for each frame that is annotated")
    pictures = frames(source)  # none for a video

    @lru_cache(maxsize=1)
    def count() -> int:
        number = len(pictures) or frame_count(source)
        if max(maps) >= number:
            raise SourceError(f"{maps[max(maps)]}: {source} has {number} frames; expected the number of one for a name")
        return number

    ids = IdMaps(maps, fits(pictures) if pictures else _check(source))
    if pictures and count():
        return of_pictures(name, pictures, ids.truth, _target)

    def targets() -> tuple[Target, ...]:
        return tuple(_target(i) for i in sorted({i for t in maps for i in ids.truth(t) or ()}))

    return Lazy(name, count, targets, lambda t: player.image(source, t), ids.truth)


def _number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise SourceError(f"{path}: expected the number of a frame for a name, like 00000.png")
    return int(path.stem)


def _check(video: Path) -> Callable[[int, tuple[int, ...], Path], None]:
    size = lru_cache(maxsize=1)(lambda: frame_size(video))

    def check(t: int, shape: tuple[int, ...], path: Path) -> None:
        if shape != size():
            drawn, shown = (f"{w}x{h}" for h, w in (shape, size()))
            raise SourceError(f"{path}: the mask is {drawn}, the frames of {video.name} {shown}; expected one size")

    return check


def _target(i: int) -> Target:
    return Target(i, f"object {i}")
