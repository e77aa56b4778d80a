"""The reference engine: the network as it is written, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import Recipe
from ..sam2 import Decoded, Features, Prompts, Recall, Remembered, Sam2, certain, upsample
from ..types import ImageU8
from .base import Verbs, to_input

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine(Verbs):
    """Runs `Sam2` on one device. In half precision products are autocast, and every answer is fp32 again."""

    def __init__(self, network: Sam2, recipe: Recipe, weights_hash: str, device: str) -> None:
        self.recipe, self.preset, self.image_size = recipe, network.preset, network.image_size
        self.weights_hash = weights_hash
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {recipe.precision}, {device}"
        self._network = network.to(self.device).eval().bake()
        self._half = recipe.precision in DTYPES
        if self.device.type == "cuda" and not self._half:
            torch.backends.cudnn.allow_tf32 = False  # else "fp32" convolutions keep ten bits of mantissa

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, DTYPES.get(self.recipe.precision), enabled=self._half)

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        image_1chw = to_input(image_hwc, self.image_size).to(self.device)
        with self._autocast():
            f = self._network.encode_image(image_1chw)
        return Features(f.top.float(), f.mid.float(), f.fine.float())

    @torch.inference_mode()
    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        with self._autocast():
            return self._network.attend(features, recalls).float()

    @torch.inference_mode()
    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: Prompts) -> Decoded:
        with self._autocast():
            d = self._network.decode(conditioned_bchw, features, prompts.to(self.device))
        return Decoded(d.logits_b1hw.float(), d.iou_b.float(), d.score_b.float(), d.pointer_bc.float())

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        full_b1hw = upsample(logits_b1hw, self.image_size)
        for i in (i for i, given in enumerate(prompted) if given):
            full_b1hw[i] = certain(full_b1hw[i])
        with self._autocast():
            maps_bchw = self._network.remember(features, full_b1hw, score_b).float()
        # Copies: a view would keep the whole batch alive for as long as any one object remembers it.
        return [Remembered(map_chw.clone()) for map_chw in maps_bchw]
