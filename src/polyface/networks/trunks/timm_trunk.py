"""Any `timm` model as a trunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, nearest


class TimmTrunk(nn.Module):
    """A `timm` feature extractor, then one fully connected layer to the shared vector x.

    model: a timm name; options go to `timm.create_model`. size: input side in pixels. shared: length of x.
    pool: "flatten" keeps where things are (landmarks want that), "avg" averages the last map. Maps are named
    "stage1" … as timm orders them. `pretrained` is never asked for: nothing is downloaded.
    """

    def __init__(
        self,
        model: str,
        size: int = 112,
        channels: int = 3,
        shared: int = 256,
        pool: str = "flatten",
        dropout: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        if model not in timm.list_models():
            raise PolyfaceError(f"trunk timm: unknown model '{model}'; {nearest(model, timm.list_models())}")
        if pool not in ("flatten", "avg"):
            raise PolyfaceError(f"trunk timm: pool is '{pool}', expected flatten or avg")
        self.body = timm.create_model(model, features_only=True, pretrained=False, in_chans=channels, **(options or {}))
        self.size, self.in_channels, self.shared_dim, self.pool = size, channels, shared, pool
        self.body.eval()
        with torch.no_grad():
            last = self.body(torch.zeros(1, channels, size, size))[-1]
        self.body.train()
        self.dropout = nn.Dropout(dropout)
        width = last.shape[1] * (last.shape[2] * last.shape[3] if pool == "flatten" else 1)
        self.fc = nn.Sequential(nn.Linear(width, shared), nn.BatchNorm1d(shared), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, C, size, size] → {"stage1" …: maps, "shared": x [B, shared]}."""
        stages = self.body(images.contiguous(memory_format=torch.channels_last))
        maps = {f"stage{i + 1}": stage for i, stage in enumerate(stages)}
        last = stages[-1]
        flat = last.flatten(1) if self.pool == "flatten" else last.mean((2, 3))
        maps["shared"] = self.fc(self.dropout(flat))
        return maps
