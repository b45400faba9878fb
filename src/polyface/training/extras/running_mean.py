"""A running mean of the weights (EMA), which is then what is validated and saved: the key `optimisation.ema`."""

from __future__ import annotations

import copy

import torch

from polyface.networks import FaceNetwork
from polyface.training.extras.base import Extra, Setup


class RunningMean(Extra):
    """A running mean of the network's weights, which is what is validated and saved.

    mean ← decay · mean + (1 − decay) · weights, after every step; buffers are copied.

    In the first steps the decay is at most (1 + step) / (10 + step), or a short run would keep its random start.
    """

    def __init__(self, decay: float, setup: Setup) -> None:
        super().__init__(decay, setup)
        self.decay = decay
        self.network = copy.deepcopy(setup.network).requires_grad_(False).eval()

    @torch.no_grad()
    def after_step(self, network: FaceNetwork, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, current in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(current)

    def evaluated(self, network: FaceNetwork) -> FaceNetwork:
        return self.network
