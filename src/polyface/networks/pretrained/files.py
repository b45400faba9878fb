"""Weights in files, by the names that timm or facenet-pytorch gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.networks.network import FaceNetwork
from polyface.networks.pretrained.base import SUFFIXES, PublishedWeights
from polyface.networks.pretrained.facenet import FacenetTensors
from polyface.networks.trunks.inception_resnet import InceptionResNet
from polyface.networks.trunks.timm_trunk import TimmTrunk


class FileWeights(PublishedWeights):
    """A whole model's weights in a .safetensors, .pth or .pt file: a timm model's, for a trunk `timm` of that model; or
    those of facenet-pytorch, for trunk `inception-resnet` and branches of kind `inception`."""

    def start(self, network: FaceNetwork, parts: Sequence[str]) -> None:
        trunk = network.trunk
        if isinstance(trunk, InceptionResNet) and Path(self.source).suffix in SUFFIXES:
            FacenetTensors(self.source, read_weights(Path(self.source))).start(network, parts)
            return
        if not isinstance(trunk, TimmTrunk):
            raise PolyfaceError(f"init.source {self.source} is for trunks of timm alone")
        if list(parts) != ["trunk"]:
            raise PolyfaceError(f"init.source {self.source} has a trunk alone: init.parts must be [trunk]")
        trunk.start_from(self.tensors(trunk.model))

    def tensors(self, model: str) -> dict[str, Tensor]:
        """Those of a timm model, by timm's names."""
        return read_weights(Path(self.source))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth or .pt file; the latter without executing anything in it."""
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
