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


def test_a_window_shows_the_picture_whatever_size_comes_next(window: Window) -> None:
    for seed, (height, width) in enumerate(((48, 64), (30, 40))):
        image_hwc = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        window.show(image_hwc)
        shown_hwc = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
        assert np.array_equal(shown_hwc, image_hwc)


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
