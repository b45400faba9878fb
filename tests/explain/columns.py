"""A network that reads its vector x off the picture: the mean of each of eight columns of pixels. So x is known, and
which of its dimensions each head reads can be set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyface import tasks as task_kinds
from polyface.data.boxes import BoxSpec
from polyface.data.crops import CropSpec
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.models.bundle import Bundle
from polyface.networks import build
from polyface.networks.shapes import Shape

PEOPLE = [f"p{number}" for number in range(8)]
POSES = ("left", "frontal", "right")
IDENTITY, POSE = range(4), range(4, 8)
"""Who it is stands in the first four columns, how the head is turned in the others."""


class Columns(nn.Module):
    """x [B, 8] of pictures [B, 1, 8, 8]."""

    size, in_channels = 8, 1

    def __init__(self) -> None:
        super().__init__()
        self.maps = {"shared": Shape(8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"shared": images.mean((1, 2))}


def faces(file: Path, noise: float = 0.0, **more: Any) -> FaceTable:
    """Six faces of each of eight people, two in each pose. Of identity the columns hold a code of three bits and one of
    all; of pose one bright column, by which faces of one pose are alike, though less than those of one person."""
    generator, records = np.random.default_rng(0), []
    for person, name in enumerate(PEOPLE):
        for face in range(6):
            pose = face % 3
            code = np.array([*(100 * (1 if person >> bit & 1 else -1) for bit in range(3)), 100])
            turned = np.array([60 * (pose == place) - 20 for place in range(4)])
            columns = 127.5 + np.concatenate([code, turned]) + noise * generator.standard_normal(8)
            picture = np.broadcast_to(np.repeat(columns, 8)[None, :, None], (64, 64, 3)).clip(0, 255)
            labels = {"identity": name, "pose": POSES[pose], "split": "test"} | more
            records.append(Record(picture.round().astype(np.uint8), name, f"{name}/{face}", labels))
    write_table(records, file)
    return FaceTable.open(file)


def bundle(reads: Mapping[str, range] | None = None) -> Bundle:
    """Heads that each read some dimensions of x alone, with random weights there."""
    reads = reads or {"identity": IDENTITY, "pose": POSE}
    settings = {
        "identity": {"kind": "identity", "people": PEOPLE},
        "pose": {"kind": "classification", "column": "pose", "vocabulary": list(POSES)},
    }
    tasks = {name: task_kinds.build(name, settings[name]) for name in reads}
    torch.manual_seed(0)
    heads = {name: task.output_dim for name, task in tasks.items()}
    made = build({"trunk": {"name": "columns"}, "heads": heads, "normalise": {"mean": 127.5, "std": 128.0}})
    for name, dims in reads.items():
        weight = made.heads[name].get_parameter("weight").data
        weight[:, [dim for dim in range(8) if dim not in dims]] = 0
    crop = CropSpec(size=8, channels=1, scale=1.0, oversample=2.0)
    return Bundle(made, tasks, crop, BoxSpec(source="image"), {"name": "columns"})
