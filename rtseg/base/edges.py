"""Masks with their edges where the picture has them.

The network's masks have cells of several pixels, so where in a cell an edge runs is uncertain. Each cell becomes 4 x 4
parts. A part of a cell beside an edge takes the logits of the cells around it that have its colour: joint bilateral
upsampling (Kopf et al., "Joint Bilateral Upsampling", SIGGRAPH 2007). Half of what that would do without any colours,
which is to smooth, is taken back, so that corners and thin parts stay where colours say nothing. Colours are projected
on one axis, on which the object and its surroundings differ most (Fisher's linear discriminant).

Cells that are not beside an edge, and parts of whose logit the network is sure, keep what bilinear resizing gives.
The cost grows with the length of the edges, not with the size of the picture. `refine` is the plain form of what
`rt_*_edges` in engine/cpu/simd/edges.h does.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from .frame import Frame, ImageU8, Sampled

PARTS = 4  # of a cell, along each side
MOST = 640  # parts along a side; a network with smaller cells keeps its own edges
_LEAST = PARTS**2  # pixels of the picture in a cell; smaller cells need no parts
SURE = 4.0  # bilinear logits with a larger magnitude are kept
CLIP = 6.0  # magnitude to which a cell's logit is clipped for its neighbours
ALIKE = 0.06  # standard deviation of similar colours, as a fraction of the range near edges
_REACH = 1.3  # standard deviation in space, in cells
ANY = 1e-3  # least weight of a cell: if none is similar, all count
BACK = 0.5  # share of the smoothing that is taken back
NOISE = 0.002 * 255**2  # variance of a colour by noise
FEW = 4  # cells on a side of the edge, below which its colours are not known
_BESIDE, _AROUND = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

BoolMask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Refine = Callable[[Float32, ImageU8, Float32], None]
"""Changes logits [4 h, 4 w] near edges, given the network's [h, w] and a picture uint8 [4 h, 4 w, 3]."""


class Guide:
    """A picture as the edges of masks need it: uint8 [4 h, 4 w, 3] for logits [h, w]. It is a copy."""

    def __init__(self, parts_hwc: ImageU8, refine: Refine) -> None:
        self._parts_hwc, self._refine = parts_hwc, refine

    @staticmethod
    def of(frame: Frame, rows: int, columns: int, compiled: Refine | None = None) -> Guide | None:
        """The guide for logits [rows, columns] on a frame; None if cells are too small or too many to have parts.

        `compiled`: a compiled form of `refine`.
        """
        size = PARTS * columns, PARTS * rows
        if frame.height * frame.width < _LEAST * rows * columns or max(size) > MOST:
            return None
        twice = 2 * size[0], 2 * size[1]  # four samples of the picture for each part
        image_hwc: ImageU8 | Sampled = frame.image_hwc
        if isinstance(image_hwc, np.ndarray):
            sampled_hwc = cv2.resize(image_hwc, twice, interpolation=cv2.INTER_LINEAR)
        else:
            sampled_hwc = image_hwc.resized(*twice)
        parts_hwc = cv2.resize(sampled_hwc, size, interpolation=cv2.INTER_AREA)
        return Guide(np.asarray(parts_hwc, np.uint8), compiled or refine)

    def fit(self, logits_hw: Float32) -> Float32:
        """Logits, float32 [h, w], as [4 h, 4 w]: bilinear, and by colour near edges."""
        logits_hw = np.ascontiguousarray(logits_hw, np.float32)
        size = self._parts_hwc.shape[1::-1]
        bilinear_hw = np.asarray(cv2.resize(logits_hw, size, interpolation=cv2.INTER_LINEAR), np.float32)
        out_hw = bilinear_hw.copy()
        self._refine(logits_hw, self._parts_hwc, out_hw)
        _keep_thin(logits_hw, bilinear_hw, out_hw)
        return out_hw


def refine(logits_hw: Float32, parts_hwc: ImageU8, out_hw: Float32) -> None:
    """Change the bilinear logits `out_hw` [4 h, 4 w] near edges, in place. See the head of this file."""
    inside_hw = (logits_hw > 0).astype(np.uint8)
    edge_hw = cv2.dilate(inside_hw, _BESIDE) - cv2.erode(inside_hw, _BESIDE)  # cells beside a change of sign
    y_n, x_n = np.nonzero(edge_hw)
    if not len(y_n):
        return
    near_hw = cv2.dilate(edge_hw, _AROUND) > 0
    rows, columns = logits_hw.shape
    parts = parts_hwc.reshape(rows, PARTS, columns, PARTS, 3)
    y_m, x_m = np.nonzero(near_hw)
    cells_mc = parts[y_m, :, x_m].astype(np.float32).mean((1, 2))
    axis_c = _axis(cells_mc, logits_hw[near_hw] > 0)
    level_hw = np.zeros((rows, columns), np.float32)
    level_hw[near_hw] = levels_m = cells_mc @ axis_c
    low, top = float(levels_m.min()), float(levels_m.max())
    alike = max(float(np.hypot(ALIKE * (top - low), _noise(parts, near_hw & (edge_hw == 0), axis_c))), 1e-6)
    # A part of a thin object has more of its colour than any cell, and is most like the cells that have most of it.
    levels_npp = np.clip(parts[y_n, :, x_n].astype(np.float32) @ axis_c, low, top)
    bilinear_npp = out_hw.reshape(rows, PARTS, columns, PARTS)[y_n, :, x_n]
    by_colour_npp, smooth_npp = _averages(logits_hw, level_hw, y_n, x_n, levels_npp / alike, alike)
    moved_npp = by_colour_npp + np.float32(BACK) * (bilinear_npp - smooth_npp)
    unsure_npp = np.abs(bilinear_npp) < SURE
    out_hw.reshape(rows, PARTS, columns, PARTS)[y_n, :, x_n] = np.where(unsure_npp, moved_npp, bilinear_npp)


def _keep_thin(logits_hw: Float32, bilinear_hw: Float32, out_hw: Float32) -> None:
    """Keep what is thinner than three cells from being smoothed away: there, all of the smoothing is taken back.

    A piece of a mask that would still vanish keeps its bilinear logits, and at least a quarter of each cell.
    """
    inside_hw = (logits_hw > 0).astype(np.uint8)
    thin_hw = cv2.subtract(inside_hw, np.asarray(cv2.morphologyEx(inside_hw, cv2.MORPH_OPEN, _BESIDE), np.uint8))
    y_n, x_n = np.nonzero(thin_hw)
    if not len(y_n):
        return
    rows, columns = logits_hw.shape
    out, bilinear = (x_hw.reshape(rows, PARTS, columns, PARTS) for x_hw in (out_hw, bilinear_hw))
    clipped_hw = np.pad(np.clip(logits_hw, -CLIP, CLIP), 2, mode="edge")
    around_nt = np.stack([clipped_hw[y_n + t // 5, x_n + t % 5] for t in range(len(WEIGHTS))], axis=1)
    smooth_npp = np.tensordot(around_nt, WEIGHTS / WEIGHTS.sum(0), 1)
    before_npp = bilinear[y_n, :, x_n]
    back_npp = np.float32(1 - BACK) * (before_npp - smooth_npp)
    after_npp = out[y_n, :, x_n] + np.where(np.abs(before_npp) < SURE, back_npp, 0)
    out[y_n, :, x_n] = after_npp
    piece_hw = np.asarray(cv2.connectedComponents(inside_hw)[1])
    piece_n, thick = piece_hw[y_n, x_n], piece_hw[(inside_hw > 0) & (thin_hw == 0)]  # what is not thin stays
    there = np.concatenate((thick, piece_n[(after_npp > 0).any((1, 2))]))
    gone_n = ~np.isin(piece_n, there)
    kept_npp = before_npp[gone_n]
    middle_npp = kept_npp[:, 1:3, 1:3]  # a single cell may be above 0 between its parts alone
    kept_npp[:, 1:3, 1:3] = np.maximum(middle_npp, logits_hw[y_n[gone_n], x_n[gone_n]][:, None, None])
    out[y_n[gone_n], :, x_n[gone_n]] = kept_npp


def _axis(cells_mc: Float32, inside_m: BoolMask) -> Float32:
    """The axis [3] in RGB on which cells of the object near its edge differ most from cells outside."""
    inside, outside = cells_mc[inside_m], cells_mc[~inside_m]
    if min(len(inside), len(outside)) < FEW:
        return _LUMA
    spread_33 = (np.cov(inside.T) + np.cov(outside.T)) / 2 + NOISE * np.eye(3)
    return np.asarray(np.linalg.solve(spread_33, inside.mean(0) - outside.mean(0)), np.float32)


def _noise(parts: ImageU8, plain_hw: BoolMask, axis_c: Float32) -> float:
    """The standard deviation of the parts within a cell, on the axis: noise and texture of cells without an edge."""
    y_m, x_m = np.nonzero(plain_hw)
    levels_mpp = parts[y_m, :, x_m].astype(np.float32) @ axis_c
    return float(np.sqrt(levels_mpp.var(axis=(1, 2)).mean())) if len(y_m) else 0.0


def _weights() -> Float32:
    """The weight by distance of each of the 5 x 5 cells around a cell, for each of its parts: [25, 4, 4]."""
    part_p = (np.arange(PARTS) + 0.5) / PARTS - 0.5
    away_tp = np.exp(-((np.arange(-2, 3)[:, None] - part_p) ** 2) / (2 * _REACH**2))
    weights_ttpp = away_tp[:, None, :, None] * away_tp[None, :, None, :]
    return np.asarray(weights_ttpp.reshape(25, PARTS, PARTS), np.float32)


WEIGHTS = _weights()


def _averages(
    logits_hw: Float32, level_hw: Float32, y_n: npt.NDArray[np.intp], x_n: npt.NDArray[np.intp], levels_npp: Float32,
    alike: float,
) -> tuple[Float32, Float32]:  # fmt: skip
    """The mean logit of the 5 x 5 cells around each part [n, 4, 4]: of those with its colour, and of all.

    The picture's border is repeated outside. `levels_npp` are in units of `alike`.
    """
    logits_hw = np.pad(np.clip(logits_hw, -CLIP, CLIP), 2, mode="edge")
    level_hw = np.pad(level_hw, 2, mode="edge") / np.float32(alike)
    sums, weights, smooth = (np.zeros_like(levels_npp) for _ in range(3))
    for t, weight_pp in enumerate(WEIGHTS):
        at = y_n + t // 5, x_n + t % 5
        logit_n11, level_n11 = (values_hw[at][:, None, None] for values_hw in (logits_hw, level_hw))
        weight_npp = weight_pp * (np.exp((levels_npp - level_n11) ** 2 * np.float32(-0.5)) + np.float32(ANY))
        sums += weight_npp * logit_n11
        weights += weight_npp
        smooth += weight_pp * logit_n11
    return sums / weights, smooth / WEIGHTS.sum(0)
