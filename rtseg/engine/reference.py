"""The reference engine: the network as it is written, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import Recipe
from ..sam2 import Decoded, Features, Prompts, Recall, Sam2

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs `Sam2` on one device. In half precision products are autocast, and every answer is fp32 again."""

    def __init__(self, network: Sam2, recipe: Recipe, weights_hash: str, device: str) -> None:
        self.recipe, self.preset, self.image_size = recipe, network.preset, network.image_size
        self.weights_hash = weights_hash
        self.device = torch.device(device)
        self.description = f"torch {torch.__version__}, {recipe.precision}, {device}"
        self._network = network.to(self.device).eval().bake()
        half = recipe.precision in ("bf16", "fp16")
        if self.device.type == "cuda" and not half:
            torch.backends.cudnn.allow_tf32 = False  # else "fp32" convolutions keep ten bits of mantissa
        self._autocast = torch.autocast(self.device.type, DTYPES.get(recipe.precision), enabled=half)

    @torch.inference_mode()
    def encode_image(self, image_1chw: Tensor) -> Features:
        with self._autocast:
            f = self._network.encode_image(image_1chw.to(self.device))
        return Features(f.top.float(), f.mid.float(), f.fine.float())

    @torch.inference_mode()
    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        with self._autocast:
            return self._network.attend(features, recalls).float()

    @torch.inference_mode()
    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: Prompts) -> Decoded:
        with self._autocast:
            d = self._network.decode(conditioned_bchw, features, self._here(prompts))
        return Decoded(d.logits_b1hw.float(), d.iou_b.float(), d.score_b.float(), d.pointer_bc.float())

    @torch.inference_mode()
    def remember(self, features: Features, mask_logits_b1hw: Tensor, score_b: Tensor) -> Tensor:
        with self._autocast:
            return self._network.remember(features, mask_logits_b1hw, score_b).float()

    def _here(self, p: Prompts) -> Prompts:
        mask, answer = (None if t is None else t.to(self.device) for t in (p.mask_b1hw, p.answer_b1hw))
        return Prompts(p.points_bpc.to(self.device), p.labels_bp.to(self.device), mask, answer)
