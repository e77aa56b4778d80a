"""Distillation: a smaller network takes over a larger one's weights, and learns its image features.

A network with the same `dim` and `memory_dim` can use the memory and the decoder of the larger one. So all weights but
those of the image encoder are copied, and those too where both have the same convolutional trunk, the smaller one
without stride 32. If a layer has fewer hidden units, those with the largest weights are kept. Then a phase with
`loss = "features"` trains the new encoder on the teacher's features (FitNets, arXiv 1412.6550).
"""

from __future__ import annotations

import re

from torch import Tensor

from ..base.errors import ConfigError
from ..sam2 import Features, Sam2
from ..sam2.presets import HIERA

ENCODER, MATCH = "image_encoder.", "match."
NECK = re.compile(r"(image_encoder\.neck\.convs\.)(\d)(\..*)$")
FIRST_LINEAR = re.compile(r"(.*)(mlp\.layers\.0|linear1)\.weight$")  # the layer whose outputs are hidden units
SECOND_LINEAR = {"mlp.layers.0": "mlp.layers.1", "linear1": "linear2"}
State = dict[str, Tensor]


def copy_weights(student: Sam2, teacher: Sam2) -> None:
    """Copy the teacher's weights to the student: all but those of the image encoder, and that too if it is alike.

    Raises `ConfigError` if the two differ in more than the image encoder and the number of hidden units.
    """
    own, given = student.state_dict(), _pruned(teacher.state_dict(), student.state_dict())
    alike = student.preset.trunk == teacher.preset.trunk != HIERA
    shift = teacher.preset.levels - student.preset.levels
    for name, tensor in own.items():
        from_name = _neck_name(name, shift)
        if (name.startswith(ENCODER) and not alike) or (name.startswith(MATCH) and teacher.match is None):
            continue
        if from_name not in given or given[from_name].shape != tensor.shape:
            raise ConfigError(
                f"teacher: {name} of a {teacher.preset.name} does not fit a {student.preset.name};"
                " expected presets that differ only in image encoder and hidden units"
            )
        own[name] = given[from_name]
    student.load_state_dict(own)


def _neck_name(name: str, shift: int) -> str:
    """The teacher's name of a tensor: its neck counts from the coarsest map, of which it may have `shift` more."""
    found = NECK.match(name)
    return f"{found[1]}{int(found[2]) + shift}{found[3]}" if found else name


def _pruned(given: State, own: State) -> State:
    """The teacher's tensors, reduced to the student's number of hidden units: those with the largest weights."""
    pruned = dict(given)
    for name in given:
        found = FIRST_LINEAR.match(name)
        if found is None or name.startswith(ENCODER) or name not in own:
            continue
        prefix, first = found.groups()
        bias, second = f"{prefix}{first}.bias", f"{prefix}{SECOND_LINEAR[first]}.weight"
        in_hc, out_ch = given[name], given[second]
        units = min(len(own[name]), len(in_hc))
        largest_h = (in_hc.norm(dim=1) * out_ch.norm(dim=0)).topk(units).indices
        pruned |= {name: in_hc[largest_h], bias: given[bias][largest_h], second: out_ch[:, largest_h]}
    return pruned


def features_loss(student: Features, teacher: Features) -> dict[str, Tensor]:
    """The squared error of the student's features, relative to the variance of the teacher's, at each scale."""
    terms = {}
    for name in ("top", "mid", "fine"):
        ours, theirs = getattr(student, name).float(), getattr(teacher, name).float()
        variance = theirs.var(dim=(0, 2, 3), keepdim=True).mean(1, keepdim=True)
        terms[name] = ((ours - theirs) ** 2 / variance).mean()
    return terms
