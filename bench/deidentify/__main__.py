"""De-identification: what it lets through, and what it hides without need.

    python -m bench.deidentify --data DATA [--sheets DIR] [--json FILE] [--train]

DATA is a folder with laparoscopy-stills/, endovis15-stills/, clips/, davis-train/, davis-subset/ and bsds500/. Videos
are divided into training and test. Three tables, each share with its 95% interval (Wilson):

    pictures    single pictures of the test, by kind, and variants of them: out-of-body ones that are hidden
                (sensitivity), and pictures from inside a body that are (false alarms)
    streams     frames of clips, of synthetic scenes, and of both joined with pictures from outside: those shown that
                should not be; those hidden that no margin excuses
    text        burned-in texts that are black in every frame, and what is black without text

`--train` trains the classifier first and writes rtseg/offline/deidentify/weights.json. `--sheets` writes the worst
cases.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtseg.base.types import ImageU8
from rtseg.offline.deidentify.classifier import WEIGHTS, Classifier, shipped

from .overlays import COVERED, FRAMES, masked_share, overlays
from .pictures import Example, examples, is_test
from .streams import clip, streams
from .train import table, train
from .variants import vary, withdrawn

Row = dict[str, Any]
TILE, COLUMNS, MOST = (240, 180), 6, 30


def interval(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of k of n."""
    if not n:
        return 0.0, 1.0
    p, d = k / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / d, z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return max(0.0, middle - half), min(1.0, middle + half)


def row(name: str, k: int, n: int) -> Row:
    k, n = int(k), int(n)  # numpy's are no JSON
    low, high = interval(k, n)
    share = k / n if n else 0.0
    print(f"| {name:44} | {k:5} of {n:5} | {share:7.2%} | {low:.2%} to {high:.2%} |", flush=True)
    return {"name": name, "k": k, "n": n, "share": share, "low": low, "high": high}


def pictures(found: Sequence[Example], classifier: Classifier, sheets: Path | None) -> list[Row]:
    """The table of single pictures. A picture that cannot be judged is hidden."""
    inside, outside = [e for e in found if not e.out], [e for e in found if e.out]
    given = [(e.image_hwc, e.out, e.kind) for e in found]
    given += [(vary(e, 7_000_000 + n), e.out, f"{e.kind}, varied") for n, e in enumerate(found)]
    for n in range(300):
        a, b = inside[n * 7 % len(inside)], outside[n * 11 % len(outside)]
        given.append((withdrawn(a.image_hwc, b.image_hwc, 8_000_000 + n), True, "withdrawn, a third or more outside"))
    verdicts = [classifier.judge(image_hwc) for image_hwc, _, _ in given]
    rows = []
    for out in (True, False):
        print(f"\n| {'out-of-body, hidden' if out else 'inside, hidden (false alarms)':44} | | | 95% |")
        for kind in sorted({kind for _, is_out, kind in given if is_out == out}):
            of = [v for v, (_, is_out, its) in zip(verdicts, given, strict=True) if (is_out, its) == (out, kind)]
            rows.append(row(kind, sum(v.out >= classifier.enter for v in of), len(of)))
        wrong = [
            (v.out, g[0])
            for v, g in zip(verdicts, given, strict=True)
            if g[1] == out and (v.out >= classifier.enter) != out
        ]
        wrong.sort(key=lambda one: one[0], reverse=not out)
        sheet(sheets, "missed" if out else "alarms", [image_hwc for _, image_hwc in wrong])
    return rows


def all_streams(data: Path, sheets: Path | None) -> list[Row]:
    found, rows = list(streams(data)), []
    for kind in ("clip", "scene", "joined"):
        of = [one for one in found if one.name.startswith(kind)]
        print(f"\n| streams, {kind} ({len(of)}) | | | 95% |")
        if kind == "joined":
            rows.append(row("frames outside that are shown", sum(s.shown for s in of), sum(s.outside for s in of)))
            rows.append(row("streams with such a frame", sum(s.shown > 0 for s in of), len(of)))
        rows.append(row("frames inside that are hidden", sum(s.hidden for s in of), sum(s.inside for s in of)))
        for one in of:
            if one.shown or one.hidden:
                print(f"    {one.name}: {one.shown} of {one.outside} shown, {one.hidden} of {one.inside} hidden")
    sheet(sheets, "streams-leaks", [s.leak for s in found if s.leak is not None])
    sheet(sheets, "streams-alarms", [s.alarm for s in found if s.alarm is not None])
    return rows


def all_texts(data: Path, sheets: Path | None) -> list[Row]:
    found = sorted(overlays(data), key=lambda one: one.covered)
    print("\n| text | | | 95% |")
    rows = [
        row(
            f"texts of whose ink {COVERED:.0%} is black in each frame",
            sum(o.covered >= COVERED for o in found),
            len(found),
        )
    ]
    for one in found:
        if one.covered < COVERED:
            print(f"    {one.name}: {one.covered:.1%} black in its worst frame")
    for name in ("laparoscopy_720p.mp4", "cholecystectomy_480p.mp4"):
        share = masked_share(clip(data / "clips" / name, FRAMES))
        print(f"    {name}: without text {share:.1%} of the lit picture is black")
        rows.append({"name": f"black without text, {name}", "share": share})
    sheet(sheets, "text", [one.worst_hwc for one in found])
    return rows


def sheet(folder: Path | None, name: str, images: Sequence[ImageU8]) -> None:
    """A contact sheet of the first of these pictures."""
    if folder is None or not images:
        return
    tiles = [cv2.resize(image_hwc, TILE, interpolation=cv2.INTER_AREA) for image_hwc in images[:MOST]]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), np.vstack(rows)[..., ::-1])


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.deidentify`."""
    parser = argparse.ArgumentParser(prog="python -m bench.deidentify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", action="store_true", help="train the classifier first, and write its weights")
    parser.add_argument("--only", choices=("pictures", "streams", "text"), help="one of the three tables")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write contact sheets of the worst cases")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    given = parser.parse_args(arguments)
    found = list(examples(given.data)) if given.train or given.only in (None, "pictures") else []
    if given.train:
        classifier, _ = train(table([e for e in found if not is_test(e.video)]))
        WEIGHTS.write_text(json.dumps(classifier.document()) + "\n", "utf-8")
        shipped.cache_clear()
        print(f"{WEIGHTS}: {len(classifier.leaf_tl)} trees, enter {classifier.enter}, leave {classifier.leave}")
    figures: dict[str, list[Row]] = {}
    if given.only in (None, "pictures"):
        figures["pictures"] = pictures([e for e in found if is_test(e.video)], shipped(), given.sheets)
    if given.only in (None, "streams"):
        figures["streams"] = all_streams(given.data, given.sheets)
    if given.only in (None, "text"):
        figures["text"] = all_texts(given.data, given.sheets)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
