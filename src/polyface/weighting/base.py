"""How the losses of several tasks become the one scalar that is back-propagated.

Every method is a function from losses (and, for some, gradients or features) to one number a task, its weight:

    loss = Σ w_t · L_t  with w detached,   own_loss = what trains the weights themselves, where they are learned.

One backward of loss + own_loss trains both, so mixed precision, accumulation, clipping, `torch.compile` and DDP work as
without a weighting. A joint objective such as Σ μ_t(ψ)·L_t has the same gradient in this form:
own_loss = Σ μ_t(ψ)·L_t.detach().
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polyface.errors import PolyfaceError, check_names, nearest

_NO_TENSORS: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a weighting may look at beside the losses; each method says which of these it needs.

    shared: features [B, D] of this process's faces that all heads read, in the graph of the losses; or a map
    [B, D, h, w], whose average is what a weighting learns from.
    parameters: the parameters that all tasks share (those of the trunk).
    counts: task → labelled faces in the global batch. 0: the task is absent. A task not named is present; a stopped
    task is absent.
    """

    shared: Tensor | None = None
    parameters: Sequence[Tensor] = _NO_TENSORS
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Combined:
    """loss: a scalar whose gradient trains the network. weights: task → the number its loss was multiplied with (0 for
    an absent task). own_loss: what trains the weighting, where it learns. `total` is what to call backward on."""

    loss: Tensor
    weights: dict[str, float]
    own_loss: Tensor | None = None

    @property
    def total(self) -> Tensor:
        return self.loss if self.own_loss is None else self.loss + self.own_loss


@dataclass(frozen=True)
class Step:
    """The present tasks of one call: index [P] into `Weighting.tasks`, their losses (this process's, with graph), and
    values [P], the losses of the global batch in float64 on the CPU."""

    index: list[int]
    losses: list[Tensor]
    values: Tensor
    context: Context


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all processes of a detached tensor; the tensor itself where there is one process."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def scalars(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses as scalars; one of shape [1] is one.

    Raises:
        PolyfaceError: a loss that is no tensor of one real number, by its task, or losses on several devices.
    """
    for name, loss in losses.items():
        if not isinstance(loss, Tensor):
            raise PolyfaceError(f"the loss of '{name}' is a {type(loss).__name__}; expected a tensor of one number")
        if loss.numel() != 1:
            raise PolyfaceError(
                f"the loss of '{name}' has shape {list(loss.shape)}; expected one number: take the mean"
            )
        if not loss.is_floating_point():
            kind = str(loss.dtype).removeprefix("torch.")
            raise PolyfaceError(f"the loss of '{name}' is of type {kind}; expected a real number, such as float32")
    places = {str(loss.device): name for name, loss in losses.items()}
    if len(places) > 1:
        told = " and ".join(f"{place} ('{name}')" for place, name in places.items())
        raise PolyfaceError(f"losses are on {told}: bring them to one device")
    with torch.enable_grad():  # a view that is made without has no gradient, and weights may be looked at under no_grad
        return {name: loss.reshape(()) for name, loss in losses.items()}


def mean_over_ranks(losses: Tensor) -> Tensor:
    """Losses of the global batch in float64 on the CPU, from what every process passes (see `Weighting`)."""
    return (sum_over_ranks(losses.detach()) / world_size()).cpu().double()


_NOTHING = "nothing that learns has a part in"


class _Constant(torch.autograd.Function):
    """A loss that nothing learns from, which says so when it is back-propagated."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, anchor: Tensor, tasks: list[str]) -> Tensor:
        ctx.tasks = tasks
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> NoReturn:
        raise unlearnt(ctx.tasks)


def unlearnt(tasks: Sequence[str]) -> PolyfaceError:
    """What is said where no loss of a step has a gradient."""
    return PolyfaceError(
        f"{_NOTHING} the loss of {', '.join(tasks)}, so there is no gradient: let a part of the network learn (in a "
        "loop of your own: is the loss computed under no_grad, or from what was detached?)"
    )


class Weighting(nn.Module):
    """Base of all weightings, called with (tasks, **options).

    Losses: every process passes the loss whose *mean over processes* is that of the global batch, as DDP averages
    gradients (local sum × processes / global count); `Context.counts` are global. A weighting with parameters belongs
    into the module that DDP wraps, and its parameters into the optimiser.

    Absent tasks (count 0, or no loss given) get weight 0, no gradient, and leave all state of theirs alone; unless a
    method says otherwise, the weights of the present tasks keep the value they would have had. In training a task is
    absent too where nothing that learns has a part in its loss (its head and all that it reads are frozen).

    A loss that is not finite: `loss` is not finite either, so that a gradient scaler or the loop can skip the step; the
    weights are those of a plain sum, there is no own_loss, and no state changes.

    State beside parameters is plain numbers in `state` (float64 whatever the precision, on no device, in the
    checkpoint). It changes in training mode only, as batch-norm's does: `eval()` and combine to look without touching.
    """

    needs_features: ClassVar[bool] = False
    """Whether the constructor takes `features`, the width D of the shared features."""
    second_forward: ClassVar[bool] = False
    """Whether `after_step` must be called, with the losses of the same batch after the optimiser's step."""
    validation_faces: int = 0
    """Validation faces whose losses `on_validation_batch` wants at every step; 0: none."""
    lr: float | None = None
    """Learning rate of the weighting's own parameters; None: the network's."""
    steps_needed: int = 0
    """Steps before the weights can first change, where that hangs on steps."""
    epochs_needed: int = 0
    """The same in epochs."""
    validations_needed: int = 0
    """The same in passes over the validation faces, without the one before the first step."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        if not tasks or len(set(tasks)) < len(tasks):
            raise PolyfaceError(f"a weighting needs task names, each once, not {list(tasks)}")
        self.tasks = list(tasks)
        self.state: dict[str, Any] = {"calls": 0}
        self._warned: set[str] = set()

    @property
    def follows_validation(self) -> bool:
        """Whether it looks at losses of validation faces, so that without any its weights would never move."""
        return bool(self.validation_faces) or self.follows_passes

    @property
    def follows_passes(self) -> bool:
        """Whether it acts on whole passes over the validation faces (`on_validation`)."""
        return type(self).on_validation is not Weighting.on_validation

    @property
    def plain(self) -> bool:
        """Whether it is a plain sum, up to a factor that all losses have."""
        return False

    def in_force(self) -> dict[str, float] | None:
        """The weights that the next step will have, where they change at certain moments alone; None: not known."""
        return None

    @abstractmethod
    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """Weights [P] of the present tasks, and the own loss where weights are learned."""

    def combine(self, losses: Mapping[str, Tensor], context: Context | None = None) -> Combined:
        """Scalar losses by task → what to back-propagate.

        Raises:
            PolyfaceError: a loss of no task, or that is no real number; losses without a gradient, where a method needs
                one, and else when `backward` is called.
        """
        context = context or Context()
        if unknown := [name for name in losses if name not in self.tasks]:
            raise PolyfaceError(f"a loss is named '{unknown[0]}'; {nearest(unknown[0], self.tasks)}")
        if not losses:
            raise PolyfaceError(f"no loss given; expected some of {', '.join(self.tasks)}")
        losses, counts = scalars(losses), context.counts or {}
        names = [name for name in self.tasks if name in losses]
        stacked = torch.stack([losses[name] for name in names])
        values = mean_over_ranks(stacked)
        finite = values.isfinite().tolist()
        present = [i for i, name in enumerate(names) if counts.get(name, 1) > 0]
        constant = [names[i] for i in present if torch.is_grad_enabled() and not losses[names[i]].requires_grad]
        in_vain = 0 < len(constant) == len(present)
        if constant and self.training and not in_vain:
            present = [i for i in present if names[i] not in constant]
            self.warn_once(f"{_NOTHING} the loss of {', '.join(constant)}: counted as absent")
        weights = torch.zeros(len(names), dtype=torch.float64)
        if not all(finite[i] for i in present):
            # NaN on every process, and through every head, or the processes would part company under DDP
            loss = stacked.sum() * math.nan
            return Combined(loss, dict.fromkeys(self.tasks, 1.0), self._all_own(None, loss))
        own: Tensor | None = None
        if present:
            index = [self.tasks.index(names[i]) for i in present]
            found, own = self.weigh(Step(index, [losses[names[i]] for i in present], values[present], context))
            weights[present] = found.detach().cpu().double()
            if self.training:
                self.state["calls"] += 1
        if not all(finite):  # an absent task's mean of nothing: 0 × NaN would be NaN
            kept = [losses[name] if good else stacked.new_zeros(()) for name, good in zip(names, finite, strict=True)]
            stacked = torch.stack(kept)
        # All absent tasks are in the sum, times 0, so that under DDP every head takes part.
        loss = (stacked * weights.to(stacked)).sum()
        if torch.is_grad_enabled() and not loss.requires_grad and not in_vain:  # all absent, and none finite
            loss = loss + loss.new_zeros((), requires_grad=True)
        if in_vain and own is None:
            loss = _Constant.apply(loss, loss.new_zeros((), requires_grad=True), constant)
        named = dict.fromkeys(self.tasks, 0.0) | dict(zip(names, weights.tolist(), strict=True))
        return Combined(loss, named, self._all_own(own, loss))

    def _all_own(self, own: Tensor | None, loss: Tensor) -> Tensor | None:
        """The own loss like `loss`, with all own parameters in its graph, if only times 0: DDP waits for each."""
        learned = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        if not learned:
            return own
        nothing = torch.stack(learned).sum() * 0
        return (nothing if own is None else own + nothing).to(loss)

    def after_step(self, losses: Mapping[str, Tensor], context: Context | None = None) -> None:
        """Losses of the same batch after the optimiser's step (a second forward), if `second_forward` asks for it."""

    def on_validation_batch(self, losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Losses of a few validation faces (the same on all processes), at every step, if `validation_faces` asks."""

    def on_validation(self, losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Mean validation losses by task, after every pass over the validation faces."""

    def on_epoch_end(self, losses: Mapping[str, float]) -> None:
        """Mean training losses by task, after every epoch; a task without labelled faces is not named."""

    def first_values(self, step: Step) -> Tensor:
        """Losses [P] of the present tasks at the first step at which each was above 0, kept in `state["first"]`."""
        kept = self.state["first"]
        first = torch.tensor(kept, dtype=torch.float64)[step.index]
        first = torch.where(first > 0, first, step.values)
        if self.training:
            for task, value in zip(step.index, first.tolist(), strict=True):
                kept[task] = value
        return first

    def warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"weighting {type(self).__name__}: {message}", stacklevel=2)

    def get_extra_state(self) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.state = copy.deepcopy(state)

    def task_values(self, given: Mapping[str, float] | None, what: str, default: float) -> list[float]:
        """An option {task: number} as a list over all tasks; an unknown task or a number < 0 is an error."""
        check_names(given or (), self.tasks, what)
        for name, value in (given or {}).items():
            if not (math.isfinite(value) and value >= 0):
                raise PolyfaceError(f"{what}.{name} is {value}; expected a number ≥ 0")
        return [float((given or {}).get(name, default)) for name in self.tasks]


class Fixed(Weighting):
    """Constant weights, L = Σ λ_t L_t (Zhang et al. 2014, Eq. 3; Yin & Liu 2018, static m-CNN).

    weights: task → λ; a task not named has 1. Absent tasks: the others keep their λ.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.weights = torch.tensor(self.task_values(weights, "weights", 1.0), dtype=torch.float64)

    @property
    def plain(self) -> bool:
        return bool((self.weights == self.weights[0]).all())

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        return self.weights[step.index], None


class Uniform(Fixed):
    """A plain sum, L = Σ L_t ("UW" of Mao et al. 2020, Table 2)."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
