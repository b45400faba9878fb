"""A small network of plain layers whose maps can be worked out, and one of it that tells glasses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyface import networks
from polyface import tasks as kinds
from polyface.data.crops import CropSpec, cut, sample, transform
from polyface.data.synthetic import render
from polyface.models.bundle import Bundle
from polyface.networks import FaceNetwork
from polyface.networks.shapes import Shape

SIDE = 32
GENDER = {"gender": kinds.build("gender", {"kind": "classification", "column": "gender"})}
RECTIFIERS: dict[str, Any] = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "function": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "functional": F.relu,
    "elu": nn.ELU(),
    "silu": nn.SiLU(),
    "gelu": F.gelu,
}


class Small(nn.Module):
    """Convolutions with a rectifier each, the first two of stride 2; the maps "one" …, and "shared", the last one's
    average."""

    any_size = True

    def __init__(
        self, size: int = SIDE, widths: tuple[int, ...] = (8, 16), kernel: int = 3, rectifier: str = "module"
    ) -> None:
        super().__init__()
        self.size, self.in_channels = size, 3
        self.act = RECTIFIERS[rectifier]
        ends = (3, *widths)
        self.layers = nn.ModuleList(
            nn.Conv2d(ends[i], width, kernel, 2 if kernel > 1 and i < 2 else 1, kernel // 2)
            for i, width in enumerate(widths)
        )
        names = ("one", "two", "three")
        self.maps = {names[i]: Shape(width, 2 ** min(i + 1, 2)) for i, width in enumerate(widths)}
        self.maps["shared"] = Shape(widths[-1])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        for name, layer in zip(self.maps, self.layers, strict=False):
            x = maps[name] = self.act(layer(x))
        return maps | {"shared": x.mean((2, 3))}


def network(heads: dict[str, int], seed: int = 0, **options: Any) -> FaceNetwork:
    torch.manual_seed(seed)
    return networks.build({"trunk": {"name": "small", **options}, "heads": heads}).eval()


def faces(glasses: str, seed: int = 0, count: int = 200) -> tuple[Tensor, np.ndarray]:
    """Frontal faces with glasses or without, the same people in the same light: pictures [N, 3, 32, 32] of the crop
    around the points, and the points [N, 68, 2] in them."""
    fixed = {"yaw": 0.0, "roll": 0.0, "illumination": "front", "glasses": glasses}
    drawn, spec = render(count, 64, seed, modality="photo", fixed=fixed), CropSpec(size=SIDE)
    points = drawn.labels["landmarks_68"]
    boxes = np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], 1)
    cuts = torch.from_numpy(np.stack([cut(image, box, spec) for image, box in zip(drawn.images, boxes, strict=True)]))
    images = sample(cuts, torch.from_numpy(spec.cut_to_input()).repeat(count, 1, 1), SIDE)
    return images, transform(torch.from_numpy(spec.crops(boxes)), torch.from_numpy(points)).numpy()


def trained(steps: int = 200, seed: int = 0) -> Bundle:
    """A bundle of the small network that tells glasses."""
    made = network({"glasses": 2}, seed, widths=(16, 32, 32))
    images, classes = torch.cat([faces("no")[0], faces("yes")[0]]), torch.arange(2).repeat_interleave(200)
    optimiser, generator = torch.optim.Adam(made.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), generator=generator)
        loss = F.cross_entropy(made(images[rows]).outputs["glasses"], classes[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    task = kinds.build("glasses", {"kind": "classification", "column": "glasses"})
    return Bundle(made, {"glasses": task}, CropSpec(size=SIDE))
