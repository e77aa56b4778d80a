"""Pictures of an evaluation: its worst frames with truth and prediction, and contact sheets of whole sequences."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

import cv2
import numpy as np

from ..base.colors import PALETTE, Rgb, color_of
from ..base.errors import ConfigError
from ..base.rle import decode_rle
from ..base.types import BoolMask, ImageU8
from ..data.dataset import Dataset, Sequence
from ..publish.label import blend_label, place_label, render_label
from ..publish.mask_state import Box
from .result import Result, Row, Tracked, named

TRUTH, PREDICTION = PALETTE[2], PALETTE[0]
PANEL, GAP, LINE = 480, 6, 20  # pixels: the longer side of a panel, the gap between two, the height of a line of text
MOST, EACH = 12, 2  # the most pictures in all, and of one object
OPACITY = 0.45
NAMED = 12  # how many objects of a frame, the largest, get their names drawn
NAME = 40  # letters of a name at most, to leave room for the figures
_PAPER: Rgb = (14, 16, 20)  # the colour of the labels' plates
_TALL = 3 * LINE // 2


def draw_worst(result: Result, dataset: Dataset, folder: Path) -> list[Path]:
    """Write one PNG for each of the `worst` frames: frame, truth, prediction. The names are numbered, worst first."""
    sequences = {sequence.name: sequence for sequence in dataset.sequences}
    paths = []
    for rank, row in enumerate(worst(result.rows), 1):
        name = f"{rank:02d}-{file_name(row.sequence)}-{row.object}-{row.frame:05d}.png"
        paths.append(folder / name)
        write_png(paths[-1], comparison(sequences[row.sequence], result.tracked[row.sequence], row))
    return paths


def draw_sheets(result: Result, dataset: Dataset, folder: Path) -> list[Path]:
    """Write a contact sheet of each sequence as PNG."""
    names = file_names([name for name, tracked in result.tracked.items() if tracked.masks])
    tracked = [sequence for sequence in dataset.sequences if sequence.name in names]
    paths = [folder / f"{names[sequence.name]}.png" for sequence in tracked]
    for sequence, path in zip(tracked, paths, strict=True):
        write_png(path, contact_sheet(sequence, result.tracked[sequence.name]))
    return paths


def worst(rows: Iterable[Row], most: int = MOST, each: int = EACH) -> list[Row]:
    """At most `most` rows with the least IoU, worst first, and at most `each` of one object, spread over its time.

    Frames whose mask was given, or without an error, are left out. Every object's worst frame is chosen before any
    object's second; of rows with equal IoU the one with more wrong pixels is the worse. Two frames of an object are at
    least 1 / (2 `each`) of its annotated time apart.
    """
    by_object: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if not row.given and row.iou < 1:
            by_object.setdefault((row.sequence, row.object), []).append(row)
    ranked = [(rank, row) for of_object in by_object.values() for rank, row in enumerate(_spread(of_object, each))]
    chosen = sorted(ranked, key=lambda pair: (pair[0], _badness(pair[1])))[:most]
    return sorted((row for _, row in chosen), key=_badness)


def _badness(row: Row) -> tuple[float, int, str, int, int]:
    return row.iou, 2 * row.overlap_area - row.truth_area - row.mask_area, row.sequence, row.object, row.frame


def _spread(rows: list[Row], each: int) -> list[Row]:
    frames = [row.frame for row in rows]
    apart = (max(frames) - min(frames)) / (2 * each)
    chosen: list[Row] = []
    for row in sorted(rows, key=_badness):
        if len(chosen) < each and all(abs(row.frame - other.frame) >= max(1, apart) for other in chosen):
            chosen.append(row)
    return chosen


def comparison(sequence: Sequence, tracked: Tracked, row: Row) -> ImageU8:
    """The frame, the truth as an outline and the prediction as a tint, side by side with a caption: uint8 [h, w, 3]."""
    image_hwc = sequence.image(row.frame)
    truth_hw = (sequence.truth(row.frame) or {}).get(row.object)
    mask_hw = masks_of(tracked, row.frame, image_hwc).get(row.object)
    panels = [_shrunk(image_hwc, PANEL) for _ in range(3)]
    if truth_hw is not None:
        outline(panels[1], truth_hw, TRUTH)
    if mask_hw is not None:
        tint(panels[2], mask_hw, PREDICTION)
    titles = (("frame", _PAPER), ("truth" if row.truth_area else "truth: absent", TRUTH))
    title = "prediction" if row.mask_area else "prediction: nothing"
    for panel, (text, color) in zip(panels, (*titles, (title, PREDICTION)), strict=True):
        _corner(panel, text, color)
    who = f"{short(row.sequence, NAME)}   {short(named(row.object, row.label), NAME)}"
    caption = f"{who}   frame {row.frame}   IoU {row.iou:.2f}   F {row.boundary:.2f}"
    return _captioned(_grid(panels, 3), caption)


def contact_sheet(
    sequence: Sequence, tracked: Tracked, count: int = 8, columns: int = 4, width: int = PANEL
) -> ImageU8:
    """`count` evenly spaced frames of a sequence with every object's mask and name: uint8 [h, w, 3].

    They include the first and the last tracked frame, and are fewer if fewer were tracked. `width` is the longer side
    of one frame in pixels.
    """
    frames = sorted(tracked.masks)
    if not frames:
        raise ConfigError(f"{sequence.name}: no frame was tracked; expected masks for a contact sheet")
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    labels = {target.id: target.label for target in sequence.targets}
    tiles = []
    for t in (frames[i] for i in chosen):
        image_hwc = sequence.image(t)
        tile = _shrunk(image_hwc, width)
        _draw_objects(tile, masks_of(tracked, t, image_hwc), labels)
        tiles.append(tile)
        _corner(tile, f"frame {t}", _PAPER)
    return _grid(tiles, columns)


def masks_of(tracked: Tracked, frame: int, image_hwc: ImageU8) -> dict[int, BoolMask]:
    """The masks of one frame that are not empty, bool [H, W], by object."""
    height, width = image_hwc.shape[:2]
    found = {id_: decode_rle(mask.counts, height, width) for id_, mask in tracked.masks.get(frame, {}).items()}
    return {id_: mask_hw for id_, mask_hw in found.items() if mask_hw.any()}


def _draw_objects(tile_hwc: ImageU8, masks: dict[int, BoolMask], labels: dict[int, str]) -> None:
    """Draw tints first, then names, so that no tint covers a name. At most `NAMED` objects, the largest, get names."""
    taken: list[Box] = []
    for id_, mask_hw in masks.items():
        tint(tile_hwc, mask_hw, color_of(id_))
    small = {id_: fitted for id_, mask in masks.items() if (fitted := _fitted(mask, tile_hwc)).any()}
    named_ids = set(sorted(small, key=lambda id_: -int(small[id_].sum()))[:NAMED])
    for id_, small_hw in ((id_, small_hw) for id_, small_hw in small.items() if id_ in named_ids):
        x, y, width, height = cv2.boundingRect(small_hw.view(np.uint8))
        label_hwc = render_label(short(named(id_, labels.get(id_, "")), NAME), color_of(id_), LINE)
        size = label_hwc.shape[1], label_hwc.shape[0]
        taken.append(place_label(small_hw, (x, y, x + width, y + height), size, taken, list(small.values())))
        blend_label(tile_hwc, label_hwc, taken[-1])


def tint(image_hwc: ImageU8, mask_hw: BoolMask, color: Rgb) -> None:
    """Fill and outline a mask on a picture of any size, in place."""
    small_hw = _fitted(mask_hw, image_hwc)
    image_hwc[small_hw] = np.rint(image_hwc[small_hw] * (1 - OPACITY) + np.array(color) * OPACITY)
    outline(image_hwc, mask_hw, color)


def outline(image_hwc: ImageU8, mask_hw: BoolMask, color: Rgb) -> None:
    """Outline a mask on a picture of any size, in place. A dark rim keeps the line visible on any background."""
    contours, _ = cv2.findContours(_fitted(mask_hw, image_hwc).view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for line, thickness in ((_PAPER, 4), (color, 2)):
        cv2.drawContours(image_hwc, contours, -1, line, thickness, cv2.LINE_AA)


def _fitted(mask_hw: BoolMask, image_hwc: ImageU8) -> BoolMask:
    """A mask at the size of a picture. A small mask does not vanish, however much it shrinks."""
    size = image_hwc.shape[1], image_hwc.shape[0]
    cover_hw = cv2.resize(mask_hw.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    found_hw = np.asarray(cover_hw >= 0.5, np.bool_)
    return found_hw if found_hw.any() else np.asarray(cover_hw > 0, np.bool_)


def _shrunk(image_hwc: ImageU8, side: int) -> ImageU8:
    """The picture with its longer side `side` pixels long."""
    scale = side / max(image_hwc.shape[:2])
    size = tuple(max(1, round(scale * length)) for length in image_hwc.shape[1::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(image_hwc, size, interpolation=how), np.uint8)


def _grid(tiles: list[ImageU8], columns: int) -> ImageU8:
    """Pictures in rows of `columns`. Each gets room for the largest, because frames of a folder may differ in size."""
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet_hwc = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, tile_hwc in enumerate(tiles):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet_hwc[y : y + tile_hwc.shape[0], x : x + tile_hwc.shape[1]] = tile_hwc
    return sheet_hwc


def _corner(image_hwc: ImageU8, text: str, color: Rgb) -> None:
    """Draw a label in the lower left corner."""
    label_hwc = render_label(text, color, LINE)
    height, width = image_hwc.shape[:2]
    blend_label(image_hwc, label_hwc, (0, max(0, height - LINE), min(width, label_hwc.shape[1]), height))


def _captioned(image_hwc: ImageU8, text: str) -> ImageU8:
    """The picture with a line of text in a bar above it."""
    bar_hwc = np.full((_TALL, image_hwc.shape[1], 3), _PAPER, np.uint8)
    label_hwc = render_label(text, _PAPER, _TALL)
    blend_label(bar_hwc, label_hwc, (0, 0, min(bar_hwc.shape[1], label_hwc.shape[1]), _TALL))
    return np.concatenate([bar_hwc, image_hwc])


def short(text: str, letters: int) -> str:
    """The text, cut to at most this many letters."""
    return text if len(text) <= letters else text[: letters - 3] + "..."


def file_name(name: str) -> str:
    """A sequence's name as a part of a file's name, in characters that every file system allows."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._") or "sequence"


def file_names(names: Collection[str]) -> dict[str, str]:
    """`file_name` of each, with a number appended to those that would be equal."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = file = file_name(name)
        number = 2
        while file.lower() in taken:
            file, number = f"{plain}-{number}", number + 1
        found[name] = file
        taken.add(file.lower())
    return found


def write_png(path: Path, image_hwc: ImageU8) -> None:
    """Write a picture as PNG. Raises `OSError` if it cannot be written."""
    from PIL import Image

    Image.fromarray(image_hwc).save(path, format="PNG", compress_level=3)
