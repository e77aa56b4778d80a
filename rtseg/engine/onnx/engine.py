"""The engine: numpy in and out, one graph for each verb, no torch.

Maps are stored channels last, as the graphs take and return them; callers get views with channels first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...base.types import Float32, ImageU8
from ...sam2 import Array, Decoded, Features, Preset, PromptBatch, Recall, Remembered
from ..picture.planes import to_planes
from ..recipe import Recipe
from ..static.engine import StaticEngine
from .ports import tracked
from .session import Graph, version

NO_POINT = -1  # the label of the empty point that SAM 2 takes when nothing is prompted


class OnnxEngine(StaticEngine):
    """The graphs of one folder in ONNX Runtime. Graphs of tracked frames are opened at once, others on first use."""

    def __init__(
        self, folder: Path, preset: Preset, recipe: Recipe, weights_hash: str, provider: str, threads: int
    ) -> None:
        self.recipe, self.preset, self.image_size = recipe, preset, recipe.image_size
        self.weights_hash = weights_hash
        where = f" on {recipe.device}" if ":" in recipe.device else ""
        counted = f", {threads} thread{'s' if threads > 1 else ''}" if provider == "cpu" else ""
        self.description = f"onnx: ONNX Runtime {version()}, {provider}{where}, {recipe.precision}{counted}"
        self._folder, self._provider, self._threads = folder, provider, threads
        number = recipe.device.partition(":")[2]
        self._device = int(number) if number else None
        self._graphs: dict[str, Graph] = {}
        for name in tracked(preset):
            self._graph(name)
        plan = recipe.memory
        # On the CPU padding costs time; other providers compile a graph anew for every new shape.
        self._slots, self._pointers = 0, 1
        if provider != "cpu":
            self._slots, self._pointers = plan.most_slots(preset.num_maskmem), max(1, plan.most_pointers())

    def prepare(self, image_hwc: ImageU8) -> Float32:
        return to_planes(image_hwc, self.image_size)

    def encode_image(self, image_hwc: ImageU8) -> Features:
        return Features(*map(_first, self._graph("encode")(image_1chw=self.prepare(image_hwc))))

    def _fresh(self, features: Features) -> Float32:
        return _first(self._graph("fresh")(top_1hwd=_last(features.top))[0])

    def _decode_tracked(self, conditioned_bchw: Array, features: Features) -> Decoded:
        return Decoded(*self._graph("decode")(conditioned_bhwd=_last(conditioned_bchw), **_finer_maps(features)))

    def _decode_prompted(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        if prompts.answer_b1hw is not None:
            top_1hwd, answer_b1hw = _last(features.top), _float(prompts.answer_b1hw)
            logits, score, pointer = self._graph("answer")(top_1hwd=top_1hwd, answer_b1hw=answer_b1hw)
            return Decoded(logits, np.ones_like(score), score, pointer)
        given = self._prompt_inputs(prompts)
        conditioned_bhwd = _last(conditioned_bchw)
        return Decoded(*self._graph("prompt")(conditioned_bhwd=conditioned_bhwd, **_finer_maps(features), **given))

    def rivals(self, conditioned_bchw: Array, features: Features) -> Float32:
        conditioned_bhwd = _last(conditioned_bchw)
        found: Float32 = self._graph("rivals")(conditioned_bhwd=conditioned_bhwd, **_finer_maps(features))[0]
        return found

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        tokens_bnm, keys_blnd = self._graph("remember")(
            top_1hwd=_last(features.top), logits_b1hw=_float(logits_b1hw), score_b=_float(score_b),
            certain_b=np.array(prompted, bool),
        )  # fmt: skip
        if len(tokens_bnm) > 1:  # copies: one object's view would keep the memory of the whole batch alive
            written = [self._remembered(t.copy(), k.copy()) for t, k in zip(tokens_bnm, keys_blnd, strict=True)]
        else:
            written = [self._remembered(tokens_bnm[0], keys_blnd[0])]
        if not self.preset.match_dim:
            return written
        return [
            replace(memory, cells_cgg=self._cells(features, logits_b1hw[i : i + 1])) if prompted[i] else memory
            for i, memory in enumerate(written)
        ]

    def _cells(self, features: Features, logits_11hw: Array) -> Float32:
        """What later frames are compared with, of one prompted object."""
        maps = {"top_1hwd": _last(features.top), "mid_1hwc": _last(features.mid)}
        found: Float32 = self._graph("cells")(**maps, logits_b1hw=_float(logits_11hw))[0][0]
        return found

    def _remembered(self, tokens_nm: Float32, keys_lnd: Float32) -> Remembered:
        return Remembered(tokens_nm.T.reshape(-1, *self.preset.memory_shape(self.image_size // 16)), keys_lnd)

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        return True

    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Float32:
        """All objects in one run, padded to the most memories of any. The padding is masked: the result is exact."""
        p, n = self.preset, self.preset.memory_tokens(self.image_size // 16)
        b, layers = len(recalls), p.attention_layers
        t = max(self._slots, *(len(r.slots) for r in recalls), 1)
        k = max(self._pointers, *(len(r.ages) for r in recalls), 1)
        keys_btlnd, values_btnm = np.zeros((b, t, layers, n, p.dim), "f4"), np.zeros((b, t, n, p.memory_dim), "f4")
        slots_bt, present_bt = np.zeros((b, t), np.int64), np.zeros((b, t), bool)
        pointers_bkd, ages_bk, real_bk = np.zeros((b, k, p.dim), "f4"), np.ones((b, k), "f4"), np.zeros((b, k), bool)
        for i, recall in enumerate(recalls):
            for j, memory in enumerate(recall.memories):
                values_btnm[i, j] = np.asarray(memory.map_chw).reshape(p.memory_dim, n).T
                keys_btlnd[i, j] = memory.keys_lnd
            seen, ages = len(recall.slots), len(recall.ages)
            slots_bt[i, :seen], present_bt[i, :seen] = recall.slots, True
            pointers_bkd[i, :ages], ages_bk[i, :ages], real_bk[i, :ages] = recall.pointers_pc, recall.ages, True
        found = self._graph("attend")(
            top_1hwd=_last(features.top), keys_btlnd=keys_btlnd, values_btnm=values_btnm, slots_bt=slots_bt,
            present_bt=present_bt, pointers_bkd=pointers_bkd, ages_bk=ages_bk, real_bk=real_bk,
        )  # fmt: skip
        return _first(found[0])

    def _matched(self, attended_bdhw: Array, features: Features, recalls: Sequence[Recall]) -> Array:
        """All objects that have cells in one run."""
        rows = [i for i, recall in enumerate(recalls) if recall.cells_cgg is not None]
        if not rows:
            return attended_bdhw
        found = self._graph("match")(
            conditioned_bhwd=_last(attended_bdhw)[rows], top_1hwd=_last(features.top), mid_1hwc=_last(features.mid),
            cells_bcgg=np.stack([_float(recalls[i].cells_cgg) for i in rows]),
        )  # fmt: skip
        if len(rows) == len(recalls):
            return _first(found[0])
        matched_bhwd = _last(attended_bdhw).copy()
        matched_bhwd[rows] = found[0]
        return _first(matched_bhwd)

    def _prompt_inputs(self, prompts: PromptBatch) -> dict[str, npt.NDArray[np.generic]]:
        """Points and an earlier mask. The graph always takes both; a label and a flag mark those that are absent."""
        points_bp2, labels_bp = _float(prompts.points_bpc), np.asarray(prompts.labels_bp, np.int64)
        b, side = len(points_bp2), self.image_size // 4
        if not points_bp2.shape[1]:
            points_bp2, labels_bp = np.zeros((b, 1, 2), np.float32), np.full((b, 1), NO_POINT, np.int64)
        masked = prompts.mask_b1hw is not None
        mask_b1hw = _float(prompts.mask_b1hw) if masked else np.zeros((b, 1, side, side), np.float32)
        return {
            "points_bp2": points_bp2, "labels_bp": labels_bp, "mask_b1hw": mask_b1hw,
            "masked_b": np.full(b, masked), "multimask": np.array(prompts.multimask),
        }  # fmt: skip

    def _graph(self, name: str) -> Graph:
        if name not in self._graphs:
            self._graphs[name] = Graph(self._folder / f"{name}.onnx", self._provider, self._threads, self._device)
        return self._graphs[name]


def _float(x: Array) -> Float32:
    return np.ascontiguousarray(x, np.float32)


def _last(x_bchw: Array) -> Float32:
    """A map with channels last, as a graph takes it: no copy if it came from a graph."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(x_bchw, np.float32), -3, -1))


def _first(x_bhwc: Float32) -> Float32:
    return np.moveaxis(x_bhwc, -1, -3)


def _finer_maps(features: Features) -> dict[str, Float32]:
    return {"mid_1hwc": _last(features.mid), "fine_1hwc": _last(features.fine)}
