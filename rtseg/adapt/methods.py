"""Methods of a training, by name: which parts of the network learn, how fast, and which adapters are added.

Methods are composed: `method = ["lora", "temporal"]` trains two adapters and nothing else; with "decoder" the mask
decoder learns, too. Without any method the whole network learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..sam2.adapters.registry import ADAPTERS

PARTS = {  # of a network's parameters, by the beginning of their names; all others are the memory's
    "trunk": "image_encoder.trunk.",
    "encoder": "image_encoder.",
    "prompts": "sam_prompt_encoder.",
    "decoder": "sam_mask_decoder.",
    "adapter": "adapter.",
}
MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Policy:
    """A freeze policy: the learning rate of each part, relative to the phase's. Other parts are frozen."""

    rates: Mapping[str, float]
    source: str


ENCODER = {"trunk": 1.0, "encoder": 1.0}
POLICIES = {
    "decoder": Policy({"decoder": 1.0}, "the mask decoder alone: the usual first step of SAM in medical images"),
    "memory": Policy({MEMORY: 1.0}, "memory attention and memory encoder alone"),
    "encoder-decoder": Policy(
        {**ENCODER, "decoder": 1.0}, "MedSAM, Nature Communications 2024: boxes, and a frozen prompt encoder"
    ),
    "all-but-prompts": Policy({**ENCODER, "decoder": 1.0, MEMORY: 1.0}, "BioSAM 2, arXiv 2408.03286"),
    "decoder-and-slow-memory": Policy(
        {"decoder": 1.0, MEMORY: 0.1}, "Surgical SAM 2, arXiv 2408.07931: 2e-4 and 2e-5 at a low resolution"
    ),
}
METHODS = (*POLICIES, *ADAPTERS)


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    return next((part for part, begin in PARTS.items() if name.startswith(begin)), MEMORY)


def adapters_among(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods that are adapters, in their order."""
    return tuple(name for name in methods if name in ADAPTERS)


def rates_of(methods: Iterable[str]) -> dict[str, float]:
    """The relative learning rate of each part; 0 for a frozen one."""
    methods = tuple(methods)
    rates = dict.fromkeys((*PARTS, MEMORY), 0.0 if methods else 1.0)
    for name in methods:
        given = POLICIES[name].rates if name in POLICIES else {"adapter": 1.0}
        rates |= {part: max(rates[part], rate) for part, rate in given.items()}
    return rates


def only_adapters(methods: Iterable[str]) -> bool:
    """Whether nothing but adapters learns."""
    return not any(rate for part, rate in rates_of(methods).items() if part != "adapter")
