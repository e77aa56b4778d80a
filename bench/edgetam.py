"""EdgeTAM as transformers has it, with random weights: another network than SAM 2, smaller, with pooled memories."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bench.contenders import Contender, Task, prompt_session
from rtseg.base.errors import ConfigError

# Of these timm wants names only, none of which the backbone uses; and no torchvision goes with torch's CPU build.
STAND_INS = ("", ".datasets", ".io", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms",
             ".transforms.functional", ".transforms.v2")  # fmt: skip


class EdgeTam(Contender):
    """`EdgeTamVideoModel` in a streaming session; its masks are compared with nobody's."""

    def __init__(self, name: str, task: Task) -> None:
        super().__init__(name)
        if task.size % 256:
            raise ConfigError(f"EdgeTAM pools memories in 16 x 16 windows: {task.size} px; expected a multiple of 256")
        from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

        self._model, self._pixels = edgetam_model(task.size).to(task.device), task.pixels
        self._session = prompt_session(EdgeTamVideoInferenceSession, task, torch.float32)

    @torch.inference_mode()
    def logits(self, t: int) -> Tensor:
        answer: Tensor = self._model(inference_session=self._session, frame=self._pixels[t]).pred_masks[0, 0]
        return answer


class RepVit(nn.Module):
    """The backbone that EdgeTAM has, as its vision encoder calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = timm().create_model("repvit_m1", features_only=True, out_indices=(0, 1, 2, 3))

    def forward(self, pixels: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.maps(pixels), hidden_states=None)


def timm() -> Any:
    """The library, where torchvision may be absent."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        absent = {f"torchvision{name}": mock.MagicMock() for name in STAND_INS}
        sys.modules.update(absent)
        try:
            import timm as found
        finally:
            for name in absent:
                del sys.modules[name]
        return found
    import timm as found

    return found


def edgetam_model(size: int) -> nn.Module:
    """The released architecture, which its default configuration is but for the backbone, at an image size."""
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig

    g = size // 16
    vision = EdgeTamVisionConfig(backbone_feature_sizes=[[4 * g, 4 * g], [2 * g, 2 * g], [g, g]])
    config = EdgeTamVideoConfig(
        vision_config=vision, image_size=size, prompt_encoder_config={"image_size": size},
        memory_attention_rope_feat_sizes=[g, g],
    )  # fmt: skip
    makes_ours = SimpleNamespace(from_config=lambda _: RepVit())
    with mock.patch("transformers.models.edgetam.modeling_edgetam.AutoModel", makes_ours):
        model: nn.Module = EdgeTamVideoModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:  # else it would be silent, and its object absent
                p.normal_(std=p[0].numel() ** -0.5, generator=generator)
    return model
