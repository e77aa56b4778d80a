"""The window, on SDL's own pretended screen."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from rtseg.base.errors import OutputError
from rtseg.publish.window import DISPLAYS, Window

pygame = pytest.importorskip("pygame")


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window("rtseg")
    yield window
    window.close()


def shown() -> np.ndarray:
    return pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)


def test_a_window_shows_the_first_picture_as_it_is(window: Window) -> None:
    for seed in range(3):
        image_hwc = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        window.show(image_hwc)
        assert np.array_equal(shown(), image_hwc)


@pytest.mark.parametrize(("height", "width", "inside"), [(24, 32, np.s_[:, :]), (48, 32, np.s_[:, 16:48])])
def test_a_picture_of_another_size_keeps_its_aspect(
    window: Window, height: int, width: int, inside: tuple[slice, slice]
) -> None:
    window.show(np.zeros((48, 64, 3), np.uint8))
    window.show(np.full((height, width, 3), 200, np.uint8))
    expected_hwc = np.zeros((48, 64, 3), np.uint8)
    expected_hwc[inside] = 200
    assert np.array_equal(shown(), expected_hwc)


@pytest.mark.parametrize(("event", "ends"), [("QUIT", True), ("q", True), ("escape", True), ("x", False)])
def test_a_key_or_the_closed_window_ends_it(window: Window, event: str, ends: bool) -> None:
    window.show(np.zeros((48, 64, 3), np.uint8))
    window.quit()
    if event == "QUIT":
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    else:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.key.key_code(event)))
    assert window.quit() is ends and window.quit() is False


def test_without_pygame_or_a_screen_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    with pytest.raises(OutputError, match="no window can be opened .*; use --headless"):
        Window("rtseg")
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(OutputError, match=r"pip install 'rtseg\[view\]'"):
        Window("rtseg")
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match="there is no display here; .*; use --headless$"):
        Window("rtseg")
