"""The endoscope's field is found in what a tower sends; its writing is not taken for it, and nothing of it is lost."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from rtseg.base.types import Frame, ImageU8
from rtseg.grab.capture import Capture
from rtseg.grab.crop import Cropper, cropped, find_field, parse_box
from rtseg.synthetic import Options, Scene

WIDTH, HEIGHT = 960, 540
WORDS = ("DOE, JANE", "1970-01-01 F", "ID 0012345", "12:34:56", "REC 00:12:33")


def views(width: int, height: int, seed: int, round_: bool) -> list[ImageU8]:
    scene = Scene(seed, Options(surround=None), min(width, height))
    iris_hw = np.zeros((height, width), np.uint8)
    cv2.circle(iris_hw, (width // 2, height // 2), min(width, height) // 2, 255, cv2.FILLED)
    images = scene.clip((0.0, 0.12, 0.24), width, height).image_thwc
    return [np.asarray(cv2.bitwise_and(i, i, mask=iris_hw), np.uint8) if round_ else np.maximum(i, 30) for i in images]


def tower(field_hwc: ImageU8, words: bool = True, noise: float = 0.0) -> ImageU8:
    """A field in the middle of a black picture, with the patient's name, the time, a gain and a logo beside it."""
    image_hwc = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    height, width = field_hwc.shape[:2]
    y, x = (HEIGHT - height) // 2, (WIDTH - width) // 2
    image_hwc[y : y + height, x : x + width] = field_hwc
    if words:
        for line, text in enumerate(WORDS):
            cv2.putText(image_hwc, text, (10, 30 + 25 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 2)
        cv2.putText(image_hwc, "GAIN +3", (WIDTH - 115, HEIGHT - 30), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (250, 250, 80), 2)
        cv2.rectangle(image_hwc, (WIDTH - 100, 20), (WIDTH - 30, 45), (30, 90, 220), cv2.FILLED)
    grain_hwc = np.random.default_rng(0).normal(noise, noise / 2 + 1e-9, image_hwc.shape)
    return np.clip(image_hwc + grain_hwc, 0, 255).astype(np.uint8)


def lit_box(image_hwc: ImageU8) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero((image_hwc.max(2) > 24).any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize(("width", "height", "round_"), [(500, 500, True), (300, 300, True), (674, 540, False)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_field_is_found_beside_writing(width: int, height: int, round_: bool, seed: int, noise: float) -> None:
    fields = views(width, height, seed, round_)
    box = find_field([tower(field, noise=noise) for field in fields])
    assert box is not None
    true = lit_box(tower(np.maximum.reduce(fields), words=False))
    assert all(outer <= inner for outer, inner in zip(box[:2], true[:2], strict=True))  # nothing is cut off
    assert all(outer >= inner for outer, inner in zip(box[2:], true[2:], strict=True))
    assert max(abs(a - b) for a, b in zip(box, true, strict=True)) <= 10
    assert all(v % 2 == 0 for v in box)
    # The negative control: whatever is lit reaches from the name to the logo.
    assert lit_box(tower(fields[0]))[0] < 15


@pytest.mark.parametrize(("width", "height"), [(960, 540), (641, 479)])
def test_a_picture_that_fills_the_frame_is_never_cut(width: int, height: int) -> None:
    assert find_field(views(width, height, 3, False)) == (0, 0, width, height)


def test_a_lamp_that_fades_towards_the_sides_is_no_surround() -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    reach_hw = ((columns - WIDTH / 2) ** 2 + (rows - HEIGHT / 2) ** 2) / 165**2
    dim = [(image * np.exp(-reach_hw / 2)[..., None]).astype(np.uint8) for image in views(WIDTH, HEIGHT, 4, False)]
    assert (dim[0].max(2)[:, :100] < 12).all()  # black, but not by a clear step
    assert find_field(dim) == (0, 0, WIDTH, HEIGHT)


def test_nothing_is_said_in_the_dark() -> None:
    dark = [tower(image // 16) for image in views(500, 500, 1, True)]
    assert find_field(dark) is None
    assert find_field([tower(np.zeros((2, 2, 3), np.uint8))]) is None


def frame_of(image_hwc: ImageU8, seq: int = 0) -> Frame:
    return Frame(image_hwc, seq, "s", truth_hw=image_hwc[..., 0])


def test_a_crop_is_what_it_says() -> None:
    image_hwc = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    frame = frame_of(image_hwc)
    small = cropped(frame, (4, 2, 24, 18))
    assert small is not None and small.truth_hw is not None
    np.testing.assert_array_equal(small.image_hwc, image_hwc[2:18, 4:24])
    np.testing.assert_array_equal(small.truth_hw, image_hwc[2:18, 4:24, 0])
    assert small.image_hwc.flags.c_contiguous and (small.seq, small.session) == (frame.seq, frame.session)
    assert cropped(frame, (0, 0, 30, 20)) is frame and cropped(frame, (0, 0, 32, 20)) is None
    assert parse_box([4, 2, 24, 18]) == (4, 2, 24, 18)


def test_auto_decides_once_after_a_few_frames_and_then_stays() -> None:
    images = [tower(image) for image in views(500, 500, 1, True)]
    crop = Cropper("auto", lambda: None)
    given = [crop(frame_of(images[seq % 3], seq)) for seq in range(5)]
    assert [len(frames) for frames in given] == [0, 0, 0, 0, 5]
    assert [frame.seq for frame in given[4]] == list(range(5))
    size = (given[4][0].width, given[4][0].height)
    assert size[0] < 520 and {(f.width, f.height) for f in given[4]} == {size}
    (other,) = crop(frame_of(tower(views(300, 300, 2, True)[0]), 5))
    assert (other.width, other.height) == size  # fixed, whatever comes
    assert crop.flush() == []


def test_auto_passes_dark_frames_whole_until_there_is_light() -> None:
    crop = Cropper("auto", lambda: None)
    dark_hwc, light_hwc = np.zeros((HEIGHT, WIDTH, 3), np.uint8), tower(views(500, 500, 1, True)[0])
    seen = [frame for seq in range(12) for frame in crop(frame_of(dark_hwc, seq))]
    assert [frame.seq for frame in seen] == list(range(12)) and {frame.width for frame in seen} == {WIDTH}
    lit = [crop(frame_of(light_hwc, seq)) for seq in range(12, 24)]
    assert all(len(frames) == 1 for frames in lit)  # nothing waits any more
    assert lit[0][0].width == WIDTH and lit[-1][0].width < 520


def test_auto_decides_for_each_size_and_loses_no_frame() -> None:
    crop = Cropper("auto", lambda: None)
    large_hwc, small_hwc = (
        tower(views(500, 500, 1, True)[0]),
        cv2.resize(tower(views(500, 500, 1, True)[0]), (640, 360)),
    )
    feed = [large_hwc] * 3 + [np.asarray(small_hwc, np.uint8)] * 7 + [large_hwc] * 6
    seen = [out for seq, image in enumerate(feed) for out in crop(frame_of(image, seq))] + crop.flush()
    assert [frame.seq for frame in seen] == list(range(len(feed)))
    assert [frame.width for frame in seen[:3]] == [WIDTH] * 3  # the size changed before enough was seen
    assert {frame.width < 350 for frame in seen[3:10]} == {True} and seen[-1].width < 520


def test_intake_crops_what_follows_sees_and_gives_every_frame() -> None:
    uri = "synthetic:laparoscopy?seconds=0.32&seed=8&width=640&height=240"
    whole = [frame.image_hwc for frame in Capture(uri, pace="flat-out").frames()]
    frames = list(Capture(uri, pace="flat-out", crop="auto").frames())
    assert [frame.seq for frame in frames] == list(range(8))
    assert {frame.image_hwc.shape for frame in frames} == {frames[0].image_hwc.shape}
    assert frames[0].width < 560 and frames[0].truth_hw is not None
    lost = [int((image > 24).sum()) - int((f.image_hwc > 24).sum()) for image, f in zip(whole, frames, strict=True)]
    assert lost == [0] * 8
    assert replace(frames[0], image_hwc=whole[0]).width == 640
