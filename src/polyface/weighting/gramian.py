"""Inner products of task gradients, and the base of all methods that are a function of them.

The T×T Gramian G = J Jᵀ of the task gradients is all that these methods need: each turns G into T weights, and then one
weighted backward does the update. Two levels say which gradients:

- `features`: ∂L_t/∂Z of the shared features Z [B, D], sample by sample: T passes through the heads only, a few percent
  of a step. It is an upper bound of what happens in the trunk (Sener & Koltun 2018, Section 3.3). Where no face is
  labelled for two tasks at once it is diagonal and sees no conflict; a warning says so once.
- `shared`: ∂L_t/∂θ of the shared parameters: T backward passes through the trunk. Exact. A trunk that is compiled gives
  its buffers away after one backward: set `torch._functorch.config.donated_buffer = False`, or use `features`.

Heads get the weighted gradient too, as in Nash-MTL's code; MGDA's and IMTL's authors update heads with their own loss's
unweighted one. Under Adam, which is blind to a constant factor, there is hardly a difference.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.weighting.base import Context, Step, Weighting, sum_over_ranks, unlearnt, world_size

Level = Literal["features", "shared"]
_SHARED = {"features": "the shared features", "shared": "the parameters that tasks share"}


def task_gradients(
    losses: Sequence[Tensor], context: Context, level: Level, tasks: Sequence[str] | None = None
) -> Tensor:
    """[T, B·D] (features: of this process's faces) or [T, P] (shared: of the global batch), detached. tasks: their
    names, for errors."""
    named = dict(zip(tasks or map(str, range(len(losses))), losses, strict=True))
    if constant := [name for name, loss in named.items() if not loss.requires_grad]:
        raise unlearnt(constant)
    if level == "features":
        if context.shared is None or not context.shared.requires_grad:
            raise PolyfaceError("gradients at the shared features need them, in the graph: pass Context(shared=…)")
        inputs: Sequence[Tensor] = [context.shared]
    else:
        inputs = [parameter for parameter in context.parameters if parameter.requires_grad]
        if not inputs:
            raise PolyfaceError(
                "the tasks share nothing that learns, so their gradients cannot be compared: let the trunk, or a part "
                "that several heads read, learn, or take a weighting without gradients (in a loop of your own: pass "
                "Context(parameters=…))"
            )
    # float16 gradients of a mean over a batch would fall below the smallest number there is
    scale = 2.0**12 if any(x.dtype == torch.float16 for x in inputs) else 1.0
    rows = []
    for name, loss in named.items():
        scaled = torch.full_like(loss, scale)  # of the gradient: a loss times it has no graph under no_grad
        found = torch.autograd.grad(loss, inputs, scaled, retain_graph=True, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise PolyfaceError(
                f"the loss of '{name}' does not depend on {_SHARED[level]}, so its gradient cannot be compared with "
                "others: let its head read them (where the whole network is compiled as one, compile the trunk alone)"
            )
        rows.append(torch.cat([_flat(g, x) for g, x in zip(found, inputs, strict=True)]))
    gradients = torch.stack(rows) / scale
    return sum_over_ranks(gradients) / world_size() if level == "shared" else gradients


def _flat(gradient: Tensor | None, of: Tensor) -> Tensor:
    """A gradient (None: 0) as a vector in at least single precision."""
    found = torch.zeros_like(of) if gradient is None else gradient
    return found.flatten().to(torch.promote_types(of.dtype, torch.float32))


def gramian(losses: Sequence[Tensor], context: Context, level: Level, tasks: Sequence[str] | None = None) -> Tensor:
    """Inner products [T, T] of the gradients of the global batch's losses, float64 on the CPU.

    Under DDP every process gets the same: per-sample gradients of the features are summed as T×T products over
    processes; gradients of parameters are averaged first, then multiplied.
    """
    gradients = task_gradients(losses, context, level, tasks)
    with torch.autocast(gradients.device.type, enabled=False):
        products = gradients @ gradients.T
    if level == "features":
        products = sum_over_ranks(products) / world_size() ** 2
    return ((products + products.T) / 2).cpu().double()


class GradientWeighting(Weighting):
    """Base of the methods that need the Gramian. level: "features" or "shared", see above."""

    def __init__(self, tasks: Sequence[str], level: Level = "features") -> None:
        super().__init__(tasks)
        if level not in ("features", "shared"):
            raise PolyfaceError(f"weighting level is '{level}'; expected features or shared")
        self.level: Level = level

    def products(self, step: Step) -> Tensor:
        """The Gramian [P, P] of the present tasks."""
        context, level = step.context, self.level
        if level == "features" and context.shared is not None and not context.shared.requires_grad:
            self.warn_once("the trunk is frozen: gradients are those of the parts that learn and that tasks share")
            level = "shared"
        found = gramian(step.losses, context, level, [self.tasks[task] for task in step.index])
        if level == "features" and len(found) > 1:
            if torch.count_nonzero(found.diagonal()) > 1 and not torch.count_nonzero(found - found.diag().diag()):
                self.warn_once(
                    "no face is labelled for two tasks at once, so gradients at the features cannot conflict: "
                    "use level='shared'"
                )
        return found


class SolvedWeighting(GradientWeighting):
    """Base of the methods whose weights are the solution of a small problem in the Gramian [P, P] of the present tasks.

    Absent tasks are not in the problem; the present ones' weights are its solution without them (so they renormalise).
    A task whose gradient is exactly 0 (a loss at its minimum) is left out in the same way, with weight 0: it has
    nothing to say, and methods that look for a common descent direction would otherwise stop at it. If no gradient is
    left, all weights are 1. If the solution is not finite, or the solver does not converge, the weights of this step
    are 1/P, with one warning.
    """

    @abstractmethod
    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        """Weights [P] for a Gramian [P, P] with a positive diagonal; index [P] into `tasks`."""

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        return self.solution(self.products(step), step.index), None

    def solution(self, products: Tensor, index: list[int]) -> Tensor:
        alive = torch.nonzero(products.diagonal() > 0).flatten()
        if not len(alive):
            return torch.ones(len(index), dtype=torch.float64)
        try:
            found = self.solve(products[alive][:, alive].numpy(), [index[i] for i in alive.tolist()])
        except (np.linalg.LinAlgError, RuntimeError, ValueError):
            found = np.full(len(alive), np.nan)
        if not np.isfinite(found).all():
            self.warn_once("no solution for this step's gradients; equal weights are used")
            found = np.full(len(alive), 1 / len(alive))
        weights = torch.zeros(len(index), dtype=torch.float64)
        weights[alive] = torch.as_tensor(found, dtype=torch.float64)
        return weights
