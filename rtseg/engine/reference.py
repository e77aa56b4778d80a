"""The reference engine: the plain network in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.types import ImageU8
from ..sam2 import Array, Decoded, Features, PromptBatch, Recall, Remembered, Sam2, certain, on_device, upsample
from .base import Verbs
from .picture.planes import to_planes
from .picture.upload import Uploader
from .recipe import Recipe
from .threads import most_threads

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def exact_products() -> Iterator[None]:
    """A context in which fp32 products on a GPU are exact: TF32, cuDNN's default, keeps ten bits of mantissa.

    The switches belong to the whole process; they are set back at the end for other users of torch.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with _without_tf32(matmul, matmul), _without_tf32(cudnn, getattr(cudnn, "conv", None)):
        yield


@contextmanager
def _without_tf32(old: Any, new: Any) -> Iterator[None]:
    """A context in which one of torch's two TF32 switches is off, by its old name and by the new one of torch 2.9.

    Once a program has used the new names, the old ones cannot be read, or set only a part of what they did.
    """
    before: list[tuple[Any, str, object]] = []
    for holder, name in ((old, "allow_tf32"), (new, "fp32_precision")):
        with suppress(RuntimeError, AttributeError):
            before.append((holder, name, getattr(holder, name)))
    try:
        for holder, name, _ in before:
            setattr(holder, name, False if name == "allow_tf32" else "ieee")
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which torch uses one thread: with a thousand tiny tensors, several only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def limit_threads(most: int | None) -> None:
    """Limit torch's threads, in the whole process, to `most`; None: no limit."""
    if most is not None:
        torch.set_num_threads(min(most, torch.get_num_threads()))


class TorchEngine(Verbs):
    """Runs `Sam2` on one device. In half precision, products are autocast and all results are fp32 again.

    `decode` is always fp32: rounding there moves the edges of masks, and gains nothing (on a CPU it is even slower).
    """

    def __init__(self, network: Sam2, recipe: Recipe, weights_hash: str, device: str) -> None:
        self.recipe, self.preset, self.image_size = recipe, network.preset, network.image_size
        self.weights_hash = weights_hash
        limit_threads(most_threads())
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {recipe.precision}, {device}"
        self._network = network.to(self.device).eval().bake()
        self._half = recipe.precision in DTYPES
        self._upload = Uploader(self.image_size**2 if self.device.type == "cuda" else 0, self.device)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """A context in which products are in the recipe's precision."""
        if self._half:
            return torch.autocast(self.device.type, DTYPES[self.recipe.precision])
        return self._exact()

    def _exact(self) -> AbstractContextManager[object]:
        return exact_products() if self.device.type == "cuda" else nullcontext()

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        image_1chw: Tensor = self._up(to_planes(image_hwc, self.image_size))
        return image_1chw

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        image_1chw = self.prepare(image_hwc)
        with self._arithmetic():
            f = self._network.encode_image(image_1chw)
        return Features(f.top.float(), f.mid.float(), f.fine.float())

    @torch.inference_mode()
    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        with self._arithmetic():
            return self._network.attend(features, recalls).float()

    @torch.inference_mode()
    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        with self._exact():
            d = self._network.decode(conditioned_bchw, features, on_device(self._uploaded(prompts), self.device))
        return Decoded(d.logits_b1hw.float(), d.iou_b.float(), d.score_b.float(), d.pointer_bc.float())

    def _uploaded(self, prompts: PromptBatch) -> PromptBatch:
        """Prompts on the device. A mask prompt holds only 0 and 1, so it is copied to a GPU as bytes."""
        answer_b1hw = prompts.answer_b1hw
        if isinstance(answer_b1hw, np.ndarray) and self.device.type == "cuda":
            answer_b1hw = self._up(answer_b1hw.astype(np.uint8)).float()
        given = (prompts.points_bpc, prompts.labels_bp, prompts.mask_b1hw, answer_b1hw)
        return PromptBatch(*map(self._up, given))

    def _up(self, given: Array) -> Array:
        """A numpy array as a tensor on the device; a tensor stays where it is."""
        if not isinstance(given, np.ndarray):
            return given
        return self._upload(given) if self.device.type == "cuda" else torch.from_numpy(given)

    @torch.inference_mode()
    def rivals(self, conditioned_bchw: Tensor, features: Features) -> Tensor:
        """The rival masks, in torch whatever the engine: no mask that is shown depends on them."""
        blank = PromptBatch.none(len(conditioned_bchw))
        with self._arithmetic():
            candidates = self._network.predict_masks(conditioned_bchw, features, blank)
        losing_bk = candidates.iou_bk[:, 1:].argsort(dim=1)[:, :-1]
        rows_b1 = torch.arange(len(losing_bk), device=self.device)[:, None]
        return candidates.logits_bkhw[rows_b1, 1 + losing_bk].float()

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        full_b1hw = upsample(logits_b1hw, self.image_size)
        for i in (i for i, given in enumerate(prompted) if given):
            full_b1hw[i] = certain(full_b1hw[i])
        with self._arithmetic():
            maps_bchw = self._network.remember(features, full_b1hw, score_b).float()
        cells = self._cells(features, logits_b1hw, prompted)
        # Copies, because a view would keep the whole batch alive for as long as any object remembers it.
        return [Remembered(map_chw.clone(), cells_cgg=own) for map_chw, own in zip(maps_bchw, cells, strict=True)]

    def _cells(self, features: Features, logits_b1hw: Tensor, prompted: Sequence[bool]) -> list[Tensor | None]:
        """What later frames are compared with, of each prompted object; in fp32."""
        match = self._network.match
        if match is None:
            return [None] * len(prompted)
        own = [slice(i, i + 1) if len(features.top) > 1 else slice(1) for i in range(len(prompted))]
        with self._exact():
            return [
                match.remember(features.select(own[i]), logits_b1hw[i : i + 1])[0].clone() if given else None
                for i, given in enumerate(prompted)
            ]

    def _with_cells(
        self, written: Sequence[Remembered], features: Features, logits_b1hw: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        """Memories with the cells of the prompted objects, where the network compares frames with them."""
        if self._network.match is None or not any(prompted):
            return list(written)
        cells = self._cells(features, logits_b1hw, prompted)
        return [replace(memory, cells_cgg=own) for memory, own in zip(written, cells, strict=True)]


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> TorchEngine:
    """Open the engine on the recipe's device. `built` is ignored, as there is nothing to build."""
    return TorchEngine(network, recipe, weights_hash, recipe.device)
