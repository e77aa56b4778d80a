"""Plots of each sequence: J and F of each object from its first prompt to the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.errors import ConfigError
from .pictures import file_names, short
from .result import Result, Row, Tracked, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart; on grey paper J and F differ by their line styles.
J_COLOR, F_COLOR, FALSE_COLOR, PROMPT_COLOR, ABSENT_COLOR = "#0072B2", "#E69F00", "#D55E00", "#000000", "#E4E4E4"
TITLE = 80  # letters of a name that fit above a plot
MOST = 16  # objects at most, each with its plot: those with the least J
FEW = 60  # up to this many rows each gets a dot, and up to this many prompts each gets a line
ABSENT = "no plots: matplotlib is not installed; pip install 'rtseg[eval]'"


def draw(result: Result, folder: Path) -> list[Path]:
    """Write one PNG for each sequence with rows, and return their paths. Raises `ConfigError` without matplotlib."""
    try:
        from matplotlib import rc_context
    except ImportError as e:
        raise ConfigError(ABSENT) from e
    by_sequence: dict[str, list[Row]] = {}
    for row in result.rows:
        by_sequence.setdefault(row.sequence, []).append(row)
    names = file_names(by_sequence)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9}):
        for name, rows in by_sequence.items():
            figure = sequence(name, rows, prompted(result.tracked[name]))
            figure.savefig(folder / f"{names[name]}.png", format="png", dpi=120)
    return [folder / f"{file}.png" for file in names.values()]


def prompted(tracked: Tracked) -> dict[int, list[int]]:
    """The frames on which each object was prompted."""
    frames: dict[int, set[int]] = {}
    for entry in tracked.prompts:
        frames.setdefault(entry["id"], set()).add(entry["frame"])
    return {object_id: sorted(of_object) for object_id, of_object in frames.items()}


def sequence(name: str, rows: Sequence[Row], prompts: Mapping[int, Sequence[int]]) -> Figure:
    """J and F of each object over the frames of one sequence: one plot for each object, with a common axis of frames.

    `prompts` are the prompted frames of each object. Of more than `MOST` objects, those with the least J are drawn.
    """
    from matplotlib.figure import Figure

    by_object: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.frame):
        by_object.setdefault(row.object, []).append(row)
    title = short(name, TITLE)
    if len(by_object) > MOST:
        title += f": {MOST} of {len(by_object)} objects, those with the least J"
        worst = sorted(by_object, key=lambda i: _j(by_object[i]))[:MOST]
        by_object = {i: by_object[i] for i in sorted(worst)}
    figure = Figure(figsize=(9, 1.1 + 1.35 * len(by_object)), layout="constrained")
    plots = figure.subplots(len(by_object), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (object_id, of_object) in zip(plots, by_object.items(), strict=True):
        _draw_object(axes, of_object, prompts.get(object_id, ()))
    frames = [*(row.frame for row in rows), *chain(*prompts.values())]
    margin = max(0.5, 0.01 * (max(frames) - min(frames)))
    plots[-1].set(xlim=(min(frames) - margin, max(frames) + margin), ylim=(-0.04, 1.04), yticks=(0, 0.5, 1))
    plots[-1].set_xlabel("frame")
    plots[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    _legend(figure, rows, any(prompts.values()))
    return figure


def _draw_object(axes: Axes, rows: Sequence[Row], prompts: Sequence[int]) -> None:
    """Draw the plot of one object; `rows` are in the order of frames."""
    frames = np.array([row.frame for row in rows])
    present = np.array([row.truth_area > 0 for row in rows])
    for start, end in _spans(frames, ~present):
        axes.axvspan(start, end, color=ABSENT_COLOR, linewidth=0, zorder=0)
    dot = "." if len(rows) <= FEW else ""
    # On frames without the object, J and F only say whether anything is drawn; the crosses show that.
    for figures, color, style in (("iou", J_COLOR, "-"), ("boundary", F_COLOR, "--")):
        values = np.where(present, [getattr(row, figures) for row in rows], np.nan)
        axes.plot(frames, values, style, color=color, linewidth=1.1, marker=dot, markersize=4)
    false = np.array([row.truth_area == 0 and row.mask_area > 0 for row in rows])
    # Marks on the edge are drawn whole (clip_on=False); an empty plot with that setting would break the layout.
    for places, height, mark, color in ((frames[false], 0, "x", FALSE_COLOR), (prompts, 1.04, "v", PROMPT_COLOR)):
        if len(places):
            axes.plot(places, np.full(len(places), height), mark, color=color, markersize=5, clip_on=False)
    for frame in prompts if len(prompts) <= FEW else ():
        axes.axvline(frame, color=PROMPT_COLOR, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_title(_title(rows), loc="left")
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)


def _j(rows: Sequence[Row]) -> float:
    """An object's J as a sort key; an object of which every mask was given comes last."""
    own = [row.iou for row in rows if not row.given]
    return fmean(own) if own else 2.0


def _title(rows: Sequence[Row]) -> str:
    first = rows[0]
    name = short(named(first.object, first.label), TITLE)
    own = [row for row in rows if not row.given]
    if not own:
        return f"{name}: every mask was given"
    j, f = (fmean(getattr(row, figure) for row in own) for figure in ("iou", "boundary"))
    return f"{name}: J {j:.3f}, F {f:.3f}"


def _spans(frames: npt.NDArray[np.int_], taken: npt.NDArray[np.bool_]) -> Iterator[tuple[float, float]]:
    """The start and end of each run of `taken` frames, in the middle of the gaps to its neighbours."""
    middles = (frames[1:] + frames[:-1]) / 2
    edges = np.r_[frames[0] - 0.5, middles, frames[-1] + 0.5]
    steps = np.diff(np.r_[False, taken, False].astype(np.int8))
    for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        yield float(edges[start]), float(edges[end])


def _legend(figure: Figure, rows: Sequence[Row], prompted: bool) -> None:
    """Draw a legend of the marks that this sequence has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = [
        Line2D([], [], color=J_COLOR, label="J (IoU)"),
        Line2D([], [], color=F_COLOR, linestyle="--", label="F (boundary)"),
    ]
    if prompted:
        handles.append(Line2D([], [], color=PROMPT_COLOR, marker="v", linestyle=":", label="prompted"))
    if any(not row.truth_area for row in rows):
        handles.append(Patch(color=ABSENT_COLOR, label="absent in the truth"))
    if any(row.mask_area and not row.truth_area for row in rows):
        handles.append(Line2D([], [], color=FALSE_COLOR, marker="x", linestyle="", label="drawn though absent"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
