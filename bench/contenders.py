"""The ways of running a SAM 2 video that `bench.peers` measures: ours, transformers' and Meta's, one interface.

All have the same weights and see the same square pictures, and are told the same box on the first one. Theirs get
them normalised beforehand, ours as uint8. A step ends when the mask, at the network's own resolution, is on the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from rtseg.base.types import BoolMask, ImageU8, now_ns
from rtseg.engine import Engine, to_input
from rtseg.evaluate.speed.alternation import settling
from rtseg.sam2 import Preset, Sam2
from rtseg.sam2.weights import _rename
from rtseg.track import Tracker

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What every contender does: follow what is in `box` (pixels) through `pictures`, uint8 [S, S, 3].

    `pixels` are the same as the network takes them, [T, 3, S, S].
    """

    network: Sam2
    pictures: Sequence[ImageU8]
    pixels: Tensor
    box: Box
    device: str

    @property
    def size(self) -> int:
        return self.network.image_size


def pixels_of(pictures: Sequence[ImageU8], size: int) -> Tensor:
    return torch.cat([to_input(picture, size) for picture in pictures])


class Contender(ABC):
    """One way to do the task, a frame at a time; keeps every mask, bool [4g, 4g], and the times of each block."""

    def __init__(self, name: str, policy: str = "fifo") -> None:
        self.name, self.policy = name, policy
        self.masks: list[BoolMask] = []
        self.blocks_ms: list[list[float]] = []
        self.warm_ms: list[float] = []
        self.first_mask_ms: float | None = None  # from the start of a process

    @abstractmethod
    def logits(self, t: int) -> Tensor:
        """The object's mask logits on frame t, which follows the one of the last call, [4g, 4g]."""

    def step(self) -> float:
        """The next frame; ms until its mask is on the host."""
        start_ns = now_ns()
        mask_hw = (self.logits(len(self.masks)) > 0).cpu().numpy()
        ms = (now_ns() - start_ns) / 1e6
        self.masks.append(mask_hw)
        return ms

    def warm_up(self, frames: int) -> None:
        """Frames that are not counted."""
        self.warm_ms += [self.step() for _ in range(frames)]

    @property
    def step_ms(self) -> float:
        """How long a step took of late."""
        return float(np.median(self.warm_ms[-3:]))

    def block(self, frames: int) -> None:
        """Time the next frames."""
        for _ in range(settling(self.step_ms)):
            self.step()
        self.blocks_ms.append([self.step() for _ in range(frames)])


class Ours(Contender):
    """A `Tracker` on an engine."""

    def __init__(self, name: str, engine: Engine, policy: str, task: Task) -> None:
        super().__init__(name, policy)
        self.engine, self._task, self._tracker = engine, task, Tracker(engine, policy)
        self._tracker.prompt(1, box=task.box)

    def logits(self, t: int) -> Tensor:
        return torch.tensor(self._tracker.step(self._task.pictures[t]).mask_logits_bhw[0])


class Transformers(Contender):
    """`Sam2VideoModel` in a streaming session. `cast` puts the whole model in bf16, `autocast` its products."""

    def __init__(
        self, name: str, task: Task, *, cast: bool = False, autocast: bool = False, compiled: bool = False
    ) -> None:
        super().__init__(name)
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        dtype = torch.bfloat16 if cast else torch.float32
        self._model = transformers_model(task.network).to(task.device, dtype)
        if compiled:
            for part in ("vision_encoder", "memory_attention", "mask_decoder", "memory_encoder"):
                getattr(self._model, part).compile()
        self._pixels, self._session = task.pixels, prompt_session(Sam2VideoInferenceSession, task, dtype)
        self._autocast = half(task.device, autocast)

    @torch.inference_mode()
    def logits(self, t: int) -> Tensor:
        with self._autocast():
            answer: Tensor = self._model(inference_session=self._session, frame=self._pixels[t]).pred_masks[0, 0]
        return answer


def prompt_session(kind: Any, task: Task, dtype: torch.dtype) -> Any:
    """A session of transformers' in which the box has been said of the first picture."""
    session = kind(
        video_height=task.size, video_width=task.size, dtype=dtype, inference_device=task.device,
        inference_state_device=task.device, video_storage_device=task.device,
    )  # fmt: skip
    x0, y0, x1, y1 = task.box
    corners = {"point_coords": torch.tensor([[[[x0, y0], [x1, y1]]]]), "point_labels": torch.tensor([[[2, 3]]])}
    place = session.obj_id_to_idx(1)
    session.add_point_inputs(place, 0, {key: value.to(task.device) for key, value in corners.items()})
    session.obj_with_new_inputs = [1]
    return session


class Meta(Contender):
    """The video predictor of the `sam2` package. It keeps its memories in bf16, in fp32 too."""

    def __init__(self, name: str, task: Task, *, autocast: bool = False, compiled: bool = False) -> None:
        super().__init__(name)
        model = meta_predictor(task, compiled)
        self._autocast = half(task.device, autocast)
        with torch.inference_mode(), self._autocast(), self._patched(task.pixels):
            self._state = model.init_state("")
            model.add_new_points_or_box(self._state, 0, 1, box=task.box)
            self._frames: Iterator[Any] = model.propagate_in_video(self._state)

    @staticmethod
    def _patched(pixels: Tensor) -> AbstractContextManager[Any]:
        """Their session on pictures in memory, instead of on a folder of files."""
        loaded = (pixels, *pixels.shape[2:])
        return mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=loaded)

    @torch.inference_mode()
    def logits(self, t: int) -> Tensor:
        quiet = mock.patch("sam2.sam2_video_predictor.tqdm", lambda frames, desc: frames)
        with self._autocast(), quiet if t == 0 else nullcontext():
            next(self._frames)
        kind = "cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"
        answer: Tensor = self._state["output_dict_per_obj"][0][kind][t]["pred_masks"][0, 0]
        return answer


def half(device: str, on: bool) -> Callable[[], torch.autocast]:
    """bf16 autocast, or nothing."""
    return lambda: torch.autocast(device, torch.bfloat16, enabled=on)


def transformers_model(network: Sam2) -> nn.Module:
    """`Sam2VideoModel` with the sizes and the weights of our network."""
    from transformers import Sam2VideoModel

    model: nn.Module = Sam2VideoModel(transformers_config(network.preset, network.image_size)).eval()
    own, state = network.state_dict(), {}
    for name in model.state_dict():
        if name == "prompt_encoder.point_embed.weight":
            state[name] = torch.cat([own[f"sam_prompt_encoder.point_embeddings.{i}.weight"] for i in range(4)])
        else:
            state[name] = own[_rename(name)]
    model.load_state_dict(state, strict=True)
    return model


def transformers_config(p: Preset, size: int) -> Any:
    """Their configuration of a preset at an image size."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    grid = size // 16
    backbone = Sam2HieraDetConfig(
        image_size=[size, size], hidden_size=p.embed_dim, num_attention_heads=p.heads,
        blocks_per_stage=list(p.stages), embed_dim_per_stage=list(p.stage_dims),
        num_attention_heads_per_stage=[p.heads * 2**i for i in range(4)], window_size_per_stage=list(p.windows),
        global_attention_blocks=list(p.global_blocks),
        window_positional_embedding_background_size=[p.background, p.background],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=list(reversed(p.stage_dims)), fpn_hidden_size=p.dim,
        backbone_feature_sizes=[[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
    )  # fmt: skip
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": size, "hidden_size": p.dim},
        mask_decoder_config={
            "hidden_size": p.dim, "mlp_dim": p.decoder_ffn, "num_attention_heads": p.decoder_heads,
            "iou_head_hidden_dim": p.dim,
        },
        image_size=size,
        enable_occlusion_spatial_embedding=p.no_object_in_memory,
        enable_temporal_pos_encoding_for_object_pointers=p.pointer_time,
        memory_attention_hidden_size=p.dim, memory_attention_num_layers=p.attention_layers,
        memory_attention_feed_forward_hidden_size=p.attention_ffn, memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=p.dim, memory_encoder_output_channels=p.memory_dim,
        mask_downsampler_embed_dim=p.dim, memory_fuser_embed_dim=p.dim, memory_fuser_intermediate_dim=4 * p.dim,
    )  # fmt: skip


def meta_predictor(task: Task, compiled: bool) -> Any:
    """Meta's predictor with the sizes and the weights of our network, built by their builder."""
    from sam2.build_sam import build_sam2_video_predictor

    p = task.network.preset
    changes = {
        "image_size": task.size,
        "image_encoder.trunk.embed_dim": p.embed_dim,
        "image_encoder.trunk.num_heads": p.heads,
        "image_encoder.trunk.stages": list(p.stages),
        "image_encoder.trunk.window_spec": list(p.windows),
        "image_encoder.trunk.global_att_blocks": list(p.global_blocks),
        "image_encoder.trunk.window_pos_embed_bkg_spatial_size": [p.background, p.background],
        "image_encoder.neck.backbone_channel_list": list(reversed(p.stage_dims)),
        "memory_attention.num_layers": p.attention_layers,
        "memory_attention.layer.dim_feedforward": p.attention_ffn,
    }
    config = "sam2.1/sam2.1_hiera_t" if p.pointer_time else "sam2/sam2_hiera_t"
    overrides = [f"++model.{key}={value}".replace(" ", "") for key, value in changes.items()]
    model = build_sam2_video_predictor(
        f"configs/{config}.yaml", device=task.device, hydra_overrides_extra=overrides, vos_optimized=compiled
    )
    model.fill_hole_area = 0  # holes are not filled by any of the others
    model.load_state_dict(task.network.state_dict(), strict=True)
    return model


def randomize(network: Sam2, seed: int) -> None:
    """Random weights with which a mask lives: everything matters, nothing saturates, and the object stays."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            for name, p in module.named_parameters(recurse=False):
                noise = torch.randn(p.shape, generator=generator)
                if name == "weight" and isinstance(module, nn.LayerNorm):
                    p.copy_(1 + 0.1 * noise)
                elif name == "weight" and isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    p.copy_(noise / math.sqrt(p[0].numel()))
                else:
                    p.copy_(0.2 * noise)
        positions = network.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        positions.copy_(torch.randn(positions.shape, generator=generator))
        for layer in network.memory_attention.layers:
            for projection in (layer.cross_attn_image.q_proj, layer.cross_attn_image.k_proj):
                projection.weight.mul_(1.5)  # sharper, or every memory would read as the mean of its cells
        heads = network.sam_mask_decoder
        heads.pred_obj_score_head.layers[-1].bias.fill_(1.0)
        # The choice between masks is no near tie, which rounding alone would decide.
        heads.iou_prediction_head.layers[-1].bias.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))
