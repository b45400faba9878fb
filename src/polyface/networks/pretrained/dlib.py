"""The weights of dlib's face recognition network (CC0), read from the package that ships them, without dlib."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.networks.network import FaceNetwork
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.pretrained.base import PublishedWeights
from polyface.networks.trunks.face_resnet import LEVELS, WIDTH, FaceResNet, unfold

PACKAGE, FILE = "face_recognition_models", "dlib_face_recognition_resnet_model_v1.dat"
_EPSILON = 1e-5  # of PyTorch's batch norm


class DlibWeights(PublishedWeights):
    """dlib's face recognition network (CC0), for trunk face-resnet and branches of kind residual."""

    faces = 512  # its batch norms have no statistics: those of training faces are what they begin with

    def start(self, network: FaceNetwork, parts: Sequence[str]) -> None:
        branches = list(network.branches.values()) if "branches" in parts else []
        wrong = not isinstance(network.trunk, FaceResNet) or not all(isinstance(m, ResidualPart) for m in branches)
        if wrong or "heads" in parts or "trunk" not in parts:
            raise PolyfaceError(
                f"init.source {self.source} is for trunk face-resnet and branches of kind residual: init.parts are "
                "[trunk] or [trunk, branches]"
            )
        trunk, branch = dlib_tensors()
        started: list[Any] = [network.trunk, *branches]
        for module, weights in zip(started, [trunk, *[branch] * len(branches)], strict=True):
            module.start_from(weights)

    def adapt(self, network: FaceNetwork, images: Tensor) -> None:
        unfold(network, images, kept=network.frozen)  # nor need a trunk that rests be another one at every seed


def dlib_tensors() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of `FaceResNet`, and of `ResidualPart` with `bottleneck` 128, by their names.

    dlib folds batch norm into a scale and a shift at the end of its training: here that is a batch norm of mean 0 and
    variance 1. On the same 150 px picture the 128 numbers are dlib's (to 1e-6).
    """
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:  # looked for and not imported: its code needs setuptools
        raise PolyfaceError("init.source: dlib: the weights are in the package face-recognition-models: pip install it")
    return read_dlib(Path(package.origin).parent / "models" / FILE)


def read_dlib(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same from the file; nothing in it is executed."""
    try:
        tensors = _Tensors(path, path.read_bytes())
    except OSError as error:
        raise PolyfaceError(f"{path}: cannot be read ({error.strerror or error}); install {PACKAGE} again") from error
    trunk = tensors.unit("stem", 3, 32, 7)
    width = 32
    for number, (wider, blocks) in enumerate(LEVELS):
        for block in range(blocks):
            trunk |= tensors.block(f"levels.{number}.{block}", width, wider)
            width = wider
    branch = tensors.block("blocks.0", WIDTH, WIDTH)
    branch["bottleneck.weight"] = tensors.take(WIDTH, 128).view(WIDTH, 128).T.contiguous()
    return trunk, branch


class _Tensors:
    """The parameter tensors of a file in dlib's format, one after the other, from the input on.

    Each is preceded by its version (2) and its four sizes as integers of a length byte and as many bytes; between them
    lie settings and empty tensors, which nothing here depends on.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, samples: int, channels: int = 1) -> Tensor:
        head = b"".join(map(_integer, (2, samples, channels, 1, 1)))
        start, count = self.data.find(head, self.at) + len(head), samples * channels
        if start < len(head) or start + 4 * count > len(self.data):
            raise PolyfaceError(f"{self.path}: not dlib's face recognition network; install {PACKAGE} again")
        self.at = start + 4 * count
        return torch.from_numpy(np.frombuffer(self.data, "<f4", count, start).astype(np.float32))

    def unit(self, name: str, channels: int, width: int, kernel: int) -> dict[str, Tensor]:
        conv, norm = self.take(width * channels * kernel**2 + width), self.take(2 * width)
        return {
            f"{name}.conv.weight": conv[:-width].view(width, channels, kernel, kernel),
            f"{name}.conv.bias": conv[-width:],
            f"{name}.norm.weight": norm[:width],
            f"{name}.norm.bias": norm[width:],
            f"{name}.norm.running_mean": torch.zeros(width),
            f"{name}.norm.running_var": torch.ones(width) - _EPSILON,
            f"{name}.norm.num_batches_tracked": torch.tensor(0),
        }

    def block(self, name: str, channels: int, width: int) -> dict[str, Tensor]:
        return self.unit(f"{name}.first", channels, width, 3) | self.unit(f"{name}.second", width, width, 3)


def _integer(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8 or 1, "little")
    return bytes([len(data)]) + data
