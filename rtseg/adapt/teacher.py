"""A larger network that a smaller one learns from: what the small one takes over, and what it is to see.

A network of the same `dim` and `memory_dim` can go on with the larger one's memory and decoder; what it lacks is the
larger one's view of a picture. So all but the image encoder is copied, hidden units cut to those that count most, and
a phase whose `loss` is "features" teaches the new encoder the features of the old one (FitNets, arXiv 1412.6550).
"""

from __future__ import annotations

import re

from torch import Tensor

from ..base.errors import ConfigError
from ..sam2 import Features, Sam2

ENCODER = "image_encoder."
INTO = re.compile(r"(.*)(mlp\.layers\.0|linear1)\.weight$")  # the matrix that makes hidden units
OUT_OF = {"mlp.layers.0": "mlp.layers.1", "linear1": "linear2"}
State = dict[str, Tensor]


def inherit(student: Sam2, teacher: Sam2) -> None:
    """Give the student all of the teacher but its image encoder.

    `ConfigError` where the two differ in more than that and in how many hidden units their layers have.
    """
    own, given = student.state_dict(), _cut(teacher.state_dict(), student.state_dict())
    for name, tensor in own.items():
        if name.startswith(ENCODER):
            continue
        if name not in given or given[name].shape != tensor.shape:
            raise ConfigError(
                f"teacher: a {student.preset.name} cannot go on with {name} of a {teacher.preset.name};"
                " expected presets that differ in image encoder and hidden units alone"
            )
        own[name] = given[name]
    student.load_state_dict(own)


def _cut(given: State, own: State) -> State:
    """The teacher's tensors with as many hidden units as the student has, those with the largest weights."""
    cut = dict(given)
    for name in given:
        found = INTO.match(name)
        if found is None or name.startswith(ENCODER) or name not in own:
            continue
        start, into = found.groups()
        bias, out = f"{start}{into}.bias", f"{start}{OUT_OF[into]}.weight"
        weight_hc, out_ch = given[name], given[out]
        kept_h = (weight_hc.norm(dim=1) * out_ch.norm(dim=0)).topk(min(len(own[name]), len(weight_hc))).indices
        cut |= {name: weight_hc[kept_h], bias: given[bias][kept_h], out: out_ch[:, kept_h]}
    return cut


def features_loss(seen: Features, taught: Features) -> dict[str, Tensor]:
    """What is not explained of the teacher's features, as a share of their variance, at each scale."""
    parts = {}
    for name in ("top", "mid", "fine"):
        ours, theirs = getattr(seen, name).float(), getattr(taught, name).float()
        spread = theirs.var(dim=(0, 2, 3), keepdim=True).mean(1, keepdim=True)
        parts[name] = ((ours - theirs) ** 2 / spread).mean()
    return parts
