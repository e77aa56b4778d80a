"""The result of an evaluation: one row for each object on each annotated frame, and its provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One object on one annotated frame. Distances are in pixels, or in mm if the sequence has a spacing.

    `given`: a prompt gave this frame's mask, so the row is not scored. `clicks`: the clicks on the object on this
    frame; if they corrected it, the figures are those of the corrected mask. There are no rows before an object's first
    prompt. A figure that is not defined on this frame is None: `hd95` if either mask is empty, `surface` if both are
    (if one is, it is 0). If both masks are empty, `dice`, `iou` and `boundary` are 1.
    """

    sequence: str
    object: int
    label: str
    category: str
    frame: int
    given: bool
    pixels: int  # of the frame
    truth_area: int
    mask_area: int
    overlap_area: int
    score: float  # the network's probability that the object is visible
    dice: float
    iou: float  # J
    boundary: float  # F
    hd95: float | None
    surface: float | None  # normalised surface Dice at the tolerance that the settings name
    clicks: int = 0


@dataclass(frozen=True, slots=True)
class ClassRow:
    """All objects of one class on one annotated frame, in pixels, including objects that were never prompted.

    A class without truth and masks on a frame has no row.
    """

    sequence: str
    frame: int
    category: str
    truth_area: int
    mask_area: int
    overlap_area: int


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One object of a volume in three dimensions: HD95 in mm and normalised surface Dice, None where not defined."""

    sequence: str
    object: int
    hd95: float | None
    surface: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One mask: COCO's compressed counts, and the network's probability that the object is visible."""

    counts: bytes
    score: float


@dataclass(slots=True)
class Tracked:
    """The masks, prompts and times that a protocol gives for one sequence.

    `masks`: by frame, then object, from each object's first prompt on. `given`: (frame, object) pairs that are not
    scored, because a prompt gave the mask; see protocols/__init__.py. `prompts`: as entries of a prompt file
    (base/prompt_files.py), a mask being {"size": [h, w], "counts": "..."}. `ms`: the time of each tracked frame,
    in ascending order: of all passes over it, corrections included. `volume`: its frames are slices.
    `group`: as the sequence has it.
    """

    masks: dict[int, dict[int, Prediction]] = field(default_factory=dict)
    given: set[tuple[int, int]] = field(default_factory=set)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    volume: bool = False
    group: str = ""


@dataclass(slots=True)
class Result:
    """An evaluation. `settings` are those that change figures; `made_by`: engine, weights, versions, machine."""

    settings: dict[str, Any]
    made_by: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    classes: list[ClassRow] = field(default_factory=list)
    tracked: dict[str, Tracked] = field(default_factory=dict)  # by sequence
    volumes: list[VolumeRow] = field(default_factory=list)

    def group(self, sequence: str) -> str:
        """The group of a sequence: an operation or a patient; without one, the sequence itself."""
        return (self.tracked[sequence].group if sequence in self.tracked else "") or sequence


def named(object_id: int, label: str) -> str:
    """An object's number and label for display, without repeating the number: `1 grasper`, or `object 1`."""
    label = label.strip() or f"object {object_id}"
    return label if label.split()[-1] == str(object_id) else f"{object_id} {label}"
