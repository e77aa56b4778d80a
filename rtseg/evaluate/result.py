"""What an evaluation found: one row for each object on each annotated frame, and what made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One object on one annotated frame. Distances are in pixels, or in mm where the sequence knows its spacing.

    `given`: this frame's mask was given by the prompt, so it is no figure of the network's, and counts nowhere.
    `clicks` were made on the object on this frame; where they corrected it the figures are those of the mask after
    them. Rows from before an object's first prompt do not exist. A figure that is not defined on this frame is None:
    `hd95` where either mask is empty, `surface` where both are (where one is, it is 0). Where the object is absent and
    nothing is drawn, `dice`, `iou` and `boundary` are 1.
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
    """All objects of one class on one annotated frame, in pixels, those that were never prompted included.

    Classes that neither truth nor masks have: no row.
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
    """What a protocol made of one sequence.

    `masks`: by frame, then object, from each object's first prompt on. `given`: (frame, object) pairs that count
    nowhere, because the prompt gave the mask; see protocols/__init__.py. `prompts`: as entries of a prompt file
    (base/prompt_files.py), a mask being {"size": [h, w], "counts": "..."}. `ms`: the time of each frame that was
    tracked, ascending: of all passes over it and all looks at its corrections. `volume`: its frames are slices.
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
    """An evaluation. `settings` is what was asked, where it matters; `made_by` engine, weights, versions, machine."""

    settings: dict[str, Any]
    made_by: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    classes: list[ClassRow] = field(default_factory=list)
    tracked: dict[str, Tracked] = field(default_factory=dict)  # by sequence
    volumes: list[VolumeRow] = field(default_factory=list)

    def group(self, sequence: str) -> str:
        """What a sequence belongs to: an operation, a patient, or nothing but itself."""
        return (self.tracked[sequence].group if sequence in self.tracked else "") or sequence


def named(object_id: int, label: str) -> str:
    """An object's number and label for a reader, the number once: `1 grasper`, or the label `object 1`."""
    label = label.strip() or f"object {object_id}"
    return label if label.split()[-1] == str(object_id) else f"{object_id} {label}"
