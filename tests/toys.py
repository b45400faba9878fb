"""Small random models, a network that always says the same, and a detector that finds what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from polyface import tasks as task_kinds
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.data.detector import Detection
from polyface.models.bundle import Bundle
from polyface.networks import build
from polyface.networks.layers import LocallyConnected2d

FIVE: dict[str, dict[str, Any]] = {
    "landmarks": {"kind": "landmarks", "points": 5},
    "pose": {"kind": "classification", "column": "pose"},
    "smile": {"kind": "classification", "column": "smile"},
}
SIXTY_EIGHT: dict[str, dict[str, Any]] = {"landmarks": {"kind": "landmarks", "points": 68}}
Make = Callable[..., Bundle]


def make_bundle(
    tasks: dict[str, dict[str, Any]] = FIVE,
    trunk: dict[str, Any] | None = None,
    name: str = "toy",
    seed: int = 0,
    **crop: Any,
) -> Bundle:
    built = {task: task_kinds.build(task, config) for task, config in tasks.items()}
    trunk = trunk or {"name": "tcdcn"}
    size = trunk.get("size", 60 if trunk.get("plan") == "tcdcn68" else 40)
    torch.manual_seed(seed)
    config = {
        "trunk": trunk,
        "heads": {task: kind.output_dim for task, kind in built.items()},
        "normalise": {"mean": 127.5, "std": 128.0},
    }
    spec = CropSpec(size=size, channels=trunk.get("channels", 1), **crop)
    return Bundle(build(config), built, spec, BoxSpec(), {"name": name})


@pytest.fixture
def make() -> Make:
    return make_bundle


@pytest.fixture
def five() -> Bundle:
    return make_bundle()


@pytest.fixture
def sixty_eight() -> Bundle:
    trunk = {"name": "tcdcn", "plan": "tcdcn68", "activation": "relu"}
    return make_bundle(SIXTY_EIGHT, trunk, name="toy68", seed=1, scale=1.5, shift_y=0.05)


class Told:
    """A detector that finds the given boxes in every image, or none in images of the given width."""

    id = "told"

    def __init__(self, *boxes: list[float], none_at_width: int = -1) -> None:
        self.boxes, self.none_at_width, self.calls = boxes, none_at_width, 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        if image.shape[1] == self.none_at_width:
            return []
        zeros = np.zeros((5, 2), np.float32)
        return [Detection(np.array(box, np.float32), 0.9 - 0.1 * i, zeros) for i, box in enumerate(self.boxes)]


@pytest.fixture
def told() -> type[Told]:
    return Told


@torch.no_grad()
def copy_convolution(layer: LocallyConnected2d, convolution: nn.Conv2d) -> None:
    """Put the filters of a convolution at every location of a layer; the two then compute the same."""
    weight = convolution.weight.permute(0, 2, 3, 1).reshape(1, layer.out_channels, -1)
    layer.weight.copy_(weight.expand_as(layer.weight))
    bias = torch.zeros(layer.out_channels) if convolution.bias is None else convolution.bias
    layer.bias.copy_(bias[:, None].expand_as(layer.bias))


def noise(width: int = 120, height: int = 90, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 RGB."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    return noise


@pytest.fixture
def saved(five: Bundle, tmp_path: Path) -> Path:
    return five.save(tmp_path / "saved-model")
