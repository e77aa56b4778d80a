"""Three plots of a benchmark's document: latency over time, over the number of objects, and against accuracy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
# Okabe and Ito's colours, which colour-blind people can tell apart, also on grey paper; markers for more than eight.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#555555"
LEAST_IOU_SPAN = 0.1  # of the axis, so that an insignificant difference does not fill the plot
TITLE = 100  # letters that fit above a plot
ABSENT = "no plots: matplotlib is not installed; pip install 'rtseg[bench]'"


def draw(document: Row, folder: Path) -> tuple[list[Path], str | None]:
    """Write the plots as PNG files into a folder. Returns their paths, and a line if matplotlib is not installed."""
    try:
        from matplotlib import rc_context
    except ImportError:
        return [], ABSENT
    engines = document["engines"]
    figures: dict[str, Figure] = {}
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9}):
        if engines:
            figures["latency.png"] = latency(engines)
            if len(document["settings"]["objects"]) > 1:
                figures["objects.png"] = objects(engines)
        if any(engine["iou"] is not None for engine in engines):
            figures["accuracy.png"] = accuracy(engines)
        for name, figure in figures.items():
            with atomic_path(folder / name) as part:
                figure.savefig(part, format="png", dpi=180)
    return [folder / name for name in figures], None


def latency(engines: Sequence[Row]) -> Figure:
    """The times of each engine's frames, in the order of measuring, with p50 and p99, for the fewest objects."""
    figure = _figure(7.2, 0.75 + 1.55 * len(engines))
    rows = figure.subplots(len(engines), 1, sharex=True, squeeze=False)[:, 0]
    for axes, engine, (color, _) in zip(rows, engines, _looks(engines), strict=True):
        row = engine["by_objects"][0]
        blocks = row["samples_ms"]
        start = 0
        for block in blocks:
            axes.plot(range(start, start + len(block)), block, color=color, linewidth=0.8)
            start += len(block)
            if start < sum(map(len, blocks)):
                axes.axvline(start - 0.5, color="#DDDDDD", linewidth=0.8, zorder=0)
        _percentiles(axes, row["end_to_end_ms"], start)
        title = f"{engine['name']}, {_objects(row['objects'])}: {engine['engine']}"
        axes.set_title(textwrap.shorten(title, TITLE, placeholder=" ..."), loc="left")
        axes.set_ylabel("ms per frame")
        axes.set_xlim(0, max(1, start - 1))
    rows[-1].set_xlabel("measured frame; grey lines part the blocks, between which the other engines ran")
    return figure


def _percentiles(axes: Axes, times: Row, end: int) -> None:
    """Draw lines at p50 and p99, with names beside the plot that do not overlap."""
    top = 1.12 * times["max"]
    axes.set_ylim(0, top)
    low = min(times["p50"], times["p99"] - 0.13 * top)
    for name, style, height in (("p50", "-", low), ("p99", "--", times["p99"])):
        axes.axhline(times[name], color=GREY, linewidth=0.9, linestyle=style)
        place: Row = {"xycoords": ("axes fraction", "data"), "annotation_clip": False, "va": "center"}
        axes.annotate(f" {name} {times[name]:.3g} ms", (1, height), color=GREY, **place)


def objects(engines: Sequence[Row]) -> Figure:
    """The median time over the number of objects, with bars from the fastest to the slowest block, and E + M n."""
    figure = _figure(7.2, 4.0)
    axes = figure.subplots()
    for i, (engine, (color, marker)) in enumerate(zip(engines, _looks(engines), strict=True)):
        numbers = np.array([row["objects"] for row in engine["by_objects"]])
        aside = 0.05 * (i - (len(engines) - 1) / 2)  # a shift, so that one engine's bar does not hide another's
        p50 = [row["end_to_end_ms"]["p50"] for row in engine["by_objects"]]
        ends = np.array([[row["block_medians_ms"][key] for row in engine["by_objects"]] for key in ("min", "max")])
        reach = np.maximum(0, [p50 - ends[0], ends[1] - p50])
        label, fit = engine["name"], engine["fit"]
        if fit is not None:
            label += f"\nE {fit['e_ms']:.3g} ms, M {fit['m_ms']:.3g} ms"
            line = np.array([0, numbers.max()])
            axes.plot(line, fit["e_ms"] + fit["m_ms"] * line, color=color, linewidth=0.9)
        look: Row = {"color": color, "fmt": marker, "markersize": 5, "elinewidth": 1, "capsize": 2}
        axes.errorbar(numbers + aside, p50, reach, label=label, **look)
    axes.set(xlabel="objects", ylabel="ms per frame (p50; bars: medians of the blocks)", xlim=(0, None), ylim=(0, None))
    axes.set_title("lines: least squares of E + M n", loc="left")
    axes.set_xticks(sorted({0, *(row["objects"] for engine in engines for row in engine["by_objects"])}))
    _legend(figure)
    return figure


def accuracy(engines: Sequence[Row]) -> Figure:
    """IoU against time, with bars to p95. The best place is the upper left."""
    figure = _figure(7.2, 4.0)
    axes = figure.subplots()
    for engine, (color, marker) in zip(engines, _looks(engines), strict=True):
        if engine["iou"] is None:
            continue
        times = engine["by_objects"][0]["end_to_end_ms"]
        bar = [[0], [times["p95"] - times["p50"]]]
        look: Row = {"color": color, "fmt": marker, "markersize": 6, "elinewidth": 1, "capsize": 2}
        axes.errorbar(times["p50"], engine["iou"], xerr=bar, label=engine["name"], **look)
    number = _objects(engines[0]["by_objects"][0]["objects"])
    axes.set(xlabel=f"ms per frame, {number} (p50; bar to p95)", ylabel="IoU on the synthetic endoscope")
    axes.set_xlim(0, None)
    ious = [engine["iou"] for engine in engines if engine["iou"] is not None]
    middle, reach = (max(ious) + min(ious)) / 2, max(LEAST_IOU_SPAN, 1.5 * (max(ious) - min(ious))) / 2
    axes.set_ylim(middle - reach, middle + reach)
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    _legend(figure)
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure of this size in inches. It needs neither a screen nor pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(figure: Figure) -> None:
    """Draw the legend beside the axes, where it hides no point."""
    figure.legend(loc="outside right upper", frameon=False)


def _looks(engines: Sequence[Row]) -> list[tuple[str, str]]:
    return [(COLORS[i % len(COLORS)], MARKERS[(i + i // len(COLORS)) % len(MARKERS)]) for i in range(len(engines))]


def _objects(number: int) -> str:
    return f"{number} object" if number == 1 else f"{number} objects"
