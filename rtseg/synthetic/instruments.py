"""The instruments of a scene: their pieces, put together at the joints for a pose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..base.types import ImageU8
from .instrument_pieces import LABEL_HALF, Body
from .metal import Piece
from .moves import Pose
from .options import ToolKind
from .view import Glint, Part, Place, Sprite

LABEL_AT = 2.6  # widths from the shaft's end


@dataclass(frozen=True)
class Joints:
    """Positions of the shaft's end and the jaws' pin, and the directions of wrist and jaws."""

    wrist: tuple[float, float]
    pin: tuple[float, float]
    turned: float
    aimed: float


def joints(pose: Pose, body: Body) -> Joints:
    """The joints of a pose, from the tip, which the pose gives, back to the shaft."""
    look = body.look
    bend, yaw = (pose.bend, pose.yaw) if look.articulated else (0.0, 0.0)
    size, turned = look.width * pose.scale, pose.heading + bend
    aimed = turned + yaw
    x = pose.x - size * look.jaw.length * math.cos(aimed)
    y = pose.y - size * look.jaw.length * math.sin(aimed)
    wrist = x - size * look.wrist * math.cos(turned), y - size * look.wrist * math.sin(turned)
    return Joints(wrist, (x, y), turned, aimed)


def _seen(local: Place, camera: Place) -> Place:
    place = camera[:, :2] @ local
    place[:, 2] += camera[:, 2]
    return np.asarray(place, np.float64)


class Instruments:
    """The instruments (object ids from 1, in order), and the fold of tissue that may cover a tip."""

    def __init__(self, bodies: list[Body], flap: Piece) -> None:
        self.bodies, self._flap = bodies, flap
        pieces = [piece for body in bodies for piece in (body.shaft, body.label, body.wrist, *body.jaws) if piece]
        self._pieces = [*pieces, flap]
        self._index = {id(piece): number for number, piece in enumerate(self._pieces)}

    @property
    def textures(self) -> tuple[ImageU8, ...]:
        return tuple(piece.texture_hwc for piece in self._pieces)

    def sprites(self, pose: Pose, camera: Place, sinks: bool) -> list[Sprite]:
        """An instrument's pieces, the farthest first; `sinks`: the tissue that it holds covers its tip."""
        body = self.bodies[pose.body]
        look, joint, found = body.look, joints(pose, body), []

        def put(piece: Piece, part: Part, at: tuple[float, float], angle: float, across: float = 1.0) -> None:
            place = _seen(piece.place(*at, angle, across, pose.scale), camera)
            found.append(Sprite(self._index[id(piece)], place, pose.body + 1, int(part), look.gain))

        facing = math.cos(pose.roll)  # 1: the jaws open to the sides; 0: towards the camera
        side = math.copysign(1.0, facing)
        if len(body.jaws) == 2:
            for jaw, opens in zip(body.jaws, (-side, side), strict=True):
                angle = joint.aimed + opens * pose.opening * abs(facing)
                put(jaw, Part.TIP, joint.pin, angle, side * (0.5 + 0.5 * abs(facing)))
        else:
            turns = look.kind is ToolKind.HOOK
            put(body.jaws[0], Part.TIP, joint.pin, joint.aimed, side * max(abs(facing), 0.25) if turns else 1.0)
        put(body.wrist, Part.WRIST, joint.wrist, joint.turned, 0.8 + 0.2 * abs(facing))
        put(body.shaft, Part.SHAFT, joint.wrist, pose.heading)
        if body.label is not None and facing > 0.15:
            size, (cos, sin) = look.width * pose.scale, (math.cos(pose.heading), math.sin(pose.heading))
            back, aside = LABEL_AT * size, (0.5 - LABEL_HALF * facing) * size * math.sin(pose.roll)  # inside
            at = joint.wrist[0] - back * cos - aside * sin, joint.wrist[1] - back * sin + aside * cos
            put(body.label, Part.SHAFT, at, pose.heading, facing)
        if sinks and pose.grip > 0:
            flap = self._flap.place(pose.x, pose.y, joint.aimed, 1.0, pose.grip * min(1.0, 9 * look.width))
            found.append(Sprite(self._index[id(self._flap)], _seen(flap, camera), 0, 0))
        return found

    def glints(self, pose: Pose, camera: Place, seconds: float, strength: float) -> list[Glint]:
        """Highlights that move along an instrument as it moves."""
        body = self.bodies[pose.body]
        joint, size, found = joints(pose, body), body.look.width * pose.scale, []
        for k, along in enumerate((-1.2 + 0.9 * math.sin(0.9 * seconds + pose.body), 0.25)):
            angle = joint.turned if along > 0 else pose.heading
            x = joint.wrist[0] + size * (along * math.cos(angle) + 0.14 * math.sin(angle))
            y = joint.wrist[1] + size * (along * math.sin(angle) - 0.14 * math.cos(angle))
            seen_x, seen_y = camera[:, :2] @ (x, y) + camera[:, 2]
            flicker = 0.6 + 0.4 * math.sin(1.3 * seconds + 2 * k + pose.body)
            level = 230 * body.look.gloss * strength * flicker
            found.append(Glint(float(seen_x), float(seen_y), 0.11 * size, level, pose.body + 1))
        return found
