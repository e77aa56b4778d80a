"""Inputs and outputs of each graph, by name. Axes: b objects, t memories, k pointers, p points; the rest is fixed."""

from __future__ import annotations

from ...sam2 import Preset

VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "encode": (("image_1chw",), ("top_1hwd", "mid_1hwc", "fine_1hwc")),
    "attend": (
        ("top_1hwd", "keys_btlnd", "values_btnm", "slots_bt", "present_bt", "pointers_bkd", "ages_bk", "real_bk"),
        ("conditioned_bhwd",),
    ),
    "decode": (
        ("conditioned_bhwd", "mid_1hwc", "fine_1hwc"), ("logits_b1hw", "iou_b", "score_b", "pointer_bd"),
    ),
    "remember": (("top_1hwd", "logits_b1hw", "score_b", "certain_b"), ("tokens_bnm", "written_blnd")),
    "fresh": (("top_1hwd",), ("fresh_1hwd",)),
    "prompt": (
        (
            "conditioned_bhwd", "mid_1hwc", "fine_1hwc", "points_bp2", "labels_bp", "mask_b1hw", "masked_b",
            "multimask",
        ),
        ("logits_b1hw", "iou_b", "score_b", "pointer_bd"),
    ),
    "answer": (
        ("top_1hwd", "answer_b1hw"), ("logits_b1hw", "score_b", "pointer_bd"),
    ),
    "rivals": (("conditioned_bhwd", "mid_1hwc", "fine_1hwc"), ("rivals_b2hw",)),
}  # fmt: skip
MATCH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of a network with this part
    "match": (("conditioned_bhwd", "top_1hwd", "mid_1hwc", "cells_bcgg"), ("matched_bhwd",)),
    "cells": (("top_1hwd", "mid_1hwc", "logits_b1hw"), ("cells_bcgg",)),
}
TRACKED = ("encode", "attend", "decode", "remember")  # graphs of every frame; the others are opened on first use
LENGTHS = {"b": "objects", "t": "memories", "k": "pointers", "p": "points"}  # axes that a graph leaves open


def verbs(preset: Preset) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The ports of all graphs of a network."""
    return VERBS | MATCH if preset.match_dim else VERBS


def tracked(preset: Preset) -> tuple[str, ...]:
    """The graphs of every tracked frame."""
    return (*TRACKED, "match") if preset.match_dim else TRACKED


def open_axes(port: str) -> dict[int, str]:
    """The axes of a port that are open, by place: the letters after its name's last underscore."""
    _, named, letters = port.rpartition("_")
    return {place: LENGTHS[letter] for place, letter in enumerate(letters) if named and letter in LENGTHS}
