"""A small network of three heads with any weighting, and a training loop that does all that a weighting may ask for.

The loop is what a user would write: losses are means over the labelled faces of the global batch, every head is in the
graph at every step, counts are global. It knows no method by name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polyface.weighting import WEIGHTINGS, Context, Weighting, build

TASKS = ["landmarks", "pose", "smile"]
FEATURES = 5
PIXELS = 4

Variant = tuple[str, dict[str, Any]]


def options_of(name: str) -> set[str]:
    return set(inspect.signature(WEIGHTINGS.get(name)).parameters) - {"tasks", "features"}


def label(variant: Variant) -> str:
    name, options = variant
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


NAMES = sorted(WEIGHTINGS.names())
AT_GRADIENTS = [name for name in NAMES if "level" in options_of(name)]
# Every method as it comes, but with moments that arrive within a few steps; at both levels of gradients; and options
# that lead another way through a method.
SOON: dict[str, dict[str, Any]] = {"aw": {"window": 2}}
VARIANTS: list[Variant] = [(name, SOON.get(name, {})) for name in NAMES]
VARIANTS += [(name, {"level": "shared"}) for name in AT_GRADIENTS]
VARIANTS += [("ming", {"through_weights": True}), ("yin-liu", {"detach": True}), ("stch", {"relative": True})]


@dataclass
class Batch:
    """faces [B, 4], targets and labelled by task: [B, 2] and [B] bool."""

    faces: Tensor
    targets: dict[str, Tensor]
    labelled: dict[str, Tensor]

    def part(self, rows: slice) -> Batch:
        return Batch(
            self.faces[rows],
            {task: values[rows] for task, values in self.targets.items()},
            {task: mask[rows] for task, mask in self.labelled.items()},
        )

    def without(self, *tasks: str) -> Batch:
        """The same faces, none of them labelled for these tasks."""
        masks = {t: torch.zeros_like(mask) if t in tasks else mask for t, mask in self.labelled.items()}
        return Batch(self.faces, self.targets, masks)


def batch(seed: int, faces: int = 8, tasks: Sequence[str] = TASKS, dtype: torch.dtype = torch.float64) -> Batch:
    """Every face is labelled for every task. Losses are of different size, or two could be weighted alike by chance."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(faces, PIXELS, generator=generator, dtype=dtype)
    targets = {
        task: (i + 1) * torch.randn(faces, 2, generator=generator, dtype=dtype) + i for i, task in enumerate(tasks)
    }
    return Batch(x, targets, {task: torch.ones(faces, dtype=torch.bool) for task in tasks})


def patchy(seed: int, faces: int = 8) -> Batch:
    """A batch as unions of data sets give it: no face has every label, and every fourth batch lacks a task."""
    whole = batch(seed, faces)
    rows = torch.arange(faces)
    whole.labelled = {task: (rows + seed) % 3 != i for i, task in enumerate(TASKS)}
    return whole.without(TASKS[seed // 4 % 3]) if seed % 4 == 3 else whole


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def over_ranks(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


class Toy(nn.Module):
    """Network and weighting in one module, as DistributedDataParallel wants them; forward gives the total."""

    def __init__(self, name: str, tasks: Sequence[str] = TASKS, seed: int = 0, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(PIXELS, 6), nn.Tanh(), nn.Linear(6, FEATURES), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(FEATURES, 2) for task in tasks})
        self.weighting: Weighting = build(name, list(tasks), features=FEATURES, **options)
        self.weights: dict[str, float] = {}
        self.double()

    def losses(self, given: Batch) -> tuple[dict[str, Tensor], Context]:
        shared = self.trunk(given.faces)
        tasks = list(self.heads)
        counts = over_ranks(torch.stack([given.labelled[task].sum() for task in tasks])).tolist()
        losses = {}
        for task, count in zip(tasks, counts, strict=True):
            error = (self.heads[task](shared) - given.targets[task]).square().mean(1)
            losses[task] = (error * given.labelled[task]).sum() * world() / max(count, 1)
        return losses, Context(shared, list(self.trunk.parameters()), dict(zip(tasks, counts, strict=True)))

    def forward(self, given: Batch) -> Tensor:
        combined = self.weighting.combine(*self.losses(given))
        self.weights = combined.weights
        return combined.total

    def network(self) -> dict[str, Tensor]:
        """Copies of the network's parameters, without the weighting's."""
        return {n: p.detach().clone() for n, p in self.named_parameters() if not n.startswith("weighting.")}

    def own(self) -> dict[str, Tensor]:
        """Copies of the weighting's parameters."""
        return {n: p.detach().clone() for n, p in self.weighting.named_parameters()}

    def gradients(self) -> dict[str, Tensor]:
        return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in self.named_parameters()}


def optimiser(toy: Toy, kind: type[torch.optim.Optimizer] = torch.optim.SGD, lr: float = 0.05) -> torch.optim.Optimizer:
    """One optimiser with a group of its own for the weighting's parameters, at the rate it asks for."""
    groups: list[dict[str, Any]] = [{"params": [*toy.trunk.parameters(), *toy.heads.parameters()], "lr": lr}]
    if own := list(toy.weighting.parameters()):
        groups.append({"params": own, "lr": lr if toy.weighting.lr is None else toy.weighting.lr})
    return kind(groups, lr=lr)


def floats(losses: Mapping[str, Tensor], counts: Mapping[str, int] | None) -> dict[str, float]:
    """Losses of the global batch, of the tasks that it has labels for."""
    assert counts is not None
    sums = over_ranks(torch.stack([loss.detach() for loss in losses.values()])) / world()
    return {task: value for task, value in zip(losses, sums.tolist(), strict=True) if counts[task]}


class Training:
    """Steps, epochs of `epoch` steps, and every hook. module: what is called for the toy's forward pass (a wrapper).

    Where a gradient is not finite, the step is skipped, as a gradient scaler skips it.
    """

    def __init__(self, toy: Toy, optimiser: torch.optim.Optimizer, module: nn.Module | None = None, epoch: int = 3):
        self.toy, self.optimiser, self.epoch = toy, optimiser, epoch
        self.module = toy if module is None else module
        self.position = 0
        self.sums: dict[str, list[float]] = {}
        self.history: list[dict[str, float]] = []
        self.finite: list[bool] = []

    def step(self, given: Batch, validation: Batch) -> None:
        toy = self.toy
        self.optimiser.zero_grad()
        total = self.module(given)
        total.backward()
        self.finite.append(bool(total.isfinite()))
        self.history.append(dict(toy.weights))
        if not all(gradient.isfinite().all() for gradient in toy.gradients().values()):
            return
        self.optimiser.step()
        with torch.no_grad():
            after, context = toy.losses(given)
            for task, loss in floats(after, context.counts).items():
                self.sums.setdefault(task, []).append(loss)
            if toy.weighting.second_forward:
                toy.weighting.after_step(after, context)
            losses, context = toy.losses(validation)
            if toy.weighting.validation_faces:
                toy.weighting.on_validation_batch(floats(losses, context.counts), context.counts or {})
            self.position += 1
            if self.position % self.epoch == 0:
                toy.weighting.on_epoch_end({task: sum(v) / len(v) for task, v in self.sums.items()})
                toy.weighting.on_validation(floats(losses, context.counts), context.counts or {})
                self.sums = {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors and plain numbers."""
        return {
            "toy": self.toy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "position": self.position,
            "sums": self.sums,
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.toy.load_state_dict(state["toy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.position, self.sums, self.history = state["position"], state["sums"], state["history"]


def stream(start: int, stop: int) -> Iterator[tuple[Batch, Batch]]:
    """Training and validation batches number start … stop − 1."""
    for step in range(start, stop):
        yield patchy(step), patchy(1000 + step // 3 * 4)


def hard() -> Iterator[tuple[Batch, Batch]]:
    """What a process must get right alone: labels of a task in its own half only, a task or all but the first task
    absent, no label at all, a loss that is not a number, and life after that."""
    given = [batch(i) for i in range(7)]
    given[1].labelled["smile"][2:] = False
    given[2] = given[2].without("pose", "smile")
    given[3] = given[3].without(*TASKS)
    given[4] = given[4].without("pose")
    given[4].targets["landmarks"][6] = torch.nan
    given[5] = given[5].without("landmarks")
    for i, one in enumerate(given):
        yield one, patchy(1000 + i)


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts and lists, with where it is."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from leaves(value, f"{path}[{i}]")
    else:
        yield path, state


def as_numbers(value: Any) -> Tensor:
    return torch.as_tensor(math.nan if value is None else value, dtype=torch.float64)


def differences(a: Any, b: Any) -> dict[str, float]:
    """Where two states differ, and by how much (inf: not comparable). A NaN is equal to a NaN."""
    found: dict[str, float] = {}
    first, second = dict(leaves(a)), dict(leaves(b))
    for path in first.keys() | second.keys():
        x, y = (as_numbers(s.get(path, math.inf)) for s in (first, second))
        if x.shape != y.shape:
            found[path] = torch.inf
        elif not torch.allclose(x, y, rtol=0, atol=0, equal_nan=True):
            found[path] = float((x - y).abs().nan_to_num(torch.inf).max())
    return found
