"""Weights that a softmax over the shared features predicts: Yin & Liu 2018, Ming et al. 2021, and the "naive" scheme.

    z = Ψ x + b [B, G],   p = softmax(z),   w_t = φ · mean over the global batch of p_t

for each group of G tasks with its budget φ; tasks in no group have weight 1. The schemes differ in what trains Ψ.

Absent tasks: the present ones share, by a softmax among themselves, the mass that the full softmax gives them, so that
they keep their value and the absent task's logit gets no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyface.errors import PolyfaceError, check_names, nearest
from polyface.weighting.base import Step, Weighting, sum_over_ranks, world_size

POOLS = ("average", "flatten")


class FeatureWeights(Weighting):
    """Base of the weightings with one linear layer a group on the shared features.

    features: their width D, or the shape [D, h, w] of a map. pool: what is read of a map, its "average" or, as in Ming
    et al. 2021, all its numbers: "flatten" (theirs has 1792 × 3 × 3 = 16,128). groups: [{"tasks": [...], "budget": φ}],
    disjoint. normalise_features: divide x by its length first. logit_norm: give every face's logits this length, which
    keeps the softmax away from one-hot (length 1 and two tasks: weights between 0.196 and 0.804); None: leave them. Ψ
    and b start at 0, so that all weights of a group are equal; with logit_norm Ψ is drawn from a normal of 0.1, cut at
    two deviations (as the code of Ming et al. does), for the direction of a zero vector is not defined. lr: learning
    rate of Ψ; None: the network's.
    """

    needs_features: ClassVar[bool] = True

    def __init__(
        self,
        tasks: Sequence[str],
        features: int | Sequence[int],
        groups: Sequence[Mapping[str, Any]],
        *,
        normalise_features: bool = False,
        logit_norm: float | None = None,
        pool: str = "average",
        lr: float | None = None,
    ) -> None:
        super().__init__(tasks)
        if pool not in POOLS:
            raise PolyfaceError(f"weighting pool is '{pool}'; {nearest(pool, POOLS)}")
        shape = [features] if isinstance(features, int) else list(features)
        self.width, self.pool = (math.prod(shape) if pool == "flatten" else shape[0]), pool
        self.groups = [_group(group, self.tasks) for group in groups]
        named = [task for names, _ in self.groups for task in names]
        if len(set(named)) < len(named):
            raise PolyfaceError("weighting groups: a task is in two groups")
        self.logits = nn.ModuleList(nn.Linear(self.width, len(names)) for names, _ in self.groups)
        for layer in self.logits:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.bias)
            if logit_norm is None:
                nn.init.zeros_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
        self.normalise_features, self.logit_norm, self.lr = normalise_features, logit_norm, lr

    def shares(self, step: Step, shared: Tensor, group: int) -> tuple[list[int], Tensor]:
        """Positions in `step` of a group's present tasks, and their mean shares p [P] with gradient.

        The value is the mean over the global batch; the gradient is this process's part times the number of processes,
        whose mean over processes (what DDP computes) is the gradient of that mean.
        """
        names, _ = self.groups[group]
        where = [i for i, task in enumerate(step.index) if self.tasks[task] in names]
        columns = [names.index(self.tasks[step.index[i]]) for i in where]
        layer = self.logits[group]
        assert isinstance(layer, nn.Linear)
        with torch.autocast(shared.device.type, enabled=False):
            x = self.read(shared).to(layer.weight.dtype)
            z = layer(F.normalize(x, dim=1) if self.normalise_features else x)
            everyone = len(columns) == len(names)
            if not everyone:  # the length below must not lead to absent tasks
                present = torch.tensor([i in columns for i in range(len(names))], device=z.device)
                z = torch.where(present, z, z.detach())
            if self.logit_norm is not None:
                z = self.logit_norm * F.normalize(z, dim=1)
            shares = z.softmax(1)
            if everyone:
                local = shares.sum(0)[columns]
            else:
                mass = shares[:, columns].sum(1, keepdim=True).detach()
                local = (mass * z[:, columns].softmax(1)).sum(0)
        total = sum_over_ranks(torch.cat([local.detach(), local.new_tensor([len(x)])]))
        mean, faces = total[:-1] / total[-1], total[-1]
        own = world_size() * local / faces
        return where, mean + (own - own.detach())

    def read(self, shared: Tensor) -> Tensor:
        """What Ψ reads of the shared features, [B, width]."""
        flat = shared.flatten(1) if self.pool == "flatten" or shared.ndim == 2 else shared.flatten(2).mean(2)
        if flat.shape[1] != self.width:
            hint = "; with pool: flatten pictures have one size" if self.pool == "flatten" else ""
            raise PolyfaceError(f"weighting: made for {self.width} shared features, found {flat.shape[1]}{hint}")
        return flat

    def weights_and_shares(self, step: Step, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [P] of the present tasks with gradient, and a mask [P] of those that are in a group."""
        weights = torch.ones(
            len(step.index), dtype=torch.promote_types(shared.dtype, torch.float32), device=shared.device
        )
        learned = torch.zeros(len(step.index), dtype=torch.bool, device=shared.device)
        for group, (_, budget) in enumerate(self.groups):
            where, shares = self.shares(step, shared, group)
            if where:
                place = torch.tensor(where, device=shared.device)
                weights = weights.index_put((place,), (budget * shares).to(weights))
                learned[place] = True
        return weights, learned

    @staticmethod
    def shared(step: Step) -> Tensor:
        if step.context.shared is None:
            raise PolyfaceError("a weighting learned from features needs Context(shared=…), features [B, D]")
        return step.context.shared


def _group(given: Mapping[str, Any], tasks: list[str]) -> tuple[list[str], float]:
    if unknown := [key for key in given if key not in ("tasks", "budget")]:
        raise PolyfaceError(f"weighting groups: unknown key '{unknown[0]}'; {nearest(unknown[0], ('tasks', 'budget'))}")
    names, budget = list(given.get("tasks", ())), float(given.get("budget", 1.0))
    if not names:
        raise PolyfaceError("weighting groups: a group needs tasks")
    check_names(names, tasks, "weighting.options.groups")
    if budget < 0:
        raise PolyfaceError(f"weighting groups: budget is {budget}; expected a number ≥ 0")
    return names, budget


class YinLiu(FeatureWeights):
    """Dynamic side weights trained by the total loss (Yin & Liu 2018, Section 3.2): with L_d of the main task,

        L = L_d + φ Σ_s μ_s L_s,   μ = softmax(Ψ x + b) over the side tasks, averaged over the batch,

    minimised over everything, Ψ included: weight moves to the side task with the *smallest* loss. The released layer
    multiplies batch means, (mean μ)·(mean L), and so does this; it leaves the factor μ out of the gradient of the
    outputs, which the paper's objective has: here it is in, as autograd gives it.

    main: the task with weight 1 (default: the first). budget: φ, 0.1 in the paper. groups: other groups than "all side
    tasks" (p-CNN has [{"tasks": [identity, pose-wise identity], "budget": 1}, {"tasks": side tasks, "budget": 0.1}]).
    detach: do not train the trunk through μ (the paper does).
    """

    def __init__(
        self,
        tasks: Sequence[str],
        features: int | Sequence[int],
        *,
        main: str | None = None,
        budget: float = 0.1,
        groups: Sequence[Mapping[str, Any]] | None = None,
        detach: bool = False,
        pool: str = "average",
        lr: float | None = None,
    ) -> None:
        main = tasks[0] if main is None and tasks else main
        if groups is None:
            if tasks and main not in tasks:
                raise PolyfaceError(f"weighting main is '{main}'; {nearest(str(main), tasks)}")
            side = [task for task in tasks if task != main]
            groups = [{"tasks": side, "budget": budget}] if side else []
        super().__init__(tasks, features, groups, pool=pool, lr=lr)
        self.detach = detach

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        shared = self.shared(step)
        weights, learned = self.weights_and_shares(step, shared.detach() if self.detach else shared)
        own = (weights * step.values.to(weights) * learned).sum()
        return weights, own if own.requires_grad else None


class NaiveDynamic(YinLiu):
    """The scheme of Yin & Liu for *all* tasks, the baseline of Ming et al. 2021 ("naive dynamic"): one group with
    budget 1, features of length 1, logits of length 1/2 [their code], everything trained by Σ w_t L_t.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        features: int | Sequence[int],
        *,
        budget: float = 1.0,
        logit_norm: float | None = 0.5,
        detach: bool = False,
        pool: str = "average",
        lr: float | None = None,
    ) -> None:
        FeatureWeights.__init__(
            self,
            tasks,
            features,
            [{"tasks": list(tasks), "budget": budget}],
            normalise_features=True,
            logit_norm=logit_norm,
            pool=pool,
            lr=lr,
        )
        self.detach = detach


class Ming(FeatureWeights):
    """Weights that train the hard task first (Ming et al. 2021, Eqs. 5–8): the network minimises Σ w_t L_t with w
    detached, and Ψ alone minimises

        L_4 = Σ_t w_t / (L_t + σ),   w = softmax(Ψ x + b) averaged over the batch, x detached,

    so that weight moves to the task with the *largest* loss. Text and code differ: Eq. 7 writes the network's loss
    without w (a slip); Eq. 9 keeps the diagonal of the softmax' Jacobian alone (autograd has all of it); without
    normalised logits the minimiser of L_4 is one-hot on the hardest task, so the code's logit_norm (1 for CaVI, 2 for
    WebCaricature) is the default, None the paper's. The code lets w_t carry gradient into the trunk: through_weights.

    sigma: σ. Absent tasks leave L_4, where 1/σ would otherwise outweigh all others. Own optimiser settings: lr (×10 on
    WebCaricature); the gradients of network and Ψ are separate, so one optimiser with two groups is two optimisers.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        features: int | Sequence[int],
        *,
        sigma: float = 0.01,
        budget: float = 1.0,
        groups: Sequence[Mapping[str, Any]] | None = None,
        logit_norm: float | None = 1.0,
        through_weights: bool = False,
        pool: str = "average",
        lr: float | None = None,
    ) -> None:
        if sigma <= 0:
            raise PolyfaceError(f"weighting sigma is {sigma}; expected a number > 0")
        groups = [{"tasks": list(tasks), "budget": budget}] if groups is None else groups
        super().__init__(tasks, features, groups, logit_norm=logit_norm, pool=pool, lr=lr)
        self.sigma, self.through_weights = sigma, through_weights

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        shared = self.shared(step)
        weights, learned = self.weights_and_shares(step, shared.detach())
        values = step.values.to(weights)
        own = (weights / (values + self.sigma) * learned).sum()
        if self.through_weights:
            frozen = [parameter.requires_grad_(False) for parameter in self.parameters()]
            through, _ = self.weights_and_shares(step, shared)
            for parameter in frozen:
                parameter.requires_grad_(True)
            own = own + (through * values * learned).sum()
        return weights, own if own.requires_grad else None
