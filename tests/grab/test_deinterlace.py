"""Interlaced recordings: whole pictures, at once, at their own times; progressive ones untouched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rtseg.base.types import ImageU8
from rtseg.grab import open_source
from rtseg.grab.capture import Capture
from rtseg.grab.decode.deinterlace import Deinterlacer
from rtseg.grab.opening import open_recording

WIDTH, HEIGHT, COUNT, STEP = 320, 240, 12, 6


def field(moment: int) -> ImageU8:
    """A bright bar with a soft edge that moves by STEP pixels a field, over still stripes."""
    columns, rows = np.arange(WIDTH), np.arange(HEIGHT)
    bar_w = 180 / (1 + np.exp(np.abs((columns - 40 - STEP * moment) / 2) - 12))
    still_h = 30 + 20 * np.sin(rows / 6)
    return np.repeat((still_h[:, None] + bar_w)[..., None], 3, 2).clip(0, 255).astype(np.uint8)


def woven(index: int) -> ImageU8:
    """Two fields in one picture, the top one first, as 1080i has them."""
    image_hwc = field(2 * index).copy()
    image_hwc[1::2] = field(2 * index + 1)[1::2]
    return image_hwc


def combing(image_hwc: ImageU8) -> float:
    """How much every line differs from the mean of its neighbours."""
    lines = image_hwc[..., 1].astype(float)
    return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())


def clip(path: Path, marked: bool, interlaced: bool = True) -> Path:
    with av.open(str(path), "w") as container:
        options = {"qp": "4"} | ({"x264-params": "interlaced=1:tff=1"} if marked else {})
        stream: Any = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(COUNT):
            image_hwc = woven(index) if interlaced else field(2 * index)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_hwc, "rgb24")))
        container.mux(stream.encode())
    return path


def test_combing_is_gone_and_nothing_is_late(tmp_path: Path) -> None:
    path = clip(tmp_path / "i.mp4", marked=True)
    raw, whole = list(open_source(path)), list(open_recording(str(path), deinterlace="auto"))
    assert [(f.seq, f.pts, f.time_base) for f in whole] == [(f.seq, f.pts, f.time_base) for f in raw]
    assert len(whole) == COUNT and all(frame.interlaced for frame in whole)  # as it is coded
    for index, (before, after) in enumerate(zip(raw, whole, strict=True)):
        assert combing(before.image_hwc) > 10 > 2 > combing(after.image_hwc)
        # It is this picture, its newer field, and neither the one before nor a mixture.
        errors = [np.abs(after.image_hwc.astype(int) - field(moment)).mean() for moment in range(2 * COUNT)]
        assert int(np.argmin(errors)) == 2 * index + 1 and min(errors) < 1 < 5 < sorted(errors)[1]


def test_progressive_pictures_are_not_touched(tmp_path: Path) -> None:
    path = clip(tmp_path / "p.mp4", marked=False, interlaced=False)
    for before, after in zip(open_source(path), open_recording(str(path), deinterlace="auto"), strict=True):
        np.testing.assert_array_equal(before.image_hwc, after.image_hwc)
        assert not after.interlaced


@pytest.mark.parametrize(("mode", "clean"), [("off", False), ("auto", False), ("on", True)])
def test_what_is_not_marked_is_deinterlaced_on_demand_alone(tmp_path: Path, mode: Any, clean: bool) -> None:
    path = clip(tmp_path / "u.mp4", marked=False)
    frames = list(Capture(str(path), pace="flat-out", deinterlace=mode).frames())
    assert len(frames) == COUNT
    assert all((combing(frame.image_hwc) < 2) == clean for frame in frames)


def test_a_feed_may_change_between_both_and_in_size(tmp_path: Path) -> None:
    interlaced = _pictures(clip(tmp_path / "i.mp4", marked=True))
    progressive = _pictures(clip(tmp_path / "p.mp4", marked=False, interlaced=False))
    small = av.VideoFrame.from_ndarray(woven(0)[:120].copy(), "rgb24").reformat(format="yuv420p")
    whole, out = Deinterlacer("auto"), []
    for number, picture in enumerate([*interlaced[:3], *progressive[:2], *interlaced[3:5]]):
        picture.pts, picture.time_base = 7 * number, Fraction(1, 50)
        out.append(whole(picture))
    assert [(each.pts, each.time_base) for each in out] == [(7 * number, Fraction(1, 50)) for number in range(7)]
    assert out[3] is progressive[0]
    assert all(combing(each.to_ndarray(format="rgb24")) < 2 for each in out)
    always = Deinterlacer("on")
    assert (always(interlaced[5]).height, always(small).height, always(interlaced[6]).height) == (HEIGHT, 120, HEIGHT)


def _pictures(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_what_is_marked_as_interlaced_is_told_and_how_it_was_read(tmp_path: Path) -> None:
    marked, plain = clip(tmp_path / "i.mp4", marked=True), clip(tmp_path / "p.mp4", marked=False, interlaced=False)
    for mode, repaired, assumed in (("off", False, True), ("auto", True, False), ("on", True, False)):
        source = open_source(marked, deinterlace=mode)
        frames = list(source)
        assert ("interlacing" in source.account.repaired, "interlacing" in source.account.assumed) == (
            repaired, assumed,
        )  # fmt: skip
        assert all((combing(frame.image_hwc) > 10) == assumed for frame in frames)
    assert "--deinterlace auto" in open_account(marked)["interlacing"]
    assert "interlacing" not in open_account(plain)


def open_account(path: Path) -> dict[str, str]:
    source = open_source(path)
    list(source)
    return source.account.assumed
