"""How the losses of several tasks become the one scalar that is back-propagated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """What a weighting may look at beside the losses: shared features [B, D], labelled faces of each task in the
    global batch (0: the task is absent), the number of the step, and the network as a module."""

    shared: Tensor | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    network: nn.Module | None = None

    def present(self, task: str) -> bool:
        return self.counts.get(task, 1) > 0


@dataclass(frozen=True)
class Combined:
    """loss: what trains the network. weights: task → the number its loss was multiplied with. own_loss: what trains
    the weighting alone, where it learns (its inputs are detached; so are the weights inside `loss` then)."""

    loss: Tensor
    weights: dict[str, float]
    own_loss: Tensor | None = None


class Weighting(nn.Module):
    """Base of all weightings. Its parameters, buffers and extra state are in the checkpoint.

    An absent task (no labelled face in the global batch) arrives with loss 0 and must get no weight of its own making.
    """

    def __init__(self, tasks: list[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    @abstractmethod
    def combine(self, losses: Mapping[str, Tensor], context: Context) -> Combined:
        """Scalar losses by task → one scalar. Must not change its own state."""

    def on_validation(self, losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Mean validation losses by task, after every pass over the validation faces."""

    def on_epoch_end(self, losses: Mapping[str, float]) -> None:
        """Mean training losses by task, after every epoch."""


class Fixed(Weighting):
    """Constant weights λ (Zhang et al. 2014, Eq. 3; equal for all tasks where none is given: a plain sum)."""

    def __init__(self, tasks: list[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.weights = {task: float((weights or {}).get(task, 1.0)) for task in tasks}

    def combine(self, losses: Mapping[str, Tensor], context: Context) -> Combined:
        total = torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
        return Combined(total, {task: self.weights[task] for task in losses})


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {"fixed": Fixed}
"""name → class, called with (tasks, **options)."""
