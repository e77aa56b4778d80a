"""Drawn frames: the synthetic endoscope, with the exact mask of each instrument, and frames that carry a number.

A `Scene` is made once from a seed and `Options`. `scene.view(seconds)` describes one moment of it as a small value, and
two renderers draw that: `render_cv2`, one picture at a time on a CPU, and `batch.render_batch`, many at once in torch,
for training. A mask holds exactly the pixels that the picture took from an instrument, before lens and sensor. Nothing
in front of an instrument ever hides it completely (smoke, fog, drops and grease let at least a twentieth of it through;
blood lies on tissue and is painted on instruments), so the ground truth is what is visible: only other instruments,
folds of tissue and the endoscope's dark surround cut it. The ground truth of an interlaced picture is interlaced.

    source.py     `synthetic:...` as a source of frames         coded.py    `coded:...`: frames that carry their number
    uri.py        the keys of these uris                        options.py  what a scene contains
    scene.py      puts a scene together, from tissue.py (with vessels.py), instruments.py (looks.py, metal.py,
                  instrument_pieces.py), moves.py, camera.py, atmosphere.py and grade.py
    view.py       one moment as a value; draw.py and batch.py render it, with what they share in raster.py
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .draw import render_cv2
    from .options import Options, Site, ToolKind
    from .scene import Clip, Scene
    from .source import EndoscopeSource
    from .uri import HELD_OUT_SEED
    from .view import Part, Picture, View

# A name is imported when it is first used: a process that only needs a seed does not load the renderers.
_HOMES = {
    "Clip": "scene",
    "EndoscopeSource": "source",
    "HELD_OUT_SEED": "uri",
    "Options": "options",
    "Part": "view",
    "Picture": "view",
    "Scene": "scene",
    "Site": "options",
    "ToolKind": "options",
    "View": "view",
    "render_cv2": "draw",
}

__all__ = [
    "HELD_OUT_SEED",
    "Clip",
    "EndoscopeSource",
    "Options",
    "Part",
    "Picture",
    "Scene",
    "Site",
    "ToolKind",
    "View",
    "render_cv2",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
