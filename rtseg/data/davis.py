"""DAVIS's layout, and the data sets that follow it: YouTube-VOS, MOSE, LVOS, and EndoVis as SurgSAM-2 re-annotated it.

    JPEGImages/[480p/]SEQ/00000.jpg      the frames; also PNG
    Annotations/[480p/]SEQ/00000.png     a map of ids; a frame without one is not annotated
    ImageSets/2017/val.txt               names of sequences: the split "2017/val", or "val" if only one year has it

or `train/`, `valid/`, `test/`, each holding the first two, whose sequences are then called "valid/SEQ".

- DAVIS (davischallenge.org/davis2017/code.html): a palette's index is the object. 255 is "void", DAVIS's ignore label
  for undecided pixels. It counts as background here, as in the published results: davis2017-evaluation turns 255 into 0
  when it loads a map, and excludes no pixels from J and F in the semi-supervised task. In the unsupervised task it
  does, with other maps (`Annotations_unsupervised`), which are not read here. (hkchengrex/vos-benchmark has no ignore
  label: 255 is one more object.) DAVIS 2016 has one object, drawn as 255. The first map of a sequence that is not empty
  tells which of the two it is.
- YouTube-VOS (youtube-vos.org/dataset/vos): `meta.json` holds {"videos": {SEQ: {"objects": {"1": {"category": ...}}}}}.
  Its valid and test splits annotate an object only where it first appears, so they cannot be scored. Every fifth frame
  is annotated. `train/` holds only those; `train_all_frames/JPEGImages`, next to it, holds all frames. To run on every
  frame, open `train_all_frames` itself: its maps are those of `train/Annotations`, one or two folders up. If both are
  opened together, `train/` is used.
- VOS-Endovis17 and 18 (github.com/jinlab-imvr/Surgical-SAM-2): ids are instances, the same throughout a sequence.
  `valid/VOS/Annotations_vos_instrument/SEQ` holds the masks that its authors prompt with. They score only the objects
  in these masks; so does this reader. `Meta/SEQ.json`, if present (Ref-Endovis17 and 18 of ReSurgSAM2), names each
  object's instrument type: {"info": {"category": {"2": "bipolar forceps"}}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import SourceError
from .dataset import Sequence, Target
from .files import MAPS, PICTURES, files, folders, masks_by_id, match_maps, read_json
from .id_maps import IdMaps, read_ids, size_check
from .lazy_sequence import Listing, image_sequence

EXPECTED = (
    "JPEGImages/SEQ/00000.jpg and Annotations/SEQ/00000.png, or train/ and valid/ that hold these, "
    "or train_all_frames/JPEGImages beside train/Annotations"
)
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
SPLITS = ("train", "valid", "val", "test")
WHOLE = "_all_frames"  # suffix of the folder that holds all frames of a split
PROMPTS = "VOS/Annotations_vos_instrument"


@dataclass(frozen=True, slots=True)
class Root:
    """The folders that hold JPEGImages, and Annotations with their metadata: one folder, except for `*_all_frames`."""

    pictures: Path
    maps: Path

    def exists(self) -> bool:
        return (self.pictures / "JPEGImages").is_dir() and (self.maps / "Annotations").is_dir()

    def places(self) -> tuple[Path, Path]:
        """The folders of sequences, of their pictures and of their maps."""
        images, maps = self.pictures / "JPEGImages", self.maps / "Annotations"
        resolution = next((name for name in RESOLUTIONS if (images / name).is_dir() and (maps / name).is_dir()), "")
        return images / resolution, maps / resolution


def matches(path: Path) -> bool:
    return bool(_roots(path))


def read(path: Path) -> Listing:
    """List every sequence with a map. Raises `SourceError` if a file is not as expected."""
    roots = _roots(path)
    sequences = [sequence for prefix, root in roots.items() for sequence in _read(root, prefix)]
    there = [f"{prefix}{folder.name}" for prefix, root in roots.items() for folder in folders(root.places()[0])]
    annotated = {sequence.name for sequence in sequences}
    unannotated = tuple(name for name in there if name not in annotated)
    return Listing(tuple(sequences), _image_sets(path / "ImageSets"), unannotated)


def _roots(path: Path) -> dict[str, Root]:
    """The folders of images and maps, by the prefix of their sequences' names."""
    own = [Root(path, path)]
    if path.name.endswith(WHOLE):
        own += [Root(path, place / path.name.removesuffix(WHOLE)) for place in path.parents[:2]]
    here = next((root for root in own if root.exists()), None)
    if here is not None:
        return {"": here}
    splits = {f"{name}/": Root(path / name, path / name) for name in SPLITS}
    whole = {f"{name}{WHOLE}/": Root(path / f"{name}{WHOLE}", path / name) for name in SPLITS}
    found = {prefix: root for prefix, root in splits.items() if root.exists()}
    maps = {root.maps for root in found.values()}
    return {**found, **{prefix: root for prefix, root in whole.items() if root.exists() and root.maps not in maps}}


def _read(root: Root, prefix: str) -> list[Sequence]:
    images, maps = root.places()
    about = root.maps / "meta.json"
    meta = read_json(about, dict).get("videos", {}) if about.is_file() else {}
    annotated = [(folder, files(folder, MAPS)) for folder in folders(maps)]
    sequences = [
        _sequence(root.maps, prefix, images / folder.name, drawn, meta) for folder, drawn in annotated if drawn
    ]
    if not sequences:
        raise SourceError(f"{maps}: holds no SEQ/00000.png; expected a folder of maps for each sequence")
    return sequences


def _sequence(root: Path, prefix: str, images: Path, maps: list[Path], meta: Mapping[str, Any]) -> Sequence:
    name, pictures = images.name, files(images, PICTURES)
    if not pictures:
        raise SourceError(f"{images}: holds no images; expected the frames that {maps[0].parent} annotates")
    categories = _categories(root, name, meta)
    wanted = frozenset(categories) if name in meta else _prompted(root / PROMPTS / name)
    ids = IdMaps(match_maps(pictures, maps), size_check(pictures), ignore_255=True, wanted=wanted)
    return image_sequence(f"{prefix}{name}", pictures, ids.truth, lambda i: _target(i, categories.get(i, "")))


def _target(i: int, category: str) -> Target:
    return Target(i, f"{category} {i}" if category else f"object {i}", category)


def _categories(root: Path, name: str, meta: Mapping[str, Any]) -> dict[int, str]:
    """The category of each object, if the data set has it."""
    file = root / "meta.json" if name in meta else root / "Meta" / f"{name}.json"
    if not file.is_file():
        return {}
    try:
        if name in meta:
            return {int(i): str(about.get("category", "")) for i, about in meta[name]["objects"].items()}
        return {int(i): str(category) for i, category in read_json(file, dict)["info"]["category"].items()}
    except (KeyError, ValueError, AttributeError, TypeError) as e:
        raise SourceError(f"{file}: does not describe the objects of {name} as expected ({e!r}); copy it again") from e


def _prompted(folder: Path) -> frozenset[int] | None:
    """The ids in the data set's own mask prompts; None if it has none."""
    maps = files(folder, MAPS)
    return frozenset(i for path in maps for i in masks_by_id(read_ids(path))) if maps else None


def _image_sets(folder: Path) -> dict[str, tuple[str, ...]]:
    """The splits in ImageSets: "2017/val", and also "val" if all splits of that name are equal."""
    splits: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder.glob("**/*.txt")):
        lines = [line.split()[0] for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
        # DAVIS 2016 has a line for each frame: "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png".
        names = tuple(dict.fromkeys(Path(line).parent.name if "/" in line else line for line in lines))
        splits[file.relative_to(folder).with_suffix("").as_posix()] = names
    for short in {Path(name).name for name in splits}:
        same = {names for name, names in splits.items() if Path(name).name == short}
        if len(same) == 1:
            splits[short] = same.pop()
    return splits
