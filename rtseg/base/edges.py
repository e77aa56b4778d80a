"""Masks at the picture's resolution, with their edges moved to the edges of the picture.

The network's masks have cells of several pixels, so the place of an edge between two cells is uncertain. A pixel near
an edge takes the logits of the cells around it that have its colour: joint bilateral upsampling (Kopf et al., "Joint
Bilateral Upsampling", SIGGRAPH 2007). Pixels with a logit far from 0 keep it.

The cost grows with the length of the edges, not with the size of the picture. Colours are projected on one axis, on
which the object and its surroundings differ most. The cells' weights are computed for a few levels on this axis (Paris
and Durand, "A Fast Approximation of the Bilateral Filter", ECCV 2006); a pixel's logit is interpolated between them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_SURE = 4.0  # logits with a larger magnitude are kept
_CLIP = 6.0  # magnitude to which a cell's logit is clipped for its neighbours
_LEVELS = 16  # on the axis of colour
_ALIKE = 0.06  # standard deviation of similar colours, as a fraction of the axis
_REACH = 1.3  # standard deviation in space, in cells
_ANY = 1e-3  # least weight of a cell: if none is similar, all count
_NOISE = 0.002  # variance of a colour by noise
_BESIDE, _AROUND = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
_ROW = 1024  # OpenCV's remap takes at most 32767 places in a row

Float32 = npt.NDArray[np.float32]
ImageU8 = npt.NDArray[np.uint8]


class Guide:
    """A picture, uint8 [H, W, 3], and its mean colours in the cells [rows, columns] of masks on it."""

    def __init__(self, image_hwc: ImageU8, rows: int, columns: int) -> None:
        self._pixels_nc, self._size = np.ascontiguousarray(image_hwc).reshape(-1, 3), image_hwc.shape[:2]
        twice_hwc = cv2.resize(image_hwc, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR)  # four samples
        small_hwc = cv2.resize(twice_hwc, (columns, rows), interpolation=cv2.INTER_AREA)
        self._cells_hwc = np.asarray(small_hwc, np.float32)

    def fit(self, logits_hw: Float32) -> Float32:
        """Logits, float32 [rows, columns], at the picture's size: bilinear, and by colour near edges."""
        height, width = self._size
        full_hw = np.asarray(cv2.resize(logits_hw, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        near_hw = _near_edge(logits_hw)
        x, y, wide, high = cv2.boundingRect(near_hw.view(np.uint8))
        scale_x, scale_y = width / logits_hw.shape[1], height / logits_hw.shape[0]
        x0, y0 = int(x * scale_x), int(y * scale_y)
        x1, y1 = int(np.ceil((x + wide) * scale_x)), int(np.ceil((y + high) * scale_y))
        places = _unsure(full_hw[y0:y1, x0:x1], near_hw[y : y + high, x : x + wide]) if wide else None
        if places is None:
            return full_hw
        x_n, y_n = np.ascontiguousarray(places.reshape(-1, 2).T)
        x_n, y_n = x_n + x0, y_n + y0
        flat_n = y_n * width + x_n
        axis = self._axis(logits_hw, near_hw)
        levels_hw, levels_n = self._cells_hwc @ axis, self._pixels_nc.take(flat_n, axis=0).astype(np.float32) @ axis
        low, top = levels_hw[near_hw].min(), levels_hw[near_hw].max()
        levels_hw, levels_n = (np.clip((v - low) / max(top - low, 1e-6), 0, 1) for v in (levels_hw, levels_n))
        at_x = (x_n + np.float32(0.5)) * np.float32(1 / scale_x) - np.float32(0.5)
        at_y = (y_n + np.float32(0.5)) * np.float32(1 / scale_y) - np.float32(0.5)
        part = slice(y, y + high), slice(x, x + wide)
        weighted_lhw2 = _weighted(logits_hw[part], levels_hw[part])
        full_hw.reshape(-1)[flat_n] = _look_up(weighted_lhw2, at_y - y, at_x - x, levels_n * (_LEVELS - 1))
        return full_hw

    def _axis(self, logits_hw: Float32, near_hw: npt.NDArray[np.bool_]) -> Float32:
        """The axis [3] in RGB on which cells of the object near its edge differ most from cells outside."""
        inside, outside = self._cells_hwc[near_hw & (logits_hw > 0)], self._cells_hwc[near_hw & (logits_hw <= 0)]
        if len(inside) < 4 or len(outside) < 4:
            return np.array([0.299, 0.587, 0.114], np.float32)
        spread_33 = (np.cov(inside.T) + np.cov(outside.T)) / 2 + _NOISE * 255**2 * np.eye(3)
        return np.asarray(np.linalg.solve(spread_33, inside.mean(0) - outside.mean(0)), np.float32)


def _unsure(full_hw: Float32, near_hw: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32] | None:
    """The places (x, y) of pixels near an edge with uncertain logits; None without any."""
    by_edge_hw = cv2.erode(near_hw.view(np.uint8), _AROUND)
    by_edge_hw = cv2.resize(by_edge_hw, full_hw.shape[::-1], interpolation=cv2.INTER_NEAREST)
    found = cv2.findNonZero(cv2.bitwise_and(cv2.inRange(full_hw, -_SURE, _SURE), by_edge_hw))
    return None if found is None else np.asarray(found, np.int32)


def _near_edge(logits_hw: Float32) -> npt.NDArray[np.bool_]:
    """The cells within two cells of a change of sign; bool [h, w]."""
    edge_hw = (cv2.dilate(logits_hw, _BESIDE) > 0) & (cv2.erode(logits_hw, _BESIDE) <= 0)
    return np.asarray(cv2.dilate(edge_hw.astype(np.uint8), _AROUND), np.bool_)


def _weighted(logits_hw: Float32, cells_hw: Float32) -> Float32:
    """For each level of colour the weighted logits of the cells, and the weights: [levels, h + 2, w, 2].

    One row is added above and below, so that interpolation near them stays within a level.
    """
    levels_l = np.linspace(0, 1, _LEVELS, dtype=np.float32)
    weights_hwl = np.exp((cells_hw[..., None] - levels_l) ** 2 * np.float32(-0.5 / _ALIKE**2)) + np.float32(_ANY)
    both_hwl = np.concatenate((weights_hwl * np.clip(logits_hw, -_CLIP, _CLIP)[..., None], weights_hwl), axis=2)
    both_hwl = cv2.GaussianBlur(both_hwl, (5, 5), _REACH, borderType=cv2.BORDER_REPLICATE)
    h, w = logits_hw.shape
    out_lhw2 = np.empty((_LEVELS, h + 2, w, 2), np.float32)
    out_lhw2[:, 1:-1] = both_hwl.reshape(h, w, 2, _LEVELS).transpose(3, 0, 1, 2)
    out_lhw2[:, 0], out_lhw2[:, -1] = out_lhw2[:, 1], out_lhw2[:, -2]
    return out_lhw2


def _look_up(weighted_lhw2: Float32, y_n: Float32, x_n: Float32, level_n: Float32) -> Float32:
    """The logits [n] at places (in cells) and levels, by linear interpolation in all three axes."""
    levels, rows, columns, _ = weighted_lhw2.shape
    below_n = np.minimum(level_n.astype(np.int32), levels - 2)
    places = np.zeros((2, -(-len(x_n) // _ROW) * _ROW), np.float32)
    places[0, : len(x_n)] = x_n
    places[1, : len(x_n)] = np.clip(y_n, -0.5, rows - 2.5) + (below_n * rows + 1)
    map_x, map_y = places.reshape(2, -1, _ROW)
    atlas = weighted_lhw2.reshape(levels * rows, columns, 2)
    sums = [
        cv2.remap(atlas, map_x, map_y + up * rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 2)
        for up in (0, 1)
    ]
    more_n1 = (level_n - below_n).astype(np.float32)[:, None]
    sums_n2 = sums[0][: len(x_n)] * (1 - more_n1) + sums[1][: len(x_n)] * more_n1
    return np.asarray(sums_n2[:, 0] / sums_n2[:, 1], np.float32)
