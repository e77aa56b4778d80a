"""The `cpu` engine: the tracked step on compiled kernels, or in torch with fixed shapes if there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.types import ImageU8
from ...sam2 import Decoded, Features, PromptBatch, Recall, Remembered, Sam2
from ...sam2.presets import HIERA, VIT_HEADS
from ..picture.cpu_kernel import CpuPicture
from ..picture.tensors import to_input
from ..recipe import Recipe
from ..reference import DTYPES
from ..static.memory import PaddedRead
from ..static.network import StaticNetwork
from ..static.torch_engine import StaticTorchEngine
from .isa import isa_for, lacks
from .kernels import Kernels
from .lite import CpuLite
from .mask import CpuDecode, CpuRemember
from .match import CpuMatch
from .network import CpuAttend, CpuHiera, Packer
from .repvit import CpuRepVit
from .vit import CpuVit

IN_TORCH = ("fp32", "bf16")  # precisions that also work without kernels


class CpuEngine(StaticTorchEngine):
    """Decodes prompted frames with the reference network; every verb of a tracked step has a faster form."""

    def __init__(self, network: Sam2, recipe: Recipe, weights_hash: str, kernels: Kernels | None) -> None:
        super().__init__(network, recipe, weights_hash, "cpu")
        static = StaticNetwork(network)
        self._verbs = KernelVerbs(static, kernels) if kernels else TorchVerbs(static, recipe)
        self._match = CpuMatch(kernels, network.match) if kernels and network.match else None
        how = f"{kernels.isa} kernels" if kernels else "torch"
        self.description = f"cpu: {how} and torch {torch.__version__}, {recipe.precision}"

    @torch.inference_mode()
    def prepare(self, image_hwc: ImageU8) -> Tensor:
        with self._verbs.at_work():
            return self._verbs.picture(image_hwc)

    @torch.inference_mode()
    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self._verbs.at_work():
            return Features(*(t.float() for t in self._verbs.encode(self._verbs.picture(image_hwc))))

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        return True

    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Tensor:
        with self._verbs.at_work():
            return self._verbs.attend(features.top, recalls)

    def _matched(self, attended_bdhw: Tensor, features: Features, recalls: Sequence[Recall]) -> Tensor:
        cells = [recall.cells_cgg for recall in recalls]
        if self._match is None or len(features.top) > 1:
            return super()._matched(attended_bdhw, features, recalls)
        with self._verbs.at_work():
            return self._match(attended_bdhw, features, cells)

    def _fresh(self, features: Features) -> Tensor:
        with self._verbs.at_work():
            return super()._fresh(features)

    def _decode_prompted(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        # Many small operations: a second thread gains nothing, and on a busy machine each waits for it (12 x longer).
        with self._verbs.at_work():
            return super()._decode_prompted(conditioned_bchw, features, prompts)

    def _decode_tracked(self, conditioned_bchw: Tensor, features: Features) -> Decoded:
        with self._verbs.at_work():
            return Decoded(*self._verbs.decode(conditioned_bchw, features.mid, features.fine))

    @torch.inference_mode()
    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        shape = self.preset.memory_shape(self.image_size // 16)
        with self._verbs.at_work():
            tokens_bnm = self._verbs.remember(features.top, logits_b1hw, score_b, torch.tensor(list(prompted)))
            # Copies, because a view would keep the whole batch alive for as long as any object remembers it.
            written = [
                remembered(tokens_nm, self._verbs.keys_of(tokens_nm), shape)
                for tokens_nm in map(torch.clone, tokens_bnm)
            ]
            return self._with_cells(written, features, logits_b1hw, prompted)


def remembered(tokens_nm: Tensor, keys_lnd: Tensor, shape: tuple[int, int]) -> Remembered:
    """A memory whose map is a view of its tokens [n, M] in rows and columns."""
    return Remembered(tokens_nm.T.unflatten(1, shape), keys_lnd)


class TorchVerbs:
    """The verbs of a tracked step in torch, by `StaticNetwork`."""

    def __init__(self, static: StaticNetwork, recipe: Recipe) -> None:
        self._net = static.precise(DTYPES.get(recipe.precision, torch.float32), torch.float32)
        self.picture = partial(to_input, size=static.image_size)
        self.encode, self.decode, self.remember = static.encoder, static.decode, static.remember

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A context for calls. It sets up OpenMP in a thread that has not used torch yet."""
        torch.get_num_threads()
        yield

    def keys_of(self, tokens_nm: Tensor) -> Tensor:
        keys: Tensor = self._net.attend.keys_of(tokens_nm[None])[0]
        return keys.contiguous()

    def attend(self, top_1dhw: Tensor, recalls: Sequence[Recall]) -> Tensor:
        return torch.cat([self._net.attend(top_1dhw, exact_read(self._net, r)) for r in recalls])


def exact_read(net: StaticNetwork, recall: Recall) -> PaddedRead:
    """The memories of one object, without empty slots."""
    tokens = [m.map_chw.flatten(1).T for m in recall.memories]
    keys = [
        net.attend.keys_of(t[None])[0] if m.keys_lnd is None else m.keys_lnd
        for m, t in zip(recall.memories, tokens, strict=True)
    ]
    present = torch.ones(1, len(keys), dtype=torch.bool), torch.ones(1, len(recall.ages), dtype=torch.bool)
    slots, ages = torch.tensor([recall.slots]), torch.tensor([recall.ages], dtype=torch.float32)
    stacked = torch.stack(keys)[None], torch.stack(tokens)[None]
    return PaddedRead(net.attend, *stacked, slots, present[0], recall.pointers_pc[None].float(), ages, present[1])


def encoder_of(pack: Packer, static: StaticNetwork) -> CpuHiera | CpuLite | CpuRepVit | CpuVit:
    """The encoder on kernels for the trunk of a network."""
    encoder: Any = static.encoder
    trunk = static.preset.trunk
    if trunk == HIERA or trunk in VIT_HEADS:
        return (CpuHiera if trunk == HIERA else CpuVit)(pack, encoder, static.image_size)
    return CpuRepVit(pack, encoder) if trunk.startswith("repvit") else CpuLite(pack, encoder)


class KernelVerbs:
    """The verbs of a tracked step on compiled kernels."""

    def __init__(self, static: StaticNetwork, kernels: Kernels) -> None:
        pack = Packer(kernels)
        self._kernels = kernels
        self.picture = CpuPicture(kernels, static.image_size)
        self.encode = encoder_of(pack, static)
        self.attend = CpuAttend(pack, static.attend, static.grid)
        self.keys_of = self.attend.keys_of
        self.decode = CpuDecode(pack, static.decode)
        self._remember = CpuRemember(pack, static.remember)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A context in which the kernels use as many threads as torch had, and torch uses one.

        torch has little to do between kernels, and its idle OpenMP threads would spin on the kernels' cores.
        """
        threads = torch.get_num_threads()
        self._kernels.use(threads)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def remember(self, top: Tensor, logits_b1hw: Tensor, score_b: Tensor, certain_b: Tensor) -> Tensor:
        return self._remember(top, logits_b1hw, score_b, certain_b).to(self._kernels.half)


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> CpuEngine:
    """Open the engine of a recipe: on the kernels if they can run the network here, else in torch.

    Raises `EngineError` if the precision needs kernels that cannot run. `built` is not read.
    """
    why = lacks(network.preset)
    if why is None:
        return CpuEngine(network, recipe, weights_hash, Kernels(isa_for(recipe.precision), recipe.precision))
    if recipe.precision not in IN_TORCH:
        raise EngineError(f"{recipe.precision} runs on the CPU kernels only, and {why}")
    engine = CpuEngine(network, recipe, weights_hash, None)
    engine.description += f" ({why})"
    return engine
