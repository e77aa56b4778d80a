"""SAM 2 (arXiv 2408.00714) as four verbs, and the choices that its video predictor makes between the verbs.

Attribute names are those of the published checkpoints, which therefore load without renaming.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import ConfigError
from .adapters.base import Adapters, Past
from .decoder import MaskDecoder, choose
from .encoder import ImageEncoder
from .hiera import Hiera
from .layers import Mlp
from .match import Match
from .memory import MemoryAttention, MemoryEncoder, MemoryTokenizer
from .perceiver import Perceiver
from .presets import Preset
from .prompt import PromptEncoder
from .values import ABSENT_LOGIT, Candidates, Decoded, Features, PromptBatch, Recall
from .vit import Vit


class Sam2(nn.Module):
    """The network, random until `load_weights`. `image_size` S is a multiple of 32; g = S / 16."""

    def __init__(self, preset: Preset, image_size: int) -> None:
        super().__init__()
        if image_size % 32 or image_size < 64:
            raise ConfigError(f"image_size {image_size}: expected a multiple of 32, at least 64")
        if preset.perceiver and image_size % (16 * preset.perceiver):
            whole = f"a multiple of {16 * preset.perceiver}, because {preset.name} divides it into windows"
            raise ConfigError(f"image_size {image_size}: expected {whole}")
        self.preset, self.image_size, self.grid = preset, image_size, image_size // 16
        dim, memory_dim = preset.dim, preset.memory_dim
        self.image_encoder = ImageEncoder(preset)
        self.sam_prompt_encoder = PromptEncoder(preset, image_size)
        self.sam_mask_decoder = MaskDecoder(preset)
        self.memory_attention = MemoryAttention(preset, self.grid)
        self.memory_encoder = MemoryEncoder(preset)
        self.spatial_perceiver = Perceiver(preset, self.grid) if preset.perceiver else None
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj = Mlp(dim, dim, dim, dim)
        self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim) if preset.pointer_time else None
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(preset.num_maskmem, 1, 1, memory_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))  # in every checkpoint, but unused
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        if preset.no_object_in_memory:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory_dim))
        self.match = Match(preset) if preset.match_dim else None
        self.adapter: Adapters | None = None  # see `attach`
        self.tokenizer = MemoryTokenizer(preset, self.grid)
        self.baked_grid: Tensor | None = None  # the encoding of every cell, computed once for inference
        self.image_encoder.apply(_init)
        for table in (self.maskmem_tpos_enc, self.no_mem_embed, self.no_obj_ptr):
            nn.init.trunc_normal_(table, std=0.02)

    @torch.no_grad()
    def bake(self) -> Sam2:
        """For inference, compute once what depends only on the weights. Later changes of the weights are ignored."""
        if isinstance(self.image_encoder.trunk, Hiera | Vit):
            trunk = self.image_encoder.trunk
            trunk.baked = trunk.positions(self.image_size // trunk.stride)
        self.baked_grid = self.sam_prompt_encoder.pe_layer.grid(self.grid)
        self.tokenizer.cells = self.tokenizer.cells.to(self.maskmem_tpos_enc)
        return self

    def attach(self, adapter: Adapters) -> Sam2:
        """Let adapters act between the verbs, and those that can be merged inside them; they are part of the state."""
        self.adapter = adapter
        adapter.attach(self)
        return self

    def encode_image(self, image_nchw: Tensor) -> Features:
        """Normalised images [n, 3, S, S] to features."""
        fine, mid, top = self.image_encoder(image_nchw)
        if self.preset.finer_maps:
            mid, fine = self.sam_mask_decoder.conv_s1(mid), self.sam_mask_decoder.conv_s0(fine)
        features = Features(top, mid, fine)
        return features if self.adapter is None else self.adapter.encoded(features, image_nchw)

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        """Features conditioned on each object's memories, [b, D, g, g]; None stands for an object without any.

        `features` holds one image for all objects, or one for each.
        """
        top_bchw = features.top.expand(len(recalls), -1, -1, -1)
        fresh_bchw = top_bchw + self.no_mem_embed.view(1, -1, 1, 1)
        known = [i for i, r in enumerate(recalls) if r is not None]
        if not known:
            return fresh_bchw
        tokens = self.tokenizer.batch([r for r in recalls if r], self.maskmem_tpos_enc, self.obj_ptr_tpos_proj)
        if len(known) == len(recalls):
            return self._adapted(self.matched(self.memory_attention(top_bchw, tokens), features, recalls), recalls)
        # One by one: an index list would be uploaded to the GPU, and the host would wait for the upload.
        attended = iter(self.memory_attention(torch.stack([top_bchw[i] for i in known]), tokens))
        rows = [fresh_bchw[i] if r is None else next(attended) for i, r in enumerate(recalls)]
        return self._adapted(self.matched(torch.stack(rows), features, recalls), recalls)

    def _adapted(self, conditioned_bchw: Tensor, recalls: Sequence[Recall | None]) -> Tensor:
        """Adapted where an object has memories."""
        if self.adapter is None:
            return conditioned_bchw
        rows = [i for i, recall in enumerate(recalls) if recall is not None]
        past = Past.of([recall for recall in recalls if recall is not None])
        changed_bchw = self.adapter.attended(conditioned_bchw[rows], past)
        return (
            changed_bchw
            if len(rows) == len(recalls)
            else conditioned_bchw.index_copy(0, torch.tensor(rows, device=conditioned_bchw.device), changed_bchw)
        )

    def matched(self, conditioned_bchw: Tensor, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        """With the comparison with each object's newest conditioning frame added, where there is one."""
        cells = [None if r is None else r.cells_cgg for r in recalls]
        remembered = [own for own in cells if own is not None]
        if self.match is None or not remembered:
            return conditioned_bchw
        if len(features.top) > 1 and len(remembered) < len(cells):
            known = [features.select(slice(i, i + 1)) for i, own in enumerate(cells) if own is not None]
            features = Features(*(torch.cat([getattr(f, name) for f in known]) for name in ("top", "mid", "fine")))
        added_bchw: Tensor = self.match(features, torch.stack(remembered))
        if len(remembered) == len(cells):
            return conditioned_bchw + added_bchw
        added = iter(added_bchw)
        rows = zip(conditioned_bchw, cells, strict=True)
        return torch.stack([row if own is None else row + next(added) for row, own in rows])

    def predict_masks(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Candidates:
        """All four candidate masks of each object, before any choice."""
        if self.adapter is not None:
            conditioned_bchw = self.adapter.prompted(conditioned_bchw, prompts, self.image_size)
        return self.candidates(conditioned_bchw, features, *self.sam_prompt_encoder(prompts))

    def candidates(
        self, conditioned_bchw: Tensor, features: Features, sparse_bpc: Tensor, dense_bchw: Tensor
    ) -> Candidates:
        """The same for prompts that are encoded already."""
        grid_1chw = self.sam_prompt_encoder.pe_layer.grid(self.grid) if self.baked_grid is None else self.baked_grid
        found: Candidates = self.sam_mask_decoder(conditioned_bchw, features, sparse_bpc, dense_bchw, grid_1chw)
        return found

    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        """One mask for each object. If the object score means absent, the mask is empty and the pointer means absence.

        A mask prompt is itself the answer, whatever the memories: `conditioned_bchw` is then not read.
        """
        if prompts.answer_b1hw is not None:
            return self.from_mask(features, prompts.answer_b1hw)
        return self.answer(self.predict_masks(conditioned_bchw, features, prompts), prompts.multimask)

    def answer(self, candidates: Candidates, multimask: bool) -> Decoded:
        """The mask that SAM 2's predictor chooses among the candidates, and its pointer."""
        mask_b, token_b = choose(candidates, multimask)
        present_b = candidates.score_b > 0
        logits_bhw = _picked(candidates.logits_bkhw, mask_b).where(present_b[:, None, None], ABSENT_LOGIT)
        return Decoded(
            logits_bhw[:, None],
            _picked(candidates.iou_bk, mask_b),
            candidates.score_b,
            self.pointer(_picked(candidates.tokens_bkc, token_b), candidates.score_b),
        )

    def pointer(self, tokens_bc: Tensor, score_b: Tensor) -> Tensor:
        """Object pointers [b, D] from mask tokens; an absent object gets the pointer that means absence."""
        pointer_bc: Tensor = self.obj_ptr_proj(tokens_bc)
        return pointer_bc.where(score_b[:, None] > 0, self.no_obj_ptr.to(pointer_bc))

    def from_mask(self, features: Features, mask_b1hw: Tensor) -> Decoded:
        """A mask prompt [b, 1, S, S] (0 or 1) as the answer; only the pointer comes from the decoder."""
        logits_b1hw = downsampled(mask_b1hw * 20 - 10, (4 * self.grid, 4 * self.grid))
        score_b, pointer_bc = self.presence(features, mask_b1hw)
        return Decoded(logits_b1hw, torch.ones_like(score_b), score_b, pointer_bc)

    def presence(self, features: Features, mask_b1hw: Tensor) -> tuple[Tensor, Tensor]:
        """Object scores and pointers of mask prompts."""
        objects, encoder = mask_b1hw.shape[0], self.sam_prompt_encoder
        dense_bchw = encoder.mask_downscaling(self.mask_downsample(mask_b1hw))
        tops_bchw = features.top.expand(objects, -1, -1, -1)
        candidates = self.candidates(tops_bchw, features, encoder.padding(objects, 2), dense_bchw)
        present_b = mask_b1hw.flatten(1).any(dim=1)
        # Absent if the mask is empty, and also if the decoder does not see the object (both rules are SAM 2's).
        decoded_score_b = torch.where(present_b, candidates.score_b, -1.0)
        score_b = present_b.to(candidates.score_b) * 20 - 10
        return score_b, self.pointer(candidates.tokens_bkc[:, 0], decoded_score_b)

    def remember(self, features: Features, mask_logits_b1hw: Tensor, score_b: Tensor) -> Tensor:
        """Memories [b, M, g, g] of masks [b, 1, S, S]; masks of prompted objects must come from `certain`.

        With a perceiver they are its latents, [b, M, 2p, p].
        """
        memory_bchw: Tensor = self.memory_encoder(features.top, mask_logits_b1hw.sigmoid() * 20 - 10)
        if self.preset.no_object_in_memory:
            absent_b111 = (score_b <= 0).to(memory_bchw).view(-1, 1, 1, 1)
            memory_bchw = memory_bchw + absent_b111 * self.no_obj_embed_spatial.view(1, -1, 1, 1)
        return memory_bchw if self.spatial_perceiver is None else self.spatial_perceiver(memory_bchw)


def upsample(logits_b1hw: Tensor, size: int) -> Tensor:
    """Mask logits [b, 1, 4g, 4g] at the size `remember` takes, [b, 1, S, S]."""
    return F.interpolate(logits_b1hw, size=(size, size), mode="bilinear", align_corners=False)


def downsampled(logits_b1hw: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of a mask prompt at the size of the network's own masks."""
    return F.interpolate(logits_b1hw, size=size, mode="bilinear", antialias=True)


def certain(logits_b1hw: Tensor) -> Tensor:
    """Logits far from 0: SAM 2 remembers a prompted mask as 0 or 1, and a tracked mask unchanged."""
    return torch.where(logits_b1hw > 0, 100.0, -100.0).to(logits_b1hw)


def _picked(x_bk: Tensor, index_b: Tensor) -> Tensor:
    """`x_bk[i, index_b[i]]` for each i; all later axes are kept."""
    index_b1 = index_b.view(-1, *(1,) * (x_bk.ndim - 1)).expand(-1, 1, *x_bk.shape[2:])
    return x_bk.gather(1, index_b1)[:, 0]


def _init(module: nn.Module) -> None:
    """Small normal weights in the trunk, as for any vision transformer that is trained from scratch."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, Hiera | Vit):
        nn.init.trunc_normal_(module.pos_embed, std=0.02)
    if isinstance(module, Hiera):
        nn.init.trunc_normal_(module.pos_embed_window, std=0.02)
