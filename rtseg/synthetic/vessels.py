"""Fine detail on tissue: branching vessels, cautery burns, suture threads."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..base.types import Float32, ImageU8
from .noise import Canvas, Rng, noise

SHIFT = 4  # fractional bits of OpenCV's drawing


def _stroke(canvas: Canvas, image_hw: Float32 | ImageU8, line_nc: Float32, thickness: float, value: float) -> None:
    """Draw a line through points (units from the centre) with a thickness (units), in place; thin lines are faint."""
    h, w = image_hw.shape[:2]
    points = (line_nc * canvas.detail + (w / 2, h / 2)) * 2**SHIFT
    width = thickness * canvas.detail
    faint = min(1.0, width)
    cv2.polylines(
        image_hw, [np.round(points).astype(np.int32)], False, value * faint, max(1, round(width)), cv2.LINE_8, SHIFT
    )


def _branches(rng: Rng, canvas: Canvas, trees: int) -> list[tuple[Float32, float]]:
    """Lines (points in units from the centre, thickness) of vessels that branch and get thinner."""
    x, y = rng.uniform(-0.5, 0.5, trees) * canvas.width, rng.uniform(-0.5, 0.5, trees) * canvas.height
    stack = [(x[k], y[k], rng.uniform(0, math.tau), rng.uniform(0.004, 0.012)) for k in range(trees)]
    lines: list[tuple[Float32, float]] = []
    while stack and len(lines) < 120:
        x0, y0, heading, thickness = stack.pop(0)
        turns = heading + np.cumsum(rng.normal(0, 0.32, int(rng.integers(8, 22))))
        steps = 0.02 * np.stack([np.cos(turns), np.sin(turns)], 1)
        line_nc = np.cumsum(np.vstack([[x0, y0], steps]), 0).astype(np.float32)
        lines.append((line_nc, thickness))
        if thickness > 0.0016:
            end, fork = line_nc[-1], rng.uniform(0.35, 0.9)
            stack += [
                (end[0], end[1], turns[-1] + fork, 0.6 * thickness),
                (end[0], end[1], turns[-1] - fork, 0.78 * thickness),
            ]
    return lines


def vessels(rng: Rng, canvas: Canvas) -> tuple[Float32, Float32]:
    """Branching vessels, and a capillary net; float32 [H, W] each, 0 for none to 1."""
    vein_hw = np.zeros(canvas.shape, np.uint8)
    for line_nc, thickness in _branches(rng, canvas, int(rng.integers(8, 16))):
        _stroke(canvas, vein_hw, line_nc, thickness, min(255.0, 90 + 18000 * thickness))
    soft_hw = cv2.GaussianBlur(vein_hw, (0, 0), max(0.0012 * canvas.detail, 0.4)).astype(np.float32) / 255
    ridge_hw = noise(rng, canvas, 0.11, 4)
    where_hw = np.clip(cv2.resize(noise(rng, canvas.at(0.25), 0.3), canvas.shape[::-1]), 0, 1)
    net_hw = np.maximum(1 - np.abs(ridge_hw) * 14, 0) * where_hw * np.float32(0.35)
    return np.asarray(soft_hw, np.float32), np.asarray(net_hw, np.float32)


def burns(rng: Rng, canvas: Canvas, colour_chw: Float32) -> None:
    """Draw cautery marks, in place: charred in the middle, pale around."""
    h, w = canvas.shape
    for _ in range(int(rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 4]))):
        x, y = rng.uniform(-0.35, 0.35) * canvas.width, rng.uniform(-0.35, 0.35) * canvas.height
        radius = rng.uniform(0.012, 0.05)
        reach = 2.2 * radius
        left, top = (x - reach + canvas.width / 2) * canvas.detail, (y - reach + canvas.height / 2) * canvas.detail
        x0, x1 = max(0, int(left)), min(w, int(left + 2 * reach * canvas.detail))
        y0, y1 = max(0, int(top)), min(h, int(top + 2 * reach * canvas.detail))
        spot = Canvas(2 * reach, 2 * reach, canvas.detail)
        rough_hw = cv2.resize(noise(rng, spot, 0.7 * radius, 2), (x1 - x0, y1 - y0))
        columns = (np.arange(x0, x1) / canvas.detail - canvas.width / 2 - x) / radius
        rows = (np.arange(y0, y1) / canvas.detail - canvas.height / 2 - y) / radius
        away_hw = np.sqrt(columns[None] ** 2 + rows[:, None] ** 2) + 0.25 * rough_hw
        char_hw, pale_hw = np.clip(1.5 - 1.6 * away_hw, 0, 0.8), np.clip(1.2 - 0.6 * away_hw, 0, 0.5)
        patch_chw = colour_chw[:, y0:y1, x0:x1]
        patch_chw += (np.array((214, 190, 164), np.float32)[:, None, None] - patch_chw) * pale_hw
        patch_chw += (np.array((44, 26, 20), np.float32)[:, None, None] - patch_chw) * char_hw


def threads(rng: Rng, canvas: Canvas, colour_chw: Float32, many: bool) -> None:
    """Draw suture threads, in place; some scenes have none."""
    count = int(rng.integers(1, 5)) if many and rng.random() < 0.6 else int(rng.random() < 0.15)
    for _ in range(count):
        start, heading = rng.uniform(-0.3, 0.3, 2) * (canvas.width, canvas.height), rng.uniform(0, math.tau)
        turns = heading + np.cumsum(rng.normal(0.02, 0.12, 60)) + rng.uniform(-0.06, 0.06) * np.arange(60)
        line_nc = start + 0.016 * np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0)
        mask_hw = np.zeros(canvas.shape, np.float32)
        thickness = float(rng.uniform(0.003, 0.008))
        aside = np.array((0.006, 0.008))
        _stroke(canvas, mask_hw, (line_nc + aside).astype(np.float32), thickness, 0.35)
        colour_chw *= 1 - mask_hw  # its shadow
        mask_hw[:] = 0
        _stroke(canvas, mask_hw, line_nc.astype(np.float32), thickness, 0.92)
        hue = np.array(((232, 228, 214), (70, 60, 120), (30, 28, 34))[int(rng.integers(3))], np.float32)
        colour_chw += (hue[:, None, None] - colour_chw) * mask_hw
