"""The synthetic endoscope as frames: `synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25`."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from ..base.source import Source
from ..base.types import Frame, now_ns
from .draw import render_cv2
from .scene import Scene
from .uri import read_scene

FINEST = 1080  # texture pixels in the short side: in larger pictures, textures are enlarged


class EndoscopeSource(Source):
    """Frames of the scene of a seed, with ground truth: object ids from 1, in the order of the instruments."""

    def __init__(self, uri: str, rate: Fraction | None = None) -> None:
        want = read_scene(uri)
        self._rate = rate or want["fps"]
        width, height = int(want["width"]), int(want["height"])
        self._count = max(1, round(want["seconds"] * self._rate))
        super().__init__(uri, width, height, float(self._rate), self._count)
        self._scene = Scene(int(want["seed"]), detail=min(width, height, FINEST))

    @property
    def tools(self) -> int:
        """The number of instruments, including replacements; their ids count from 1."""
        return len(self._scene.kinds)

    def frame(self, seq: int) -> Frame:
        """Frame number `seq`; frames can be drawn in any order."""
        seen = render_cv2(self._scene.view(float(seq / self._rate)), self.width, self.height)
        return Frame(
            seen.image_hwc,
            seq,
            self.session,
            seq,
            1 / self._rate,
            now_ns(),
            interlaced=self._scene.options.interlaced,
            truth_hw=seen.ids_hw,
        )

    def frames(self) -> Iterator[Frame]:
        return map(self.frame, range(self._count))
