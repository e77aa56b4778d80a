"""A scene: an endoscope, tissue, instruments. Made once from a seed, rendered at any time and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..base.types import ImageU8
from .atmosphere import Atmosphere
from .camera import Camera
from .draw import render_cv2
from .grade import Grade
from .instrument_pieces import Body, paint_body, paint_flap
from .instruments import Instruments
from .looks import draw_looks
from .moves import Moves, Pose
from .noise import Canvas
from .options import Options, ToolKind
from .raster import GRAIN
from .tissue import TISSUE, paint_tissue
from .view import Channel, Picture, Sensor, Shadow, Surround, Textures, View

FIELD = 1 / 50  # seconds between the two fields of an interlaced picture

Renderer = Callable[[View, int, int], Picture]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of a scene at chosen times: uint8 [T, H, W, 3], ids and `Part`s uint8 [T, H, W]."""

    image_thwc: ImageU8
    ids_thw: ImageU8
    parts_thw: ImageU8


class Scene:
    """A scene. `detail`: texture pixels in a picture's short side, as many as the pictures have, or less for speed.

    A frame is a pure function of (seed, options, seconds, size), in any order of calls. At another `detail` it is the
    same scene. `kinds`: the kind of instrument of each object id.
    """

    def __init__(self, seed: int, options: Options | None = None, detail: float = 720) -> None:
        self.seed, self.options = seed, options or Options.draw(seed)
        o, rng = self.options, np.random.default_rng((seed, 12))
        grade = Grade.draw(np.random.default_rng((seed, 13)), o.grading, o.grey)
        self._moves = Moves(seed, o)
        self._camera, self._atmosphere = Camera(seed, o, self._moves), Atmosphere(seed, o)
        self._instruments = Instruments(
            self._paint_bodies(detail, grade), paint_flap(np.random.default_rng((seed, 14)), detail)
        )
        self.kinds: dict[int, ToolKind] = {k + 1: body.look.kind for k, body in enumerate(self._instruments.bodies)}
        self._sinks = [bool(rng.random() < 0.35 * o.contact) for _ in range(self._moves.ports)]
        self._map = Canvas(*TISSUE, detail)
        tissue_hwc = paint_tissue(seed, o.site, grade, detail)
        self._paint = Textures(tissue_hwc, self._instruments.textures)
        self._common = self._draw_common(rng, grade)

    def _paint_bodies(self, detail: float, grade: Grade) -> list[Body]:
        """The instruments, followed by their replacements, if there are any, which look the same."""
        o, rng = self.options, np.random.default_rng((self.seed, 15))
        looks = draw_looks(rng.spawn(1)[0], o.tools, o.robotic, o.alike)
        if o.swap:
            looks += [replace(look, blood=look.blood * float(rng.uniform(0.5, 1.3))) for look in looks]
        makes = [0 if o.alike else k % len(o.tools) for k in range(len(looks))]
        seeds = [np.random.default_rng((self.seed, 16, make)) for make in makes]
        return [paint_body(child, look, detail, grade) for child, look in zip(seeds, looks, strict=True)]

    def _draw_common(self, rng: np.random.Generator, grade: Grade) -> View:
        """What all views of the scene have in common, as a view without a time."""
        o = self.options
        far, side = rng.uniform(0.01, 0.06), rng.choice([-1, 1])
        around = None
        if o.surround is not None:
            x, y = rng.uniform(-0.04, 0.04, 2)
            around = Surround(float(x), float(y), o.surround, float(rng.choice([0.003, 0.01, 0.03])))
        warm = (1.0, float(rng.uniform(0.93, 1.0)), float(rng.uniform(0.88, 1.04)))
        return View(
            0.0,
            self._paint,
            np.zeros((2, 2, 1), np.float32),
            shadow=Shadow(float(side * far), float(0.7 * far), float(rng.uniform(0.012, 0.035)), 0.75 * o.shadow),
            shine=min(1.0, 2 * o.specular),
            tint_rgb=(1.0, 1.0, 1.0) if o.grey else warm,
            blood_rgb=_bounded(grade.colour((118.0, 8.0, 12.0))),
            veil_rgb=_bounded(grade.colour((192.0, 190.0, 188.0))),
            surround=around,
            sensor=Sensor(
                blur=0.3 + 0.9 * o.blur,
                noise=math.ceil(16 * o.noise),
                grey=o.grey,
                quality=round(92 - 72 * o.compression) if o.compression else None,
            ),
        )

    def poses(self, seconds: float) -> list[Pose]:
        """The poses of the instruments, by port."""
        return [self._moves.pose(port, seconds) for port in range(self._moves.ports)]

    def view(self, seconds: float) -> View:
        """The view at a time in seconds, 0 or later."""
        view = self._view_at(seconds)
        return replace(view, later=self._view_at(seconds + FIELD)) if self.options.interlaced else view

    def _view_at(self, seconds: float) -> View:
        poses = self.poses(seconds)
        u_hw, v_hw, dark_hw = self._camera.tissue(poses, seconds)
        field_hwc = self._atmosphere.fields(seconds, self._camera.zoom(seconds), u_hw, v_hw)
        field_hwc[..., Channel.LIGHT] *= 1 - dark_hw
        h, w = self._map.shape
        field_hwc[..., Channel.U] = (u_hw / self._map.width + 0.5) * w - 0.5
        field_hwc[..., Channel.V] = (v_hw / self._map.height + 0.5) * h - 0.5
        place = self._camera.place(seconds)
        sprites = [
            sprite
            for port in self._moves.order(seconds)
            for sprite in self._instruments.sprites(poses[port], place, self._sinks[port])
        ]
        glints = [g for pose in poses for g in self._instruments.glints(pose, place, seconds, self.options.specular)]
        shift = np.random.default_rng((self.seed, 17, round(seconds * 1e4))).integers(0, GRAIN, 2)
        return replace(
            self._common,
            seconds=seconds,
            field_hwc=field_hwc,
            sprites=tuple(sprites),
            glints=tuple(glints),
            drops=self._atmosphere.drops(seconds),
            sensor=replace(self._common.sensor, noise_shift=(int(shift[0]), int(shift[1]))),
        )

    def clip(self, times: Sequence[float], width: int, height: int, render: Renderer = render_cv2) -> Clip:
        """Frames at chosen times (seconds), at a size in pixels."""
        pictures = [render(self.view(t), width, height) for t in times]
        return Clip(
            np.stack([p.image_hwc for p in pictures]),
            np.stack([p.ids_hw for p in pictures]),
            np.stack([p.parts_hw for p in pictures]),
        )


def _bounded(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (min(255.0, value) for value in rgb)
    return red, green, blue
