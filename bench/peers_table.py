"""What `bench.peers` found, for a person to read."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def table(result: dict[str, Any]) -> Table:
    """One row a contender, the slowest first."""
    made = Table(title=result["title"], title_justify="left", box=None, pad_edge=False)
    for name in ("", "policy"):
        made.add_column(name)
    for name in ("p50 ms", "p90 ms", "x transformers fp32", "95%", "x its bf16", "IoU", "first mask ms"):
        made.add_column(name, justify="right")
    for row in sorted(result["rows"], key=lambda row: -row["ms"]["p50"]):
        full, half = row["times_transformers_fp32"], row["times_transformers_bf16"]
        cells = [f"{row['ms']['p50']:.2f}", f"{row['ms']['p90']:.2f}"]
        known = full and full["low"] is not None
        cells += [f"{full['median']:.2f}" if full else "", f"{full['low']:.2f}..{full['high']:.2f}" if known else ""]
        cells += [f"{half['median']:.2f}" if half else "", "" if row["iou"] is None else f"{row['iou']:.4f}"]
        cells += ["" if row["first_mask_ms"] is None else f"{row['first_mask_ms']:.0f}"]
        made.add_row(row["name"] + ("" if row["memory_full"] else ", memory not full"), row["policy"], *cells)
    return made


def by_reason(absent: dict[str, str]) -> dict[str, list[str]]:
    """The names that share a reason, together."""
    return {reason: [name for name in absent if absent[name] == reason] for reason in absent.values()}


def show(result: dict[str, Any]) -> None:
    """The table, and the lines that it cannot be read without."""
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table(result))
    lines = [f"absent: {', '.join(names)}: {reason}" for reason, names in by_reason(result["absent"]).items()]
    lines += [f"IoU where masks are wrong, {name}: {iou:.4f}" for name, iou in result["controls"].items()]
    rates = ", ".join(f"{name} {rate:g}" for name, rate in result["product_rates_tera"].items())
    lines += [f"matrix products, 10^12 operations a second: {rates}; image encoder: {result['encoder_gflop']:g} GFLOP"]
    for row in result["encoders"]:
        near = row["share_of_rate"]
        percents = near and f"{near['median']:.0%} ({near['min']:.0%}..{near['max']:.0%})"
        share = f"; the rest at {percents} of the product rate" if near else ""
        resize = f"of which {row['to_input_ms']:.2f} resize the picture"
        lines.append(f"encode_image, {row['name']}: {row['ms']:.2f} ms, {resize}{share}")
    for line in (*lines, *(f"warning: {text}" for text in result["warnings"])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
