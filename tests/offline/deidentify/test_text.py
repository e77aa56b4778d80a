"""Burned-in text: found beside, in the border of, and over a moving picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtseg.base.types import Frame, ImageU8
from rtseg.offline.deidentify import Deidentify, deidentify
from rtseg.offline.deidentify.text import TextFinder

SIZE = (240, 320)
INK = 200  # grey levels above which a pixel of the text is bright


def tissue(n: int, surround: bool = False) -> ImageU8:
    """A soft red picture that moves."""
    y_hw, x_hw = np.indices(SIZE, np.float32)
    light_hw = 120 + 50 * np.sin((x_hw + 6 * n) / 20) * np.cos((y_hw - 4 * n) / 25)
    image_hwc = np.stack([light_hw, 0.5 * light_hw, 0.45 * light_hw], 2).astype(np.uint8)
    if surround:
        image_hwc[np.hypot(y_hw - 120, x_hw - 160) > 118] = 3
    return image_hwc


def written(image_hwc: ImageU8, place: tuple[int, int], colour: tuple[int, int, int] = (255, 255, 255)) -> ImageU8:
    return np.asarray(cv2.putText(image_hwc, "DOE, JANE 1961", place, 0, 0.4, colour, 1, cv2.LINE_AA), np.uint8)


def shown(pictures: list[ImageU8], what: tuple[str, ...] = ("text",)) -> list[ImageU8]:
    hide = Deidentify(what)
    return [hide.picture(frame).image_hwc for frame in hide.ahead(Frame(p, n) for n, p in enumerate(pictures))]


@pytest.mark.parametrize(
    ("place", "surround"),
    [((2, 14), True), ((5, 234), False), ((110, 120), False), ((200, 12), False)],
    ids=["beside", "bottom", "middle", "top"],
)
def test_text_is_black_from_its_first_frame(place: tuple[int, int], surround: bool) -> None:
    plain = [tissue(n, surround) for n in range(28)]
    masked = shown([p if n < 14 else written(p.copy(), place) for n, p in enumerate(plain)])
    for n, picture_hwc in enumerate(masked):
        ink_hw = np.abs(written(plain[n].copy(), place).astype(int) - plain[n]).max(2) > 40
        assert n < 14 or not picture_hwc[ink_hw].any()
    assert (written(plain[20].copy(), place) > INK).any()  # the text was there


def test_a_picture_without_text_stays_as_it_is_but_for_its_border() -> None:
    plain = [tissue(n) for n in range(30)]
    for given, got in zip(plain, shown(plain), strict=True):
        assert np.mean((given != got).any(2)) < 0.02


def test_text_that_nobody_asked_to_mask_stays() -> None:
    given = [written(tissue(n), (110, 120)) for n in range(30)]
    assert all(np.array_equal(a, b) for a, b in zip(given, shown(given, ()), strict=True))


def test_a_search_that_fails_masks_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TextFinder):
        def after(self, image_hwc: ImageU8) -> TextFinder:
            raise cv2.error("a bug")

    monkeypatch.setattr(deidentify, "TextFinder", Broken)
    hide = Deidentify(("text",))
    assert not any(hide.picture(frame).image_hwc.any() for frame in hide.ahead([Frame(tissue(0), 0)]))
