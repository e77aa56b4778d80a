"""Single pictures out of a video, small, at given times: only what is needed for them is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from ..base.errors import SourceError
from ..base.types import ImageU8

_LEAST = 2  # pixels of a side


def stills(path: Path, seconds: Sequence[float], width: int) -> Iterator[tuple[int, ImageU8]]:
    """The pictures of a video that are shown at some times, in the order of time.

    Arguments:
        path: a video file without pictures that refer to later ones, such as `Mp4Writer` writes.
        seconds: the times, from the video's first picture on; of equal or unsorted ones each gets its picture.
        width: of the pictures, in pixels, with square ones; they are not enlarged.

    Yields:
        The place in `seconds`, and the picture, uint8 RGB [H, W, 3]. Times after the video's end have none.

    Raises:
        SourceError: the file cannot be read, or is damaged; pictures before the damage have been given.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SourceError(f"{path}: has no pictures; expected a video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # beside the network, and a thread for each frame costs memory
            yield from _found(container, stream, seconds, width)
    except (av.FFmpegError, OSError) as e:
        raise SourceError(
            f"{path}: cannot be read ({getattr(e, 'strerror', None) or e}); expected a whole video"
        ) from e


def _found(
    container: InputContainer, stream: VideoStream, seconds: Sequence[float], width: int
) -> Iterator[tuple[int, ImageU8]]:
    base, begin = stream.time_base or Fraction(1), stream.start_time or 0
    wanted = sorted((begin + round(Fraction(second) / base), place) for place, second in enumerate(seconds))
    if not wanted:
        return
    slack = round(Fraction(1, 1000) / base)  # times are rounded where they are written
    pictures, at = container.decode(stream), -1
    shown: av.VideoFrame | None = None
    following = next(pictures, None)
    for pts, place in wanted:
        key = _key_before(stream, pts)
        if key is not None and following is not None and (following.pts or 0) < key and at < key:
            container.seek(pts, stream=stream, backward=True)
            pictures = container.decode(stream)
            shown, following = None, next(pictures, None)
        while following is not None and ((following.pts or 0) <= pts + slack or shown is None):
            shown, following = following, next(pictures, None)
        at = 0 if shown is None else shown.pts or 0
        over = following is None and shown is not None and pts > at + max(shown.duration or 0, slack)
        if shown is not None and not over:
            yield place, _small(shown, stream, width)


def _key_before(stream: VideoStream, pts: int) -> int | None:
    """The time of the last key frame up to `pts`, by the file's index; None where it has none."""
    entries = stream.index_entries
    if not len(entries):
        return None
    # The index has times of decoding; without pictures that refer to later ones they differ by a constant.
    shift = (stream.start_time or 0) - entries[0].timestamp
    place = entries.search_timestamp(pts - shift, backward=True)
    return None if place < 0 else entries[place].timestamp + shift


def _small(frame: av.VideoFrame, stream: VideoStream, width: int) -> ImageU8:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    across = min(width, max(_LEAST, round(frame.width * aspect)))
    down = max(_LEAST, round(across * frame.height / (frame.width * aspect)))
    small = frame.reformat(
        width=across, height=down, format="rgb24", src_colorspace=Colorspace.ITU709, src_color_range=ColorRange.MPEG,
        interpolation="AREA",
    )  # fmt: skip
    return np.asarray(small.to_ndarray(), np.uint8)
