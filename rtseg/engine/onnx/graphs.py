"""The network as ONNX graphs, exported from torch.

A tracked frame is `rtseg.engine.static`; prompts go through `Sam2` as it is written. Maps are channels
last, also as inputs and outputs: numpy transposes them at no cost.

Products are written plainly (scale after the product, no masked fill), in the forms that ONNX Runtime fuses.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import Features, Sam2
from ...sam2.network import downsampled
from ..static.memory import PaddedRead
from ..static.network import StaticNetwork
from ..static.parts import Attention
from .match import Cells, Compare
from .ports import open_axes, verbs

OPSET = 20  # the first with Gelu, and the newest that torch's fast exporter supports


class PlainAttention(Attention):
    """Softmax attention of products that ONNX Runtime fuses with the scale."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        return scores.softmax(dim=-1) @ v


class Encode(nn.Module):
    def __init__(self, static: StaticNetwork) -> None:
        super().__init__()
        self.encoder = static.encoder

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, ...]:
        return tuple(last(t) for t in self.encoder(image_1chw))


class Attend(nn.Module):
    def __init__(self, static: StaticNetwork) -> None:
        super().__init__()
        self.attend = static.attend

    def forward(
        self, top_1hwd: Tensor, keys_btlnd: Tensor, values_btnm: Tensor, slots_bt: Tensor, present_bt: Tensor,
        pointers_bkd: Tensor, ages_bk: Tensor, real_bk: Tensor,
    ) -> Tensor:  # fmt: skip
        read = PaddedRead(self.attend, keys_btlnd, values_btnm, slots_bt, present_bt, pointers_bkd, ages_bk, real_bk)
        return last(self.attend(first(top_1hwd), read))


class Fresh(nn.Module):
    """The features of an object without memories."""

    fresh: Tensor

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.register_buffer("fresh", net.no_mem_embed.detach().view(1, 1, 1, -1))

    def forward(self, top_1hwd: Tensor) -> Tensor:
        out: Tensor = top_1hwd + self.fresh
        return out


class Decode(nn.Module):
    def __init__(self, static: StaticNetwork) -> None:
        super().__init__()
        self.decode = static.decode

    def forward(self, conditioned_bhwd: Tensor, mid: Tensor, fine: Tensor) -> tuple[Tensor, ...]:
        answers: tuple[Tensor, ...] = self.decode(first(conditioned_bhwd), first(mid), first(fine))
        return answers


class Remember(nn.Module):
    """Masks to memory tokens and their keys."""

    def __init__(self, static: StaticNetwork) -> None:
        super().__init__()
        self.attend, self.remember = static.attend, static.remember

    def forward(
        self, top_1hwd: Tensor, logits_b1hw: Tensor, score_b: Tensor, certain_b: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens_bnm: Tensor = self.remember(first(top_1hwd), logits_b1hw, score_b, certain_b)
        return tokens_bnm, self.attend.keys_of(tokens_bnm)


class Prompt(nn.Module):
    """Points, each with a label (-1: none), and an earlier mask where `masked_b`."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.net, self.encoder = net, net.sam_prompt_encoder

    def forward(
        self, conditioned_bhwd: Tensor, mid: Tensor, fine: Tensor, points_bp2: Tensor, labels_bp: Tensor,
        mask_b1hw: Tensor, masked_b: Tensor, multimask: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        sparse_bpd = self.encoder.points(points_bp2, labels_bp)
        blank = self.encoder.not_a_point_embed.weight
        none_bp = F.pad(labels_bp, (0, 1)) < 0
        sparse_bpd = torch.where(none_bp[:, :, None], blank, sparse_bpd)
        empty = self.encoder.no_mask_embed.weight[:, :, None, None]
        dense = torch.where(masked_b[:, None, None, None], self.encoder.mask_downscaling(mask_b1hw), empty)
        conditioned = first(conditioned_bhwd)
        c = self.net.candidates(conditioned, Features(conditioned, first(mid), first(fine)), sparse_bpd, dense)
        three, one = self.net.answer(c, True), self.net.answer(c, False)
        chosen = [
            torch.where(multimask, a, b)
            for a, b in (
                (three.logits_b1hw, one.logits_b1hw), (three.iou_b, one.iou_b), (three.pointer_bc, one.pointer_bc),
            )
        ]  # fmt: skip
        return chosen[0], chosen[1], c.score_b, chosen[2]


class Answer(nn.Module):
    """A mask prompt as the answer. Its IoU is 1; nothing is decoded, so the finer maps are not read."""

    rows: Tensor

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.net, side = net, 4 * net.grid
        # Downsampling is linear along each axis. As a product it is exact; ONNX Runtime's resize is not.
        self.register_buffer("rows", downsampled(torch.eye(net.image_size)[None, None], (side, net.image_size))[0, 0])
        unread = (torch.zeros(1, net.preset.dim // by, by * net.grid // 2, by * net.grid // 2) for by in (4, 8))
        self.unread = tuple(unread)

    def forward(self, top_1hwd: Tensor, answer_b1hw: Tensor) -> tuple[Tensor, ...]:
        score_b, pointer_bd = self.net.presence(Features(first(top_1hwd), *self.unread), answer_b1hw)
        return self.rows @ (answer_b1hw * 20 - 10) @ self.rows.T, score_b, pointer_bd


class Rivals(nn.Module):
    """The two of the three masks that are not chosen when nothing is prompted."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.net, self.encoder = net, net.sam_prompt_encoder

    def forward(self, conditioned_bhwd: Tensor, mid: Tensor, fine: Tensor) -> Tensor:
        conditioned = first(conditioned_bhwd)
        features = Features(conditioned, first(mid), first(fine))
        sparse_bpd = self.encoder.padding(conditioned.shape[0], 2)
        c = self.net.candidates(conditioned, features, sparse_bpd, self.encoder.no_mask_embed.weight[:, :, None, None])
        losing_b2 = 1 + c.iou_bk[:, 1:].topk(3, dim=1).indices[:, 1:].flip(1)
        cells = losing_b2[:, :, None, None].expand(-1, -1, *c.logits_bkhw.shape[2:])
        return c.logits_bkhw.gather(1, cells)


def last(x_bchw: Tensor) -> Tensor:
    return x_bchw.permute(0, 2, 3, 1)


def first(x_bhwc: Tensor) -> Tensor:
    return x_bhwc.permute(0, 3, 1, 2)


class Exporter:
    """Makes the graphs of one network, one by one."""

    def __init__(self, net: Sam2) -> None:
        self.net = net.eval().requires_grad_(False).bake()
        self.static = StaticNetwork(net, PlainAttention())

    def examples(self) -> dict[str, Tensor]:
        """An example of every input, for two objects; the exporter reads only types and shapes."""
        p, s, g = self.net.preset, self.net.image_size, self.net.grid
        b, t, k, points, n, layers = 2, 3, 4, 5, p.memory_tokens(g), p.attention_layers
        yes = torch.ones
        return {
            "image_1chw": torch.zeros(1, 3, s, s),
            "top_1hwd": torch.zeros(1, g, g, p.dim),
            "mid_1hwc": torch.zeros(1, 2 * g, 2 * g, p.dim // 4),
            "fine_1hwc": torch.zeros(1, 4 * g, 4 * g, p.dim // 8),
            "keys_btlnd": torch.zeros(b, t, layers, n, p.dim),
            "values_btnm": torch.zeros(b, t, n, p.memory_dim),
            "slots_bt": torch.zeros(b, t, dtype=torch.int64),
            "present_bt": yes(b, t, dtype=torch.bool),
            "pointers_bkd": torch.zeros(b, k, p.dim),
            "ages_bk": yes(b, k),
            "real_bk": yes(b, k, dtype=torch.bool),
            "conditioned_bhwd": torch.zeros(b, g, g, p.dim),
            "logits_b1hw": torch.zeros(b, 1, 4 * g, 4 * g),
            "score_b": torch.zeros(b),
            "certain_b": yes(b, dtype=torch.bool),
            "points_bp2": torch.zeros(b, points, 2),
            "labels_bp": torch.zeros(b, points, dtype=torch.int64),
            "mask_b1hw": torch.zeros(b, 1, 4 * g, 4 * g),
            "masked_b": yes(b, dtype=torch.bool),
            "multimask": torch.tensor(True),
            "answer_b1hw": torch.zeros(b, 1, s, s),
            "cells_bcgg": torch.zeros(b, p.match_dim + 1, 2 * g, 2 * g),
        }

    def module(self, name: str) -> nn.Module:
        net, static = self.net, self.static
        made: dict[str, Callable[[], nn.Module]] = {
            "encode": lambda: Encode(static), "attend": lambda: Attend(static), "fresh": lambda: Fresh(net),
            "decode": lambda: Decode(static), "remember": lambda: Remember(static), "prompt": lambda: Prompt(net),
            "answer": lambda: Answer(net), "rivals": lambda: Rivals(net),
            "match": lambda: Compare(net), "cells": lambda: Cells(net),
        }  # fmt: skip
        return made[name]()

    def graph(self, name: str) -> bytes:
        """One graph as a serialised `ModelProto`."""
        inputs, outputs = verbs(self.net.preset)[name]
        examples = self.examples()
        axes = {port: open_axes(port) for port in (*inputs, *outputs)}
        into: Any = io.BytesIO()  # the exporter accepts it, but its annotation does not list it
        with quiet_exporter(), torch.no_grad():
            torch.onnx.export(
                self.module(name), tuple(examples[i] for i in inputs), into, dynamo=False, opset_version=OPSET,
                input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes,
            )  # fmt: skip
        return into.getvalue()


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """torch's exporter without warnings about deprecation, unneeded packages and intentionally constant shapes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
