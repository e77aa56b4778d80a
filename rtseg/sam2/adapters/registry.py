"""The adapters by the name that configurations and files give them."""

from __future__ import annotations

from .base import Adapter
from .bottleneck import Bottleneck
from .channel_spatial import ChannelSpatial
from .convolutions import ConvolutionBranch
from .depthwise3d import Depthwise3d
from .lora import LowRank
from .prompt_conditioned import PromptConditioned
from .temporal import Temporal

ADAPTERS: dict[str, type[Adapter]] = {
    "lora": LowRank,
    "bottleneck": Bottleneck,
    "prompt-conditioned": PromptConditioned,
    "channel-spatial": ChannelSpatial,
    "depthwise-3d": Depthwise3d,
    "temporal": Temporal,
    "convolutions": ConvolutionBranch,
}
