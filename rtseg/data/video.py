"""One's own recordings: videos or folders of frames, and a map of ids for each frame that is annotated.

    clip.mp4 and clip_masks/00000.png     a frame's number; one video or many
    clip.mp4 and masks/00000.png          one video alone
    clip.mp4 and clip/masks/00000.png     what `rtseg segment clip.mp4 --out clip` wrote beside it
    images/a.png and masks/a.png          frames with the names of their maps; or in folders SEQ/images, SEQ/masks

A folder that `rtseg segment` wrote is itself one, too (see segmented.py). In a map (palette or
grey PNG), 0 is the background, and each other number an object, the same throughout; a sequence whose maps hold 0
and 255 alone has one object. A frame without a map is not annotated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..base.errors import SourceError
from .dataset import Sequence, Target
from .files import MAPS, PICTURES, files, folders, pair
from .id_maps import IdMaps, fits
from .lazy import Found, Lazy, of_pictures
from .player import VIDEOS, Played, Player, frame_count, frame_size
from .segmented import RUN, Segmented, numbered

EXPECTED = "clip.mp4 with clip_masks/00000.png (or masks/), or images/ and masks/ of the same names"
DRAWN = "overlay.mp4"  # of `rtseg segment`: a video that is no source


def found(path: Path) -> bool:
    return bool(_videos(path)) or bool(_folders_of_frames(path))


def read(path: Path) -> Found:
    """Every video and folder of frames with maps. `SourceError` where a file is not as expected."""
    player = Player()
    played = [_of_maps(name, source, maps, player) for name, (source, maps) in _videos(path).items()]
    return Found((*played, *(_of_frames(folder.name, folder) for folder in _folders_of_frames(path))))


def _videos(path: Path) -> dict[str, tuple[Path, Path]]:
    """Each video that has maps, and their folder, by name."""
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
    """Folders that hold images and masks: this one, or those in it."""
    return [folder for folder in (path, *folders(path)) if (folder / "images").is_dir() and (folder / "masks").is_dir()]


def _of_frames(name: str, folder: Path) -> Sequence:
    pictures = files(folder / "images", PICTURES)
    if not pictures:
        raise SourceError(f"{folder / 'images'}: holds no pictures; expected the frames that masks/ annotates")
    ids = IdMaps(pair(pictures, files(folder / "masks", MAPS)), fits(pictures))
    return of_pictures(name, pictures, ids.truth, _target)


def _of_maps(name: str, video: Path, folder: Path, player: Player) -> Sequence:
    """A sequence whose maps lie in a folder, by themselves or as segment left them there."""
    if not (folder.parent / RUN).is_file():
        return _of_source(name, video, numbered(files(folder, MAPS)), player, folder)
    result = Segmented(folder.parent)
    source: Played | None = result.video() if video == folder.parent else video
    pictures = [] if source else result.pictures()
    if pictures:
        ids = IdMaps({t: path for t, path in result.maps().items() if t < len(pictures)}, fits(pictures))
        return of_pictures(name, pictures, ids.truth, _target)
    if source is None:
        raise result.missing()
    return _of_source(name, source, result.maps(), player, folder, result.count)


def _of_source(
    name: str, source: Played, maps: dict[int, Path], player: Player, folder: Path, known: int | None = None
) -> Sequence:
    """A sequence whose maps are known by frame; `known` is how many frames it has, where somebody counted them."""
    if not maps:
        raise SourceError(f"{folder}: holds no 00000.png; expected a map for each frame that is annotated")

    @lru_cache(maxsize=1)
    def count() -> int:
        frames = known or frame_count(source)
        if max(maps) >= frames:
            raise SourceError(f"{maps[max(maps)]}: {source} has {frames} frames; expected the number of one for a name")
        return frames

    ids = IdMaps(maps, _check(source))

    def targets() -> tuple[Target, ...]:
        return tuple(_target(i) for i in sorted({i for t in maps for i in ids.truth(t) or ()}))

    return Lazy(name, count, targets, lambda t: player.image(source, t), ids.truth)


def _check(video: Played) -> Callable[[int, tuple[int, ...], Path], None]:
    size = lru_cache(maxsize=1)(lambda: frame_size(video))
    named = Path(str(video)).name

    def check(t: int, shape: tuple[int, ...], path: Path) -> None:
        if shape != size():
            drawn, shown = (f"{w}x{h}" for h, w in (shape, size()))
            raise SourceError(f"{path}: the mask is {drawn}, the frames of {named} {shown}; expected one size")

    return check


def _target(i: int) -> Target:
    return Target(i, f"object {i}")
