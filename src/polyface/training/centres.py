"""A centre for each person, towards which embeddings are drawn (Wen et al. 2016; Ming et al. 2021, Eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, nearest
from polyface.networks import FaceNetwork
from polyface.tasks import Task
from polyface.training.recipe import CentresSpec
from polyface.weighting.base import sum_over_ranks


class Centres(nn.Module):
    """One table of centres [people, E], which the embeddings of several tasks share; it starts at 0.

    branches: task → the branch whose embedding it reads. weight: of the loss ½‖e − c_y‖². rate: α of the update, which
    moves the centre of every person in the batch α of the way to the mean of that person's embeddings, and no other:

        c_y ← c_y − α · mean over the batch's faces of y of (c_y − e)
    """

    table: Tensor

    def __init__(self, people: int, dim: int, branches: Mapping[str, str], weight: float, rate: float) -> None:
        super().__init__()
        self.branches, self.weight, self.rate = dict(branches), weight, rate
        self.register_buffer("table", torch.zeros(people, dim))

    def add_to(
        self, losses: dict[str, Tensor], embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> None:
        """Add the centre loss of every face to its task's losses [B, 1], in place of what they were."""
        for task, branch in self.branches.items():
            apart = embeddings[branch].float() - self.table[targets[task]]
            losses[task] = losses[task] + self.weight * 0.5 * apart.square().sum(1, keepdim=True)

    @torch.no_grad()
    def follow(
        self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor], labelled: Mapping[str, Tensor]
    ) -> None:
        """Move the centres towards the labelled faces of the global batch, task after task."""
        for task, branch in self.branches.items():
            known = labelled[task][:, 0]
            people, faces = targets[task][known], embeddings[branch].detach()[known].to(self.table)
            sums = torch.zeros_like(self.table).index_add_(0, people, faces)
            counts = torch.bincount(people, minlength=len(self.table)).to(self.table)
            total = sum_over_ranks(torch.cat([sums, counts[:, None]], 1))
            sums, counts = total[:, :-1], total[:, -1:]
            means = torch.where(counts > 0, sums / counts.clamp(min=1), self.table)
            self.table.lerp_(means, self.rate)


def centres_of(spec: CentresSpec, network: FaceNetwork, tasks: Mapping[str, Task]) -> Centres:
    """The centres of a stage."""
    sizes, branches = {}, {}
    for name in spec.tasks:
        task = tasks.get(name)
        if task is None or task.people is None:
            known = [name for name, task in tasks.items() if task.people is not None]
            raise PolyfaceError(f"centres.tasks names '{name}', which is no identity task; {nearest(name, known)}")
        branch = network.embedding_of(name)
        if branch is None:
            raise PolyfaceError(
                f"centres.tasks: '{name}' reads no embedding: give its branch a similarity, and let "
                f"network.heads.{name} name that branch"
            )
        sizes[name] = (len(task.people), network.embeddings[branch].dim)
        branches[name] = branch
    if len(set(sizes.values())) > 1:
        raise PolyfaceError(f"centres.tasks share one table, but people and length of embeddings differ: {sizes}")
    (people, dim) = next(iter(sizes.values()))
    return Centres(people, dim, branches, spec.weight, spec.rate)
