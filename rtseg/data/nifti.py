"""Volumes in NIfTI with their labels: slices as frames, modalities as channels.

    imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json    nnU-Net: one file for each modality (four digits)
    imagesTr/CASE.nii.gz, labelsTr/CASE.nii.gz, dataset.json         Medical Decathlon: 3-D, or 4-D, modalities last
    image.nii.gz, label.nii.gz                                       or in folders CASE/; also image_0000.nii.gz, ...

nnU-Net: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md; Decathlon: medicaldecathlon.com. Names of labels
are those in dataset.json, in either of its two forms; nnU-Net's label `ignore` counts as background. An object is a
label, and a sequence is a case.

Volumes are reoriented to LPS (columns to the patient's left, rows to the back, slices upward), whatever the axes of the
file. They are cut across the axis with the largest voxel size, axially if several are equal; sagittal and coronal
slices have the head up. `spacing_mm` is that of the file. Channels are the first three modalities, each in its window
(grab/medical/window.py); fewer are repeated, and a log line names those left out. The layout "nifti:lung" sets one
window for all modalities, "nifti:3,0,1" sets those that become red, green and blue, counted from 0 as in nnU-Net's file
names, and "nifti:percentile:3,0,1" sets both.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import ConfigError, SourceError
from ..base.prompt_schema import MAX_ID
from ..base.types import ImageU8
from ..grab.medical.nifti_file import Header, Volume, load_volume, read_header
from ..grab.medical.slices import CHANNELS, Slices
from ..grab.medical.window import check_window
from .dataset import Sequence, Target, Truth
from .files import files, folders, masks_by_id, read_json
from .lazy_sequence import LazySequence, Listing

EXPECTED = "imagesTr/, labelsTr/ and dataset.json; or image.nii.gz with label.nii.gz, also in folders"
ENDINGS = (".nii.gz", ".nii")
CHOICE = re.compile(r"\d+(,\d+){,2}")
CACHED = CHANNELS + 1  # volumes in memory: the modalities and the labels of one case

log = logging.getLogger("rtseg.data")


@dataclass(frozen=True, slots=True)
class Options:
    """The options after "nifti:" in a layout: one window for all modalities, and the modalities to show.

    The defaults "" and () let each modality decide, and show the first three.
    """

    window: str = ""
    shown: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Options:
        """Parse options. Raises `ConfigError` for an unknown window, and for other than one to three modalities."""
        words = text.split(":") if text else []
        choices = [word for word in words if word[:1].isdecimal()]
        windows = [word for word in words if word not in choices]
        if len(choices) > 1 or len(windows) > 1 or not all(map(CHOICE.fullmatch, choices)):
            raise ConfigError(
                f"layout 'nifti:{text}': expected a window, one to three modalities such as 3,0,1, or WINDOW:3,0,1"
            )
        check_window("".join(windows))
        return cls("".join(windows), tuple(int(n) for choice in choices for n in choice.split(",")))


@dataclass(frozen=True, slots=True)
class Files:
    """One case: its modalities and its labels."""

    name: str
    images: tuple[Path, ...]
    label: Path


def matches(path: Path) -> bool:
    return (path / "imagesTr").is_dir() or bool(_loose(path))


def read(path: Path, options: str = "") -> Listing:
    """List every case with labels. `ConfigError` for an unknown option; `SourceError` if a file is not as expected."""
    wanted = Options.parse(options)
    about = path / "dataset.json"
    try:
        content = read_json(about, dict) if about.is_file() else {}
        names, modalities = _names(content), _modalities(content)
    except (ValueError, TypeError, AttributeError) as e:
        raise SourceError(f"{about}: its labels or modalities are not as nnU-Net's ({e!r}); correct it") from e
    load = lru_cache(maxsize=CACHED)(load_volume)
    found = _trained(path) if (path / "imagesTr").is_dir() else _loose(path)
    cases = [Case(case, load, wanted, modalities) for case in found]
    if found and not wanted.shown:
        _log_omitted(path, Case(found[0], load, wanted, modalities), modalities)
    return Listing(tuple(_sequence(case, names) for case in cases))


def _log_omitted(path: Path, case: Case, names: list[str]) -> None:
    every: list[tuple[Path, int]] = []
    with suppress(SourceError):  # a file that cannot be read is an error when a sequence needs it
        every = case.modalities
    omitted = range(CHANNELS, len(every))
    if omitted:
        named = ", ".join(f"{n} ({names[n]})" if n < len(names) else str(n) for n in omitted)
        log.warning(
            "%s: %d modalities; three are shown, and %s left out; choose others with a layout such as nifti:%d,0,1",
            path,
            len(every),
            named,
            omitted[0],
        )


def _trained(path: Path) -> list[Files]:
    """The cases of imagesTr and labelsTr."""
    images: dict[str, list[Path]] = {}
    for file in files(path / "imagesTr", ENDINGS):
        for stem in {_stem(file), re.sub(r"_\d{4}$", "", _stem(file))}:
            images.setdefault(stem, []).append(file)
    labels = files(path / "labelsTr", ENDINGS)
    for label in labels:
        if _stem(label) not in images:
            raise SourceError(
                f"{label}: imagesTr/{_stem(label)}_0000.nii.gz is missing; expected an image for each label"
            )
    return [Files(_stem(label), tuple(images[_stem(label)]), label) for label in labels]


def _loose(path: Path) -> list[Files]:
    """The cases of folders with images and labels: this folder and those in it."""
    cases = []
    for folder in (path, *folders(path)):
        labels = [folder / f"label{ending}" for ending in ENDINGS if (folder / f"label{ending}").is_file()]
        images = [file for file in files(folder, ENDINGS) if file.name.startswith("image")] if labels else []
        if images:
            cases.append(Files(folder.name, tuple(images), labels[0]))
    return cases


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _names(about: Mapping[str, Any]) -> dict[int, str]:
    """The labels' names, from {"1": "liver"} (Decathlon, nnU-Net 1) or {"liver": 1} (nnU-Net 2)."""
    pairs = [(key, value) if str(key).isdecimal() else (value, key) for key, value in about.get("labels", {}).items()]
    return {int(number): str(name) for number, name in pairs if not isinstance(number, list)}


def _modalities(about: Mapping[str, Any]) -> list[str]:
    """The name of each modality in dataset.json; empty if it names none."""
    named = about.get("channel_names") or about.get("modality") or {}
    return [str(named[key]) for key in sorted(named, key=int)]


def _sequence(case: Case, names: Mapping[int, str]) -> Sequence:
    ignored = {number for number, name in names.items() if name == "ignore"}

    def truth(t: int) -> Truth:
        return {i: mask_hw for i, mask_hw in masks_by_id(case.labels(t)).items() if i not in ignored}

    def targets() -> tuple[Target, ...]:
        shown = sorted({i for t in range(case.count) for i in truth(t)})
        return tuple(Target(i, names.get(i, f"label {i}"), names.get(i, f"label {i}")) for i in shown)

    name, spacing = case.files.name, lambda: case.spacing_mm
    return LazySequence(
        name, lambda: case.count, targets, case.image, truth, spacing, volume=True, slice_mm=lambda: case.slice_mm
    )


class Case:
    """One case. Headers are read when first needed, and voxels by `load`, which caches a few volumes."""

    def __init__(self, case: Files, load: Callable[[Path], Volume], options: Options, names: list[str]) -> None:
        self.files, self._load, self._options, self._names = case, load, options, names

    @cached_property
    def _header(self) -> Header:
        label = read_header(self.files.label)
        if label.modalities != 1:
            raise SourceError(f"{self.files.label}: 4-D; expected one label for each voxel")
        return label

    @cached_property
    def modalities(self) -> list[tuple[Path, int]]:
        """The file of each modality, and its index in the file. `SourceError` if its grid is not that of the labels."""
        every = []
        for path in self.files.images:
            image, label = read_header(path), self._header
            if image.shape != label.shape or not np.allclose(image.spacing_mm, label.spacing_mm, rtol=0.01):
                raise SourceError(f"{path}: {_size(image)}, its labels {_size(label)}; expected the same grid")
            every += [(path, modality) for modality in range(image.modalities)]
        return every

    @cached_property
    def _shown(self) -> list[int]:
        """The indices of the modalities to show."""
        shown, count = self._options.shown, len(self.modalities)
        if shown and max(shown) >= count:
            raise ConfigError(f"{self.files.images[0]}: no modality {max(shown)}; expected 0 to {count - 1}")
        return list(shown or range(min(CHANNELS, count)))

    @property
    def count(self) -> int:
        return self._header.shape[self._header.axis]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """The size of a pixel, down and across."""
        return self._header.pixel_mm(self._header.axis)

    @property
    def slice_mm(self) -> float:
        return self._header.spacing_mm[self._header.axis]

    @cached_property
    def _slices(self) -> Slices:
        known = {n: name.upper().startswith("CT") for n, name in enumerate(self._names)}
        parts = [(*self.modalities[n], known.get(n)) for n in self._shown]
        return Slices(self._load, parts, self._header.axis, self._options.window)

    def image(self, t: int) -> ImageU8:
        """Slice t, uint8 [H, W, 3]."""
        return self._slices.image(t)

    def labels(self, t: int) -> ImageU8:
        """The labels of slice t, uint8 [H, W]. Raises `SourceError` unless they are whole numbers from 0 to 255."""
        values_hw = self._load(self.files.label).slice(t, self._header.axis)
        labels_hw = np.clip(values_hw, 0, MAX_ID).astype(np.uint8)
        if (labels_hw != values_hw).any():
            wrong = float(values_hw[labels_hw != values_hw][0])
            raise SourceError(f"{self.files.label}: label {wrong:g}; expected whole numbers from 0 to {MAX_ID}")
        return labels_hw


def _size(header: Header) -> str:
    grid, spacing = "x".join(map(str, header.shape)), "x".join(f"{mm:.3g}" for mm in header.spacing_mm)
    return f"{grid} voxels of {spacing} mm"
