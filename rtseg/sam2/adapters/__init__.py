"""Adapters: small trained parts beside a network that is left as it is. Each file is one method of the literature."""

from .base import PAST, Adapter, Adapters, Past
from .bottleneck import Bottleneck
from .channel_spatial import ChannelSpatial
from .convolutions import ConvolutionBranch
from .depthwise3d import Depthwise3d
from .file import AdapterFile, adapters_of, load_adapter, read_adapter, write_adapter
from .lora import LowRank
from .prompt_conditioned import PromptConditioned
from .registry import ADAPTERS
from .temporal import Temporal

__all__ = [
    "ADAPTERS", "PAST", "Adapter", "AdapterFile", "Adapters", "Bottleneck", "ChannelSpatial", "ConvolutionBranch",
    "Depthwise3d", "LowRank", "Past", "PromptConditioned", "Temporal", "adapters_of", "load_adapter", "read_adapter",
    "write_adapter",
]  # fmt: skip
