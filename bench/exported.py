"""SAM 2's video tracker as the public exporters put it into ONNX: Meta's modules, cut into a graph for each step.

The cut is that of SAM2Export and its like: image encoder, memory attention, image decoder (one for the frame with the
prompt, one for those after it) and memory encoder, exported from Meta's own code as it is. All that is changed is what
ONNX has no word for: complex numbers, in the rotation of queries and keys. The bank of memories is kept outside.
`exported_run` runs the graphs; it needs no torch.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contenders import Contender, Task, meta_predictor
from bench.exported_run import GRAPHS, Runner
from rtseg.sam2 import Sam2

CACHE = Path(__file__).parents[1] / "out" / "exported"


class Exported(Contender):
    """The graphs in ONNX Runtime, with as many threads as torch has here."""

    def __init__(self, name: str, task: Task) -> None:
        super().__init__(name)
        self.folder = export(task)
        self._runner = Runner(self.folder, torch.get_num_threads(), task.box)
        self._pixels = task.pixels.numpy()

    def logits(self, t: int) -> Tensor:
        return torch.from_numpy(self._runner.step(self._pixels[t][None]))


def export(task: Task) -> Path:
    """The folder of the graphs of this network; made once, in a minute or two."""
    folder = CACHE / fingerprint(task.network)
    if (folder / f"{GRAPHS[-1]}.onnx").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = meta_predictor(task, compiled=False)
    for name, (module, inputs) in modules(model, task.size).items():
        print(f"exporting {name} from Meta's code", file=sys.stderr, flush=True)
        write(module, inputs, folder / f"{name}.onnx")
    return folder


def fingerprint(network: Sam2) -> str:
    """Of all that the graphs depend on."""
    digest = hashlib.sha256(f"{network.image_size} {torch.__version__} {Path(__file__).read_text()}".encode())
    for parameter in network.state_dict().values():
        digest.update(parameter.numpy().tobytes())
    return digest.hexdigest()[:16]


def write(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """One graph; the axes of what grows with time are free."""
    from sam2.modeling.sam.transformer import RoPEAttention

    free = {name: {axis: name} for name, axis in FREE.items() if name in inputs}
    part = path.with_suffix(".part")
    real = mock.patch.object(RoPEAttention, "forward", real_forward)
    with torch.inference_mode(), real, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that the trace holds fast, and the exporter's own age
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), str(part), dynamo=False, opset_version=17,
            input_names=list(inputs), dynamic_axes=free,
        )  # fmt: skip
    part.rename(path)


FREE = {"memories": 0, "slots": 0, "pointers": 0, "ages": 0, "coords": 1, "labels": 1}


def modules(model: Any, size: int) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
    """Each graph's module with inputs of its shapes."""
    g, c, m = size // 16, model.hidden_dim, model.mem_dim
    top = torch.randn(1, c, g, g)
    fine = {"high0": torch.randn(1, c // 8, 4 * g, 4 * g), "high1": torch.randn(1, c // 4, 2 * g, 2 * g)}
    said = {"coords": torch.rand(1, 2, 2) * size, "labels": torch.tensor([[2, 3]], dtype=torch.int32)}
    memory = {"memories": torch.randn(3, m, g, g), "slots": torch.tensor([6, 1, 0])}
    pointers = {"pointers": torch.randn(3, c), "ages": torch.tensor([3.0, 1, 2])}
    mask = {"mask": torch.randn(1, 1, size, size), "score": torch.ones(1, 1)}
    return dict(
        zip(
            GRAPHS,
            (
                (ImageEncoder(model), {"image": torch.randn(1, 3, size, size)}),
                (MemoryAttention(model, g), {"top": top, **memory, **pointers}),
                (ImageDecoder(model, prompted=True), {"conditioned": top, **fine, **said}),
                (ImageDecoder(model, prompted=False), {"conditioned": top, **fine, **said}),
                (MemoryEncoder(model), {"top": top, **mask}),
            ),
            strict=True,
        )
    )


class Part(nn.Module):
    """Something of Meta's model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class ImageEncoder(Part):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        high0, high1, top = self.model.forward_image(image)["backbone_fpn"]
        return top, high0, high1, top + self.model.no_mem_embed.view(1, -1, 1, 1)


class MemoryAttention(Part):
    """Memories [n, M, g, g] in their slots, pointers [p, C] with their ages; at least one of each."""

    def __init__(self, model: Any, grid: int) -> None:
        super().__init__(model)
        for layer in model.memory_attention.layers:
            for attention in (layer.self_attn, layer.cross_attn_image):
                attention.freqs_cis = attention.compute_cis(end_x=grid, end_y=grid)
        here = model.image_encoder.neck.position_encoding
        there = model.memory_encoder.position_encoding
        self.position = here(torch.zeros(1, 1, grid, grid)).flatten(2).permute(2, 0, 1)
        self.places = there(torch.zeros(1, 1, grid, grid)).flatten(2).transpose(1, 2)

    def forward(self, top: Tensor, memories: Tensor, slots: Tensor, pointers: Tensor, ages: Tensor) -> Tensor:
        model, width = self.model, self.model.mem_dim
        tokens = memories.flatten(2).transpose(1, 2).reshape(-1, 1, width)
        places = (self.places + model.maskmem_tpos_enc[slots].view(-1, 1, width)).reshape(-1, 1, width)
        parts = pointers.reshape(-1, 1, width)
        when = sine(ages / (model.max_obj_ptrs_in_encoder - 1), model.hidden_dim)
        when = model.obj_ptr_tpos_proj(when).repeat_interleave(model.hidden_dim // width, dim=0)[:, None]
        answer = model.memory_attention(
            curr=[top.flatten(2).permute(2, 0, 1)], curr_pos=[self.position], memory=torch.cat([tokens, parts]),
            memory_pos=torch.cat([places, when]), num_obj_ptr_tokens=parts.shape[0],
        )  # fmt: skip
        return answer.permute(1, 2, 0).reshape(top.shape)


class ImageDecoder(Part):
    """Mask logits [1, 1, 4g, 4g], the mask as the memory encoder wants it, the pointer and the object's score."""

    def __init__(self, model: Any, prompted: bool) -> None:
        super().__init__(model)
        self.prompted = prompted

    def forward(
        self, conditioned: Tensor, high0: Tensor, high1: Tensor, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        said = {"point_coords": coords, "point_labels": labels}
        *_, low, high, pointer, score = self.model._forward_sam_heads(
            conditioned, said, high_res_features=[high0, high1], multimask_output=not self.prompted
        )
        certain = (high > 0).float() if self.prompted else torch.sigmoid(high)
        mask = certain * self.model.sigmoid_scale_for_mem_enc + self.model.sigmoid_bias_for_mem_enc
        return low, mask, pointer, score


class MemoryEncoder(Part):
    def forward(self, top: Tensor, mask: Tensor, score: Tensor) -> Tensor:
        memory: Tensor = self.model.memory_encoder(top, mask, skip_mask_sigmoid=True)["vision_features"]
        absent = (score <= 0).float()[..., None, None] * self.model.no_obj_embed_spatial[..., None, None]
        return memory + absent


def sine(positions: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Meta's `get_1d_sine_pe`."""
    steps = temperature ** (2 * (torch.arange(width // 2) // 2) / (width // 2))
    angles = positions[:, None] / steps
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def real_forward(self: Any, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: Any = 0) -> Tensor:
    """Their `RoPEAttention.forward`, on real numbers."""
    q, k, v = (self._separate_heads(part, self.num_heads) for part in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
    cos, sin = self.freqs_cis.real.contiguous(), self.freqs_cis.imag.contiguous()
    many = k.shape[-2] - num_k_exclude_rope
    maps = k[:, :, :many].unflatten(2, (-1, cos.shape[0]))  # each memory is rotated as the picture is
    k = torch.cat([turn(maps, cos, sin).flatten(2, 3), k[:, :, many:]], dim=2)
    out = F.scaled_dot_product_attention(turn(q, cos, sin), k, v)
    return self.out_proj(self._recombine_heads(out))  # type: ignore[no-any-return]


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels, rotated."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
