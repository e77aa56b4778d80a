"""The id maps of a result, from its palette PNGs: at each pixel the id of the object, 0 for none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...base.errors import OutputError
from ...base.types import ImageU8
from .segmented_video import SegmentedFrame, SegmentedVideo


class IdMaps:
    """Iterates over the frames with their id maps, uint8 [H, W]. `hidden`: masks that are partly under another."""

    def __init__(self, video: SegmentedVideo) -> None:
        self._video, self.hidden, self.pixels = video, 0, 0

    def __iter__(self) -> Iterator[tuple[SegmentedFrame, ImageU8]]:
        for frame in self._video.frames():
            id_map_hw = self._read(frame)
            under = sum(each.area for each in frame.seen) - int(np.count_nonzero(id_map_hw))
            self.hidden += under > 0
            self.pixels += under
            yield frame, id_map_hw

    def _read(self, frame: SegmentedFrame) -> ImageU8:
        from PIL import Image

        path = self._video.folder / frame.mask_file
        try:
            with Image.open(path) as image:
                id_map_hw = np.array(image, np.uint8)
        except (OSError, ValueError, SyntaxError) as e:
            raise OutputError(f"{path}: cannot be read ({e}); copy it again, or segment again") from e
        if id_map_hw.shape != (self._video.height, self._video.width):
            expected = f"expected {(self._video.height, self._video.width)}, as masks.json says"
            raise OutputError(f"{path}: is {id_map_hw.shape}; {expected}; copy it again, or segment again")
        return id_map_hw

    def lines(self) -> list[str]:
        """For the user: where an id map cannot hold all masks."""
        if not self.hidden:
            return []
        return [f"objects overlap on {self.hidden} frames ({self.pixels} pixels), where a map has one of them"]
