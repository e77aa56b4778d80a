"""A window that shows pictures, through SDL.

OpenCV has windows too, but only in a package that must not be installed beside the headless one.
"""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from ..base.errors import OutputError
from ..base.types import ImageU8

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


class Window:
    """A window as large as its first picture. The user may resize it; pictures keep their aspect."""

    def __init__(self, title: str) -> None:
        """Prepare a window without opening it; `OutputError` if none can be opened."""
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
        self._pygame, self._title = pygame, title
        try:
            pygame.display.init()
        except pygame.error as e:
            raise OutputError(f"view: no window can be opened ({e}); expected a desktop session; use --headless") from e

    def show(self, image_hwc: ImageU8) -> None:
        """Show a picture, uint8 RGB [H, W, 3], as large as fits into the window."""
        pygame, (height, width) = self._pygame, image_hwc.shape[:2]
        screen = pygame.display.get_surface()
        if screen is None:
            screen = pygame.display.set_mode((width, height), pygame.RESIZABLE)
            pygame.display.set_caption(self._title)
        scale = min(screen.get_width() / width, screen.get_height() / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            image_hwc = np.asarray(cv2.resize(image_hwc, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        screen.fill((0, 0, 0))
        corner = (screen.get_width() - size[0]) // 2, (screen.get_height() - size[1]) // 2
        screen.blit(pygame.image.frombuffer(np.ascontiguousarray(image_hwc), size, "RGB"), corner)
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
