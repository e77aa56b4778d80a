"""Which files of a folder are frames, and their order, from their names alone.

Names are compared piece by piece, text as text and numbers as numbers: frame10 follows frame9, and t1.5 follows t1.25.
Two numbers with a dot between them are a decimal number, unless a longer fraction in the folder ends with 0 (1.8, 1.9,
1.10 are counters), or more dots follow (2024.01.31).

A folder may hold other images of the same moments: masks, labels, depth. Files whose names differ only in their numbers
are one kind. A kind is left out if another kind has at least half of its numbers, and one of these holds:

- its name is the other name with something appended: `frame_80_endo_mask.png` beside `frame_80_endo.png`;
- its name has a word for a mask, and the other has none: `mask_0001.png` beside `image_0001.png`;
- only its suffix differs: of `0001.jpg` and `0001.png`, the JPEG is the frame.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

# An earlier one is more likely a camera's picture.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Other image and video files, which are not read from a folder.
OTHERS = (".gif", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".apng", ".mpo", ".jfif", ".jpe", ".pgm", ".ppm",
          ".pnm", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".raw", ".dcm", ".psd", ".svg", ".npy", ".npz",
          ".mp4", ".mov", ".avi", ".mkv", ".ts", ".mpg", ".webm")  # fmt: skip
MASK_WORDS = frozenset(("mask", "masks", "label", "labels", "gt", "groundtruth", "annotation", "annotations", "anno",
                        "seg", "segmentation", "watershed", "depth"))  # fmt: skip
MAX_MISSING = 0.1  # of a folder's frames; if more numbers are missing, they were never consecutive
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_DECIMAL = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.]*\d)")
Piece = tuple[Fraction, str]


def natural(path: Path, *, decimals: bool = False) -> list[Piece]:
    """A sort key: frame10 follows frame9; with `decimals`, t1.5 follows t1.25."""
    stem, suffix = (path.stem, path.suffix) if path.suffix[1:2].isalpha() else (path.name, "")
    pieces: list[Piece] = []
    for piece in re.findall(r"\d+(?:\.\d+)*|\D+", stem.lower()):
        numbers = piece.split(".") if piece[0].isdecimal() else []
        if decimals and len(numbers) == 2:
            pieces.append((Fraction(piece), ""))
        elif numbers:
            for number in numbers:
                pieces += [(Fraction(number), ""), (Fraction(-1), ".")]
            pieces.pop()
        else:
            pieces.append((Fraction(-1), piece))
    return [*pieces, (Fraction(-2), suffix.lower())]


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Paths sorted by their names, by the rule above."""
    paths = list(paths)
    fractions = [found[2] for path in paths for found in _DECIMAL.finditer(path.stem)]
    shortest = min(map(len, fractions), default=0)
    counters = any(len(fraction) > shortest and fraction.endswith("0") for fraction in fractions)
    return sorted(paths, key=lambda path: (natural(path, decimals=not counters), path.name))


@dataclass(frozen=True, slots=True)
class Kind:
    """Files whose names differ only in their numbers: `stem` and `suffix` have # for each number."""

    stem: str
    suffix: str
    paths: tuple[Path, ...]
    numbers: frozenset[tuple[str, ...]]

    @property
    def name(self) -> str:
        return self.stem + self.suffix

    @property
    def is_marked(self) -> bool:
        """Whether a word in the name says that these are masks, labels or depth."""
        return not MASK_WORDS.isdisjoint(re.findall(r"[a-z]+", self.stem))

    def belongs_to(self, other: Kind) -> bool:
        """Whether these files are left out beside the frames `other`, by the rules above."""
        shared, marked = len(self.numbers & other.numbers), self.is_marked and not other.is_marked
        least = len(self.numbers) if not marked else min(len(self.numbers), len(other.numbers))
        if not shared or 2 * shared < least:
            return False
        if self.stem == other.stem:
            return SUFFIXES.index(self.suffix) > SUFFIXES.index(other.suffix)
        appended = self.stem.removeprefix(other.stem) if self.stem.startswith(other.stem) else ""
        return marked or (appended[:1] in ("_", "-", ".", " ", "(") and "#" not in appended and appended != "")


def kinds(paths: Iterable[Path]) -> list[Kind]:
    """The kinds of files among these."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        found[_NUMBER.sub("#", path.stem.lower()), path.suffix.lower()].append(path)
    return [
        Kind(stem, suffix, tuple(members), frozenset(_numbers(member) for member in members))
        for (stem, suffix), members in found.items()
    ]


def _numbers(path: Path) -> tuple[str, ...]:
    return tuple(number.lstrip("0") for number in _NUMBER.findall(path.stem))


def frames_in(paths: Sequence[Path]) -> tuple[list[Path], str]:
    """The frames among a folder's files, in order, and what was left out, in words ("" for nothing).

    Hidden files and folders are left out without being mentioned.
    """
    # File managers leave hidden files behind: "._0001.jpg" is not an image.
    seen = [path for path in paths if not path.name.startswith(".") and not path.is_dir()]
    pictures = kinds(path for path in seen if path.suffix.lower() in SUFFIXES)
    matched = [(kind, next((o for o in pictures if kind.belongs_to(o)), None)) for kind in pictures]
    frames = [path for kind, base in matched if base is None for path in kind.paths]
    left = [f"{len(kind.paths)} {kind.name} beside {base.name}" for kind, base in matched if base is not None]
    other: dict[str, int] = defaultdict(int)
    for path in seen:
        if path.suffix.lower() in OTHERS:
            other[path.suffix.lower()] += 1
    left += [f"{count} {suffix}" for suffix, count in sorted(other.items())] if frames else []
    return in_order(frames), ", ".join(left)


def missing_in(frames: Sequence[Path]) -> str:
    """Which numbers are missing among a folder's frames, in words; "" for none.

    Only if the numbers have a constant step with few gaps: at a gap, frames were probably lost.
    """
    found = kinds(frames)
    fields = [[int(number) for number in _NUMBER.findall(path.stem) if number.isdecimal()] for path in frames]
    if len(found) != 1 or len({len(numbers) for numbers in fields}) != 1:
        return ""
    moving = [column for column in zip(*fields, strict=True) if len(set(column)) > 1]
    numbers = sorted(moving[0]) if len(moving) == 1 else []
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(steps, default=0)
    if step < 1 or any(n % step for n in steps):
        return ""
    lost = [n + step * k for n, gap in zip(numbers, steps, strict=False) for k in range(1, gap // step)]
    if not 0 < len(lost) <= MAX_MISSING * len(numbers):
        return ""
    return f"{', '.join(map(str, lost[:5]))}{', ...' if len(lost) > 5 else ''} of {found[0].name}"
