"""Reading and writing weights: Meta's `.pt`, transformers' safetensors, our own safetensors (Meta's names, fp16).

A checkpoint of a training that started from them is read, too: its optimiser and all else beside the tensors is left.

Reading executes nothing (`weights_only=True`; safetensors holds no code) and guesses nothing: every tensor of the file
is used, every tensor of the network comes from the file, and shapes agree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import OutputError, WeightsError
from .repvit import fold

State = dict[str, Tensor]

_HEAD = r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head)|object_pointer_proj)"
# transformers' names to Meta's. The rules apply in this order, each to the result of the previous ones.
_RENAMES = [(re.compile(old), new) for old, new in (
    (_HEAD + r"\.layers\.0\.", r"\1.layers.1."),
    (_HEAD + r"\.proj_in\.", r"\1.layers.0."),
    (_HEAD + r"\.proj_out\.", r"\1.layers.2."),
    (r"^memory_attention\.layers\.(\d)\.mlp\.up_proj\.", r"memory_attention.layers.\1.linear1."),
    (r"^memory_attention\.layers\.(\d)\.mlp\.down_proj\.", r"memory_attention.layers.\1.linear2."),
    (r"^(spatial_perceiver\.layers\.\d)\.layer_norm_input\.", r"\1.attn.norm_x."),
    (r"^(spatial_perceiver\.layers\.\d)\.layer_norm_latents\.", r"\1.attn.norm_latents."),
    (r"^(spatial_perceiver\.layers\.\d)\.layer_norm_self\.", r"\1.self_attn.norm."),
    (r"^(spatial_perceiver\.layers\.\d)\.cross_attention\.", r"\1.attn."),
    (r"^(spatial_perceiver\.layers\.\d)\.self_attention\.", r"\1.self_attn."),
    (r"^(spatial_perceiver\.layers\.\d\.\w+)\.q_proj\.", r"\1.to_q."),
    (r"^(spatial_perceiver\.layers\.\d\.\w+)\.o_proj\.", r"\1.to_out."),
    (r"^(spatial_perceiver\.layers\.\d)\.(self_)?mlp\.layer_norm\.", r"\1.\2ff.0."),
    (r"^(spatial_perceiver\.layers\.\d)\.(self_)?mlp\.up_proj\.", r"\1.\2ff.1."),
    (r"^(spatial_perceiver\.layers\.\d)\.(self_)?mlp\.down_proj\.", r"\1.\2ff.3."),
    (r"^spatial_perceiver\.layer_norm\.", "spatial_perceiver.norm."),
    (r"^spatial_perceiver\.latents_1d$", "spatial_perceiver.latents"),
    (r"\.proj_in\.", ".layers.0."),
    (r"\.proj_out\.", ".layers.1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"memory_attention\.layer_norm\.", "memory_attention.norm."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"^memory_encoder\.mask_downsampler\.final_conv\.", "memory_encoder.mask_downsampler.encoder.12."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"^(memory_encoder\.fuser\.layers\.\d)\.layer_norm\.", r"\1.norm."),
    (r"^(memory_encoder\.fuser\.layers\.\d)\.scale$", r"\1.gamma"),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
)]  # fmt: skip
_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.")
_POINTS = "prompt_encoder.point_embed.weight"
_TABLES = ("model", "state_dict", "model_state_dict", "module")  # where trainings keep the network in a checkpoint
_OF_EVERY_NETWORK = ("no_mem_embed", "no_memory_embedding")  # Meta's and transformers' name of one tensor
_OBJECT = re.compile(r"GLOBAL ([\w.]+)")  # what torch says of an object that it does not unpickle
# EdgeTAM's trunk has the names that timm gives it, below the module that holds it.
_TIMM = re.compile(r"^image_encoder\.trunk\.(?:body|timm_model)\.(?:stages_(\d)|(stem))\.")
_KEY = re.compile(r"^(spatial_perceiver\.layers\.\d\.\w+)\.k_proj\.weight$")


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fill the network from a file; `WeightsError` that names the first tensor that does not fit."""
    path = Path(path)
    state = read_state(path)
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    hint = "is `model` in the recipe the preset of this file?"
    if missing:
        raise WeightsError(f"{path}: {len(missing)} tensors are missing, the first is {missing[0]}; {hint}")
    if extra:
        raise WeightsError(f"{path}: {len(extra)} tensors that the network does not have, such as {extra[0]}; {hint}")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            found, expected = list(state[name].shape), list(tensor.shape)
            raise WeightsError(f"{path}: {name} has shape {found}, expected {expected}; {hint}")
        found_dtype, layout = state[name].dtype, state[name].layout
        if not found_dtype.is_floating_point or layout != torch.strided or not state[name].isfinite().all():
            raise WeightsError(f"{path}: {name} holds something else than finite numbers; the file is damaged")
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()})


def read_state(path: Path) -> State:
    """The tensors of a weights file under Meta's names, without the prefix that all names may share."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected weights as .pt or .safetensors")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged pickle can raise any exception, for example IndexError
        kind = "safetensors file" if path.suffix == ".safetensors" else "weights file"
        expected = "expected SAM 2 weights as .pt or .safetensors"
        if found := _OBJECT.search(str(e)):
            expected = (
                f"it holds {found[1]}, which may run code when it is read; expected tensors alone. If you trust the "
                'file: torch.save({"model": torch.load(FILE, weights_only=False)["model"]}, "tensors.pt")'
            )
        raise WeightsError(f"{path}: not a readable {kind}; {expected}") from e
    if isinstance(state, dict) and "average" in state:
        raise WeightsError(f"{path}: a checkpoint of a training; expected the weights.safetensors beside it")
    while isinstance(state, dict) and (key := next((k for k in _TABLES if isinstance(state.get(k), dict)), "")):
        state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, Tensor) for k, t in state.items()):
        raise WeightsError(f"{path}: holds no table of tensors; expected SAM 2 weights as .pt or .safetensors")
    return renamed(path, _without_prefix(path, state))


def renamed(path: Path, state: State) -> State:
    """Tensors under Meta's names, or under transformers', as those of the network. EdgeTAM's trunk is folded."""
    if _POINTS in state:
        state = _from_transformers(path, state)
    if not any(map(_TIMM.match, state)):
        return state
    try:
        return fold({_TIMM.sub(_untimm, name): tensor for name, tensor in state.items()})
    except RuntimeError as e:
        raise WeightsError(f"{path}: shapes in image_encoder.trunk do not fit together; the file is damaged") from e


def _without_prefix(path: Path, state: State) -> State:
    """The tensors without what a wrapper of the network puts before their names, such as "module."."""
    wrapped = (name.removesuffix(end) for name in state for end in _OF_EVERY_NETWORK if name.endswith(end))
    prefixes = sorted({prefix for prefix in wrapped if prefix == "" or prefix.endswith(".")})
    if len(prefixes) > 1:
        found = ", ".join(f"{prefix}*" for prefix in prefixes)
        raise WeightsError(f"{path}: holds {len(prefixes)} networks ({found}); expected one: save it alone")
    prefix = prefixes[0] if prefixes else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def save_weights(
    network: nn.Module, path: str | Path, *, half: bool = True, metadata: dict[str, str] | None = None
) -> None:
    """Write safetensors under Meta's names, in fp16 if `half`; no partial file is left. `OutputError` if it fails."""
    from safetensors.torch import save

    path = Path(path)
    dtype = torch.float16 if half else torch.float32
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save(state, metadata))  # with `save_file` only its owner could read it
        partial.replace(path)
    except OSError as e:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({e.strerror}); expected a folder with room for weights") from e


def _from_transformers(path: Path, state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        if name == _POINTS:
            for i, row in enumerate(tensor):
                out[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = row[None].clone()
            continue
        known = _rename(name)
        if known in out and not torch.equal(out[known], tensor):
            raise WeightsError(f"{path}: {name} differs from the other copy of {known}; the file is damaged")
        out[known] = tensor
    for name in [name for name in out if _KEY.match(name)]:
        value = name.replace("k_proj", "v_proj")
        if value in out:
            out[name.replace("k_proj", "to_kv")] = torch.cat((out.pop(name), out.pop(value)))
    return out


def _untimm(match: re.Match[str]) -> str:
    return f"image_encoder.trunk.{match[2] or f'stages.{match[1]}'}."


def _rename(name: str) -> str:
    # The mask downsampler is one flat sequence of (convolution, norm, activation) in Meta's checkpoints.
    if match := _DOWNSAMPLER.match(name):
        place = 3 * int(match[1]) + (match[2] == "layer_norm")
        return f"memory_encoder.mask_downsampler.encoder.{place}.{name[match.end() :]}"
    for old, new in _RENAMES:
        name = old.sub(new, name)
    return name
