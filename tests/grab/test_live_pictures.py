"""A live input's pictures are treated as a recording's: colours, shape of pixels, interlacing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source
from rtseg.grab.capture import Capture

from .test_live_stream import sent


def transport(path: Path, aspect: Fraction | None = None, **marks: int) -> Path:
    """One grey level, 40 frames of MPEG-TS; `marks` are the codec context's."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in marks.items():
            setattr(stream.codec_context, name, value)
        for index in range(40):
            picture = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 40, np.uint8), "rgb24")
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def first(uri: str):
    source = open_source(uri)
    frame = next(iter(source))
    source.close()
    return frame, source


def test_hdr_and_the_shape_of_pixels(tmp_path: Path) -> None:
    plain = transport(tmp_path / "plain.ts", colorspace=1, color_primaries=1, color_trc=1)
    hdr = transport(tmp_path / "hdr.ts", Fraction(64, 45), colorspace=9, color_primaries=9, color_trc=16)
    recorded = next(iter(open_source(hdr)))
    for path, aspect in ((plain, 1), (hdr, Fraction(64, 45))):
        with sent(path) as uri:
            frame, source = first(uri)
        assert frame.sample_aspect == source.sample_aspect == aspect
        assert ("colours" in source.account.repaired) == (path == hdr)
        if path == hdr:
            assert np.array_equal(frame.image_hwc, recorded.image_hwc) and frame.image_hwc.max() < 30
        else:
            assert abs(int(frame.image_hwc.mean()) - 40) <= 2


def test_colours_that_nothing_undoes_are_refused_and_not_asked_for_again(tmp_path: Path) -> None:
    with sent(transport(tmp_path / "a.ts", colorspace=10)) as uri:
        with pytest.raises(SourceError, match="BT.2020 with constant luminance"):
            first(uri)
        with pytest.raises(SourceError, match="BT.2020 with constant luminance"):
            next(Capture(uri).frames())
