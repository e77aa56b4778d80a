"""The options of a video in an archive: the keywords of `segment`, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from ...base.schema import Text, mistake, one_of
from ..formats import check_formats
from ..settings import DECODERS, PICTURES, WAYS, Reading


@dataclass(frozen=True, slots=True)
class Options:
    """What may differ from video to video: the keywords of `segment` and of `Reading`, which document them."""

    fps: float | None = None
    deinterlace: Annotated[str, one_of(("off", "auto", "on"))] | None = None
    damaged: Annotated[str, one_of(("skip", "stop"))] = "skip"
    bits: int | None = None
    window: str | None = None
    plane: Annotated[str, one_of(("axial", "coronal", "sagittal"))] | None = None
    decoder: Annotated[str, one_of(DECODERS)] = "cpu"
    direction: Annotated[str, one_of(WAYS)] = "forward"
    across_cuts: bool = False
    slices: bool = False
    frames: Annotated[str, one_of(PICTURES)] | None = None
    deidentify: tuple[Annotated[str, one_of(("out-of-body", "text"))], ...] = ()
    also: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.01 <= self.fps <= 1000:
            raise mistake("fps", self.fps, "a number from 0.01 to 1000")
        if self.bits is not None and not 1 <= self.bits <= 16:
            raise mistake("bits", self.bits, "a whole number from 1 to 16")
        if self.also:
            check_formats(self.also)

    def keywords(self) -> dict[str, Any]:
        """The keywords of `segment`."""
        given = asdict(self)
        reading = {field.name: given.pop(field.name) for field in fields(Reading)}
        return {"reading": Reading(**reading), **given}


NAMES = tuple(field.name for field in fields(Options))
LISTS = ("deidentify", "also")  # written with commas in CSV
