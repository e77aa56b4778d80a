"""A window that shows pictures, by SDL.

OpenCV has windows too, but only in its other package, which may not be installed beside the headless one.
"""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np

from ..base.errors import OutputError
from ..base.types import ImageU8

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


class Window:
    """A window as large as the picture that it shows; the user may resize it, and the picture keeps its aspect."""

    def __init__(self, title: str) -> None:
        """Open no window yet. `OutputError` where none can be opened."""
        # On a console without a desktop SDL would take the whole screen.
        if sys.platform == "linux" and not any(os.environ.get(name) for name in DISPLAYS):
            raise OutputError("view: there is no display here; expected a desktop session; use --headless")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as e:
            raise OutputError(
                "view: pygame, which opens the window, is not installed; pip install 'rtseg[view]'"
            ) from e
        self._pygame, self._title, self._size = pygame, title, (0, 0)
        try:
            pygame.display.init()
        except pygame.error as e:
            raise OutputError(f"view: no window can be opened ({e}); expected a desktop session; use --headless") from e

    def show(self, image_hwc: ImageU8) -> None:
        """Show a picture, uint8 RGB [H, W, 3]."""
        pygame, size = self._pygame, (image_hwc.shape[1], image_hwc.shape[0])
        if size != self._size:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a picture is scaled by the CPU where there is no GPU
                self._screen = pygame.display.set_mode(size, pygame.RESIZABLE | pygame.SCALED)
            pygame.display.set_caption(self._title)
            self._size = size
        self._screen.blit(pygame.image.frombuffer(np.ascontiguousarray(image_hwc), size, "RGB"), (0, 0))
        pygame.display.flip()

    def quit(self) -> bool:
        """Whether the user closed the window, or pressed Q or Escape."""
        pygame = self._pygame
        return any(
            event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE))
            for event in pygame.event.get()
        )

    def close(self) -> None:
        self._pygame.display.quit()
