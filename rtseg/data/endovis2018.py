"""EndoVis 2018, robotic scenes (Allan et al., arXiv 2001.11190), as released.

    miccai_challenge_2018_release_1/labels.json                       [{"name", "color": [r, g, b], "classid"}, ...]
    miccai_challenge_2018_release_1/seq_1/left_frames/frame000.png
    miccai_challenge_2018_release_1/seq_1/labels/frame000.png         in these colors

In the test release, labels.json holds {"classes": [...]} and colors with alpha; both forms are read. Classes are
tissues and parts of instruments, without the type of the instrument. An object is a class; class 0, background-tissue,
is the background, and so are colors that labels.json does not name. For instrument types see the layout `isinet`.

Sequences 2, 5, 9 and 15 are the split "val" and the others "train", as ISINet divides the 15 training sequences.
"""

from __future__ import annotations

from pathlib import Path

from ..base.errors import SourceError
from ..base.prompt_schema import MAX_ID
from .dataset import Sequence, Target, Truth
from .files import MAPS, PICTURES, check_size, color_number, files, find_folders, match_maps, read_colors, read_json
from .lazy_sequence import Listing, image_sequence

EXPECTED = "seq_1/left_frames, seq_1/labels and labels.json"
VALIDATION = ("seq_2", "seq_5", "seq_9", "seq_15")
TRAINING = tuple(f"seq_{i}" for i in (1, 3, 4, 6, 7, 10, 11, 12, 13, 14, 16))


def matches(path: Path) -> bool:
    return bool(_videos(path))


def read(path: Path) -> Listing:
    """List every annotated video. Raises `SourceError` if a file is not as expected."""
    videos = _videos(path)
    alike = len({video.name for video in videos}) < len(videos)  # the test release has a seq_1, too
    named = {(video.relative_to(path).as_posix() if alike else video.name): video for video in videos}
    splits = {
        split: tuple(name for name, video in named.items() if video.name in own and "test" not in name)
        for split, own in (("train", TRAINING), ("val", VALIDATION))
    }
    sequences = tuple(_sequence(name, video) for name, video in named.items())
    return Listing(sequences, {split: names for split, names in splits.items() if names})


def _videos(path: Path) -> list[Path]:
    return find_folders(path, 3, lambda folder: (folder / "left_frames").is_dir() and (folder / "labels").is_dir())


def _sequence(name: str, video: Path) -> Sequence:
    names, colors = _labels(video)
    pictures = files(video / "left_frames", PICTURES)
    maps = match_maps(pictures, files(video / "labels", MAPS))

    def truth(t: int) -> Truth | None:
        if t not in maps:
            return None
        color_hw = read_colors(maps[t])
        check_size(color_hw.shape, maps[t], pictures[t])
        masks = {i: color_hw == color for i, color in colors.items()}
        return {i: mask_hw for i, mask_hw in masks.items() if mask_hw.any()}

    return image_sequence(name, pictures, truth, lambda i: Target(i, names[i], names[i]))


def _labels(video: Path) -> tuple[dict[int, str], dict[int, int]]:
    """Names and colors of the classes, from the nearest labels.json above a video."""
    file = next((above / "labels.json" for above in video.parents if (above / "labels.json").is_file()), None)
    if file is None:
        raise SourceError(f"{video}: no labels.json in a folder above it; expected that of its release")
    rows = read_json(file, dict, list)
    names, colors = {}, {}
    try:
        for row in rows["classes"] if isinstance(rows, dict) else rows:
            names[int(row["classid"])] = str(row["name"])
            colors[int(row["classid"])] = color_number(row["color"])
    except (KeyError, ValueError, TypeError) as e:
        raise SourceError(f"{file}: not a list of name, color and classid ({e!r}); copy it again") from e
    wrong = [i for i in names if not 0 <= i <= MAX_ID]
    if wrong:
        raise SourceError(f"{file}: class {wrong[0]}; expected 0 to {MAX_ID}")
    return names, {i: color for i, color in colors.items() if i}
