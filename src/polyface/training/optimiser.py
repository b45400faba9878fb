"""The optimiser of a stage, with a group of parameters for each rate and decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from polyface.training.specs import OptimisationSpec
from polyface.weighting import Weighting

_LARGE = 1e-3
"""An RMSprop whose epsilon is at least this is no longer blind to the size of gradients."""


def optimiser_of(
    o: OptimisationSpec, network: nn.Module, extras: nn.Module, weighting: Weighting, device: torch.device
) -> torch.optim.Optimizer:
    """Matrices decay, biases and norms do not; trunk and parts may have a rate of their own, and the weighting too."""
    named = [(name.startswith("heads."), p) for name, p in network.named_parameters() if p.requires_grad]
    apart = o.body_lr != 1
    groups: list[dict[str, Any]] = []
    for heads, lr in ((True, o.lr), (False, o.lr * o.body_lr)):
        part = [p for of_heads, p in named if (apart and of_heads) == heads]
        for matrix, decay in ((True, o.weight_decay), (False, 0.0)):
            if chosen := [p for p in part if (p.ndim > 1) == matrix]:
                groups.append({"params": chosen, "weight_decay": decay, "lr": lr})
    if own := [p for p in extras.parameters() if p.requires_grad]:
        groups.append({"params": own, "weight_decay": 0.0, "lr": o.lr})
    if weights := list(weighting.parameters()):
        groups.append({"params": weights, "weight_decay": 0.0, "lr": weighting.lr or o.lr})
    if o.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum)
    if o.optimiser == "rmsprop":
        return torch.optim.RMSprop(groups, lr=o.lr, momentum=o.momentum, alpha=0.9, eps=o.epsilon)
    fused = device.type in ("cpu", "cuda")  # one pass over the parameters instead of ten
    return torch.optim.AdamW(groups, lr=o.lr, fused=fused)


def is_adaptive(o: OptimisationSpec) -> bool:
    """Whether it divides a gradient by the gradient's own size, so that a constant factor of it makes no difference."""
    return o.optimiser == "adamw" or (o.optimiser == "rmsprop" and o.epsilon < _LARGE)
