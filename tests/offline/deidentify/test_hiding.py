"""Frames that are hidden: which, that doubt hides, that nothing can be seen of them, and that a state goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.base.state import read_state, write_state
from rtseg.base.types import Frame, ImageU8
from rtseg.offline.deidentify import LOOK_AHEAD, Deidentify, classifier
from rtseg.offline.deidentify.judge import BEFORE, STEADY
from rtseg.synthetic.source import EndoscopeSource

WIDTH, HEIGHT = 160, 120
BODY = "synthetic:laparoscopy?seconds=5&seed=1018&width=160&height=120&fps=25"


@pytest.fixture(scope="module")
def body() -> list[ImageU8]:
    """Frames from inside a body, in which the camera moves."""
    source = EndoscopeSource(BODY)
    return [source.frame(seq).image_hwc for seq in range(70)]


def room(seed: int = 0) -> ImageU8:
    """A picture from outside: boxes of every colour on a wall."""
    rng = np.random.default_rng(seed)
    image_hwc = np.full((HEIGHT, WIDTH, 3), (150, 170, 190), np.uint8)
    for _ in range(40):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 8, 8), (WIDTH, HEIGHT, 50, 40)))
        image_hwc[y : y + h, x : x + w] = rng.integers(0, 255, 3)
    return image_hwc


def frames(pictures: Iterable[ImageU8], first: int = 0) -> list[Frame]:
    return [Frame(p, n, pts=n, time_base=Fraction(1, 25), name=f"DOE_{n}.png") for n, p in enumerate(pictures, first)]


def run(given: list[Frame], hide: Deidentify | None = None) -> list[ImageU8]:
    hide = hide or Deidentify()
    return [hide.picture(frame).image_hwc for frame in hide.ahead(given)]


def is_hidden(frame: Frame, written_hwc: ImageU8) -> bool:
    return not np.array_equal(frame.image_hwc, written_hwc)


def likeness(one_hwc: ImageU8, other_hwc: ImageU8) -> float:
    """The correlation of what is finer than a twelfth of the width."""
    fine = [np.float32(p) - cv2.GaussianBlur(np.float32(p), (0, 0), WIDTH / 12) for p in (one_hwc, other_hwc)]
    return float((fine[0] * fine[1]).mean() / (fine[0].std() * fine[1].std() + 1e-6))


def test_frames_outside_are_hidden_with_a_margin_and_the_rest_is_untouched(body: list[ImageU8]) -> None:
    given = frames([*body[:40], *(room(n // 4) for n in range(20)), *body[:50]])
    hidden = [is_hidden(f, p) for f, p in zip(given, run(given), strict=True)]
    assert all(hidden[:STEADY]) and all(hidden[40 - BEFORE : 60 + STEADY])
    assert not any(hidden[STEADY + 1 : 40 - BEFORE]) and not any(hidden[60 + STEADY + 1 :])


def test_without_pictures_from_outside_only_the_start_is_hidden(body: list[ImageU8]) -> None:
    given = frames(body)
    hidden = [is_hidden(f, p) for f, p in zip(given, run(given), strict=True)]
    assert sum(hidden) == STEADY and all(hidden[:STEADY])


def test_nothing_of_a_hidden_frame_can_be_seen(body: list[ImageU8]) -> None:
    given = frames([*body[:30], *(room(n) for n in range(20))])
    written = run(given)
    for n in range(30, 50):
        assert abs(likeness(given[n].image_hwc, written[n])) < 0.1
        assert likeness(given[n].image_hwc, given[n].image_hwc) > 0.99
    # All frames of a stretch are one picture, so that they give no more views of a thing than the first.
    assert all(np.array_equal(written[30 - BEFORE], p) for p in written[30 - BEFORE :])


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda p: p // 16, "dark"),
        (lambda p: np.repeat(p.mean(2, keepdims=True).astype(np.uint8), 3, 2), "grey"),
        (lambda p: np.full_like(p, (30, 160, 90)), "unlike"),
        (lambda p: np.random.default_rng(0).integers(0, 255, p.shape, np.uint8), "out-of-body"),
    ],
    ids=["dark", "grey", "unlike", "noise"],
)
def test_what_cannot_be_judged_is_hidden(body: list[ImageU8], spoil: Callable[[ImageU8], ImageU8], cause: str) -> None:
    hide = Deidentify()
    given = frames([*body[:30], *(spoil(p) for p in body[30:32]), *body[32:]])
    hidden = [is_hidden(f, p) for f, p in zip(given, run(given, hide), strict=True)]
    assert all(hidden[30:32]) and not hidden[30 - BEFORE - 1]
    causes = {stretch[2] for stretch in hide.account()["deidentified"]["stretches"]}
    assert cause in causes or (cause == "out-of-body" and causes & {"unlike", "grey"})


def test_an_error_hides(body: list[ImageU8], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image_hwc: ImageU8) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(classifier, "looks", fails)
    hide, given = Deidentify(), frames(body[:20])
    assert all(is_hidden(f, p) for f, p in zip(given, run(given, hide), strict=True))
    assert hide.account()["deidentified"]["stretches"] == [[0, 19, "error"]]


def test_after_a_cut_and_after_a_gap_frames_are_hidden(body: list[ImageU8]) -> None:
    other = EndoscopeSource(BODY.replace("1018", "1014"))
    given = frames([*body[:30], *(other.frame(seq).image_hwc for seq in range(30))])
    hide = Deidentify()
    run(given, hide)
    assert [first for first, _, cause in hide.account()["deidentified"]["stretches"] if cause == "cut"] == [30]
    hide = Deidentify()
    run([*frames(body[:30]), *frames(body[30:], 31)], hide)
    assert [first for first, _, cause in hide.account()["deidentified"]["stretches"] if cause == "cut"] == [31]


def test_a_frame_that_was_not_read_ahead_is_hidden(body: list[ImageU8]) -> None:
    frame = frames(body[:1])[0]
    assert is_hidden(frame, Deidentify().picture(frame).image_hwc)


def test_names_of_pictures_are_left_out_and_frames_are_otherwise_the_same(body: list[ImageU8]) -> None:
    given, hide = frames(body[:20]), Deidentify()
    passed = list(hide.ahead(given))
    assert passed == given  # what the network sees: the same objects
    written = hide.picture(passed[-1])
    assert (written.name, written.seq, written.seconds) == ("", 19, given[-1].seconds)
    assert given[-1].name == "DOE_19.png"


def test_frames_wait_for_so_many_others(body: list[ImageU8]) -> None:
    taken = []

    def source() -> Iterable[Frame]:
        for frame in frames(body[:40]):
            taken.append(frame)
            yield frame

    ahead = iter(Deidentify().ahead(source()))
    for n in range(20):
        next(ahead)
        assert len(taken) == n + 1 + LOOK_AHEAD


@pytest.mark.parametrize("at", [25, 45])
def test_a_state_goes_on_with_the_same_pictures(body: list[ImageU8], at: int, tmp_path: Path) -> None:
    what = ("out-of-body", "text")
    given = frames([*body[:40], *(room(n) for n in range(6)), *body[:30]])
    whole, first, second = Deidentify(what), Deidentify(what), Deidentify(what)
    expected = run(given, whole)
    for frame in first.ahead(given):
        first.picture(frame)
        if frame.seq == at:
            break
    write_state(tmp_path / "state.npz", first.state())
    second.restore(read_state(tmp_path / "state.npz"))
    again = run(given[at + 1 :], second)
    assert all(np.array_equal(a, b) for a, b in zip(again, expected[at + 1 :], strict=True))
    assert second.account() == whole.account()
    fresh = run(given[at + 1 :], Deidentify(what))  # without the state they differ
    assert at != 25 or any(not np.array_equal(a, b) for a, b in zip(fresh, again, strict=True))


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="faces"):
        Deidentify(["faces"])
