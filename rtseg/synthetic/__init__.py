"""The synthetic endoscope: tissue, instruments and all that a camera does, with the exact mask of each.

A `Scene` is made once from a seed and `Options`; `scene.view(seconds)` is a moment of it as a small value, and two
renderers draw that: `render_cv2`, one picture at a time, and `batch.render_batch`, many at once in torch. A mask is
exactly the pixels that the picture took from a tool, before lens and sensor. Nothing in front of a tool ever hides it
(smoke, fog, drops and grease let at least a twentieth of it through, blood lies on tissue and is painted on tools), so
the truth is what is visible, and only tools, folds of tissue and the endoscope's surround cut it. An interlaced
picture's truth is interlaced.
"""

from .draw import render_cv2
from .options import Options, Site, ToolKind
from .scene import Clip, Scene
from .source import EndoscopeSource
from .view import Part, Picture, View

__all__ = [
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
