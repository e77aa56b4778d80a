"""The parts of a tracked step as functions of tensors: plain, or compiled for the shapes of one kind of step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from ..picture.torch_resize import TorchResize
from ..static.match import with_match
from ..static.network import StaticNetwork
from .buffers import Facts
from .fuse import MOST_OBJECTS, Draw, Verb, fused
from .memory_read import PoolRead
from .steps import Kind

ATTEND, DECODE, REMEMBER = "attend", "decode", "remember"


class Parts:
    """The functions that a step calls. `compile` compiles them; None: all stay plain."""

    def __init__(self, static: StaticNetwork, compile: Callable[[Verb, Draw], Verb] | None = None) -> None:
        self._compile = compile
        self._compiled: dict[Hashable, Verb] = {}
        attend, remember = static.attend, static.remember
        decode: Any = static.decode

        def attending(whole: bool) -> Verb:
            def run(top: Tensor, keys: Tensor, values: Tensor, pointers: Tensor, *facts: Tensor) -> tuple[Tensor, ...]:
                return (attend(top, PoolRead(attend, keys, values, Facts(*facts), pointers, whole)),)

            return run

        def matching(whole: bool) -> Verb:
            def run(top: Tensor, mid: Tensor, cells: Tensor, matched: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
                assert static.match is not None
                return (with_match(static.match, attending(whole)(top, *memory)[0], top, mid, cells, matched),)

            return run

        def drawn(conditioned: Tensor, mid: Tensor, fine: Tensor) -> tuple[Tensor, ...]:
            answers: tuple[Tensor, ...] = decode.drawn(conditioned, mid, fine)
            return answers

        def written(top: Tensor, logits: Tensor, score: Tensor, certain: Tensor) -> tuple[Tensor, ...]:
            tokens = remember(top, logits, score, certain)
            return tokens, attend.keys_of(tokens)

        self._attending = {whole: (matching if static.match else attending)(whole) for whole in (False, True)}
        self._drawn, self._written = drawn, written

    def attend(self, kind: Kind, full: bool) -> Verb:
        """(top, keys and values of the pool, pointers, facts) to conditioned features.

        With `Match` (top, mid, cells, which objects have any, keys, ...).
        """
        return self._compiled.get((ATTEND, kind, full), self._attending[full])

    def decode(self, objects: int) -> Verb:
        """(conditioned, mid, fine) to logits, IoU, score, pointer, and the logits before absent objects are emptied."""
        return self._compiled.get((DECODE, objects), self._drawn)

    def remember(self, objects: int) -> Verb:
        """(top, logits, score, certain) to tokens and their keys."""
        return self._compiled.get((REMEMBER, objects), self._written)

    def fuse(self, kind: Kind, full: bool, draw: Callable[[str], Draw], beat: Callable[[], None]) -> None:
        """Compile those parts of this kind of step that are not compiled yet. `draw` gives inputs for each part."""
        if self._compile is None or kind.objects > MOST_OBJECTS:
            return
        asked: tuple[tuple[Hashable, str, Verb], ...] = (
            ((ATTEND, kind, full), ATTEND, self._attending[full]),
            ((DECODE, kind.objects), DECODE, self._drawn),
            ((REMEMBER, kind.objects), REMEMBER, self._written),
        )
        for key, part, plain in asked:
            if key not in self._compiled:
                beat()
                self._compiled[key] = self._compile(plain, draw(part))

    def resize(self, to_image: TorchResize, draw: Draw) -> Verb:
        """The resizing of pictures of one size to the network's, compiled if the parts are."""

        def resized(picture_hwc: Tensor) -> tuple[Tensor, ...]:
            return (to_image(picture_hwc),)

        return resized if self._compile is None else self._compile(resized, draw)

    @property
    def state(self) -> str:
        """How many of the compiled parts are used, for the engine's description."""
        plain = {id(verb) for verb in (*self._attending.values(), self._drawn, self._written)}
        used = sum(id(verb) not in plain for verb in self._compiled.values())
        return f"{used} of {len(self._compiled)} parts of a step fused" if self._compiled else "plain step"


def compiling(backend: str = "inductor") -> Callable[[Verb, Draw], Verb]:
    """The `compile` of `Parts` with torch's compiler."""
    return lambda verb, draw: fused(verb, draw, backend)
