"""Slices of volumes as pictures: one to three modalities as red, green and blue, each in its own window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...base.types import ImageU8
from .nifti_file import Volume
from .window import Limits, limits, to_grey

CHANNELS = 3


@dataclass(frozen=True)
class Slices:
    """Slices across `axis`. `parts`: the file of each modality, its number in the file, and whether it is CT (None: its
    values decide). `load` reads a file, and keeps what it read for as long as it likes.
    """

    load: Callable[[Path], Volume]
    parts: Sequence[tuple[Path, int, bool | None]]
    axis: int
    window: str

    @cached_property
    def _limits(self) -> list[Limits]:
        return [limits(self.load(path), modality, self.window, is_ct) for path, modality, is_ct in self.parts]

    def image(self, number: int) -> ImageU8:
        """Slice `number`, uint8 [H, W, 3]; fewer modalities than three are repeated."""
        shown = [
            to_grey(self.load(path).slice(number, self.axis, modality), range_)
            for (path, modality, _), range_ in zip(self.parts, self._limits, strict=True)
        ]
        return np.dstack([shown[i % len(shown)] for i in range(CHANNELS)])
