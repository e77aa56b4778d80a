"""Draws docs/drawings: the rooms and what they import, from tests/test_architecture.py, and one frame's way.

python docs/drawings.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "drawings"
WIDTH, BOX_W, BOX_H, ROW_H = 900, 96, 34, 84
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} 0 {width} {height}" '
    'font-family="sans-serif" font-size="14">\n'
    '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#4a6785"/></marker></defs>\n'
    '<rect x="{left}" width="{width}" height="{height}" fill="#ffffff"/>\n'
)
LINE = '<path d="M{0} {1}C{0} {4} {2} {5} {2} {3}" fill="none" stroke="#4a6785" marker-end="url(#to)"/>\n'
# Where a package stands, so that no arrow runs behind a box; a new one stands on the left until it has a column.
COLUMNS = {
    "cli": 450, "adapt": 300, "evaluate": 400, "offline": 800, "build": 300, "live": 450, "track": 300, "data": 690,
    "engine": 300, "grab": 560, "sam2": 300, "synthetic": 560, "publish": 800, "base": 500,
}  # fmt: skip
Packages = dict[str, set[str]]


def packages() -> Packages:
    """What each package may import, as the test says; `base`, which all may, is named too."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "tests" / "test_architecture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    may: Packages = {name: set(below) for name, below in module.MAY.items() if not name.startswith("__")}
    return {name: below | ({"base"} if name != "base" else set()) for name, below in may.items()}


def levels(may: Packages) -> dict[str, int]:
    """How many packages stand below each, one on the other."""
    found: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in found:
            found[name] = 1 + max((level(below) for below in may[name]), default=-1)
        return found[name]

    for name in may:
        level(name)
    return found


def direct(may: Packages) -> list[tuple[str, str]]:
    """The arrows that are not implied by others."""

    def reached(name: str) -> set[str]:
        return set().union(*({below} | reached(below) for below in may[name])) if may[name] else set()

    return sorted(
        (name, below)
        for name, belows in may.items()
        for below in belows
        if not any(below in reached(other) for other in belows)
    )


def box(x: float, y: float, width: float, height: float, text: str, fill: str = "#e8eef5") -> str:
    """A box with a line of text, or with several."""
    lines = text.split("\n")
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="#4a6785"/>\n'
    for number, line in enumerate(lines):
        at = y + height / 2 + 5 + (number - (len(lines) - 1) / 2) * 17
        shape += f'<text x="{x + width / 2:g}" y="{at:g}" text-anchor="middle">{line}</text>\n'
    return shape


def draw_packages(may: Packages) -> str:
    """The packages, each above what it imports."""
    level = levels(may)
    top = max(level.values())
    place = {name: (COLUMNS.get(name, 120), 20 + (top - level[name]) * ROW_H) for name in may}
    height = 20 + top * ROW_H + BOX_H + 20
    left = min(x for x, _ in place.values()) - BOX_W
    text = HEAD.format(left=left, width=WIDTH - left, height=height)
    for name, below in direct(may):
        (x0, y0), (x1, y1) = place[name], place[below]
        text += LINE.format(f"{x0:g}", f"{y0 + BOX_H:g}", f"{x1:g}", f"{y1 - 2:g}", f"{y0 + 60:g}", f"{y1 - 40:g}")
    for name, (x, y) in place.items():
        text += box(x - BOX_W / 2, y, BOX_W, BOX_H, name)
    return f"{text}</svg>\n"


def arrow(x0: float, y0: float, x1: float, y1: float, words: str = "") -> str:
    """A straight arrow with words above it."""
    line = f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="#4a6785" marker-end="url(#to)"/>\n'
    if words:
        middle = f'x="{(x0 + x1) / 2:g}" y="{(y0 + y1) / 2 - 6:g}"'
        line += f'<text {middle} text-anchor="middle" font-size="12">{words}</text>\n'
    return line


def draw_frame() -> str:
    """One frame's way through a feed."""
    ring = "#f6ead2"
    text = HEAD.format(left=0, width=WIDTH, height=310)
    text += box(10, 90, 90, 50, "source", "#ffffff") + arrow(100, 115, 138, 115)
    text += box(140, 80, 110, 70, "grab\nworker") + arrow(250, 115, 288, 115)
    text += box(290, 90, 120, 50, "frame ring", ring)
    text += arrow(410, 105, 608, 105, "every frame") + arrow(350, 140, 350, 218, "")
    text += '<text x="358" y="185" font-size="12">the newest frame</text>\n'
    text += box(290, 220, 120, 70, "segment\nworker") + arrow(410, 255, 448, 255)
    text += box(450, 230, 110, 50, "mask ring", ring) + arrow(560, 250, 640, 152)
    text += box(610, 80, 110, 70, "publish\nworker") + arrow(720, 100, 768, 60) + arrow(720, 130, 768, 180)
    text += box(770, 20, 120, 90, "ZeroMQ:\nvideo, overlay,\nmasks, status", "#ffffff")
    text += box(770, 150, 120, 70, "record\nworker\n(on request)")
    duty = "supervisor: starts, watches and restarts the workers; answers control requests"
    text += box(140, 10, 580, 36, duty, "#eaf3e6")
    for way in ("M195 46L195 78", "M665 46L665 78", "M270 46L270 255L288 255"):
        dashes = 'stroke-dasharray="4 3" marker-end="url(#to)"'
        text += f'<path d="{way}" fill="none" stroke="#4a6785" {dashes}/>\n'
    return f"{text}</svg>\n"


def drawings() -> dict[str, str]:
    """What each file of docs/drawings holds."""
    return {"packages.svg": draw_packages(packages()), "frame.svg": draw_frame()}


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name, text in drawings().items():
        (OUT / name).write_text(text, "utf-8")
