"""The networks of a training: the one that learns, with its adapters and first weights, and its teacher."""

from __future__ import annotations

import torch

from ..engine import find_weights
from ..sam2 import Preset, Sam2, get_preset, load_weights
from ..sam2.adapters import adapters_of
from .config import Teacher, TrainConfig
from .distillation import copy_weights
from .imagenet import load_imagenet
from .methods import adapters_among


def new_network(config: TrainConfig, preset: Preset, image_size: int) -> Sam2:
    """A network with the adapters of the configuration; its weights are random, and its adapters do nothing yet."""
    net, methods = Sam2(preset, image_size), adapters_among(config.method)
    return net.attach(adapters_of(methods, preset)) if methods else net


def load_initial_weights(net: Sam2, config: TrainConfig, device: torch.device) -> None:
    """Load the weights that the configuration starts from, and copy those of a teacher. Adapters begin as they are."""
    if config.trunk is not None:
        load_imagenet(net)
    if config.weights is not None:
        base = Sam2(net.preset, net.image_size)
        load_weights(base, find_weights(config.weights))
        net.load_state_dict(base.state_dict(), strict=False)
    if config.teacher is not None:
        copy_weights(net, load_teacher(config.teacher, net.image_size, device))


def load_teacher(teacher: Teacher, image_size: int, device: torch.device) -> Sam2:
    """A teacher's network, frozen, on the device."""
    net = Sam2(get_preset(teacher.preset), image_size)
    load_weights(net, find_weights(teacher.weights))
    return net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
