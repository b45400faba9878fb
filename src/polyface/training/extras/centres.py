"""The centre loss (Wen et al. 2016; Ming et al. 2021, Eq. 5), which draws embeddings to their person's centre: the key
`centres`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from polyface.data.loader import FaceBatch
from polyface.errors import PolyfaceError, nearest
from polyface.networks import FaceNetwork, FaceOutput
from polyface.tasks import Task
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import Strict
from polyface.weighting.base import sum_over_ranks


class CentresSpec(Strict):
    """A centre loss ½‖e − c_y‖² of a face's embedding e and the centre of its person, `weight` of it added to the loss
    of each of `tasks`, which share one table of centres. rate: how far a step moves a centre towards the mean of its
    person's faces in the batch."""

    tasks: list[str]
    weight: float = Field(0.1, ge=0)
    rate: float = Field(0.5, gt=0, le=1)


class Centres(Extra):
    """A loss that draws every face's embedding to the centre of its person.

    The table of centres [people, E], which several tasks share, starts at 0. branches: task → the embedding that it
    reads. A step moves the centre of every person in the batch α (the setting `rate`) of the way to the mean of that
    person's embeddings, and no other:

        c_y ← c_y − α · mean over the batch's faces of y of (c_y − e)
    """

    Spec = CentresSpec
    table: Tensor

    def __init__(self, spec: CentresSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.weight, self.rate = spec.weight, spec.rate
        self.branches, people, dim = _shared(spec.tasks, setup.network, setup.tasks)
        self.register_buffer("table", torch.zeros(people, dim))

    def add_losses(self, losses: dict[str, Tensor], output: FaceOutput, batch: FaceBatch, training: bool) -> None:
        """Add the centre loss of every face to its task's losses [B, 1]."""
        for task, branch in self.branches.items():
            apart = output.embeddings[branch].float() - self.table[batch.targets[task]]
            losses[task] = losses[task] + self.weight * 0.5 * apart.square().sum(1, keepdim=True)

    @torch.no_grad()
    def add_total(self, output: FaceOutput, batch: FaceBatch) -> None:
        """Move the centres towards the labelled faces of the global batch, task after task; no loss is added."""
        for task, branch in self.branches.items():
            known = batch.labelled[task][:, 0]
            people, faces = batch.targets[task][known], output.embeddings[branch].detach()[known].to(self.table)
            sums = torch.zeros_like(self.table).index_add_(0, people, faces)
            counts = torch.bincount(people, minlength=len(self.table)).to(self.table)
            total = sum_over_ranks(torch.cat([sums, counts[:, None]], 1))
            sums, counts = total[:, :-1], total[:, -1:]
            means = torch.where(counts > 0, sums / counts.clamp(min=1), self.table)
            self.table.lerp_(means, self.rate)


def _shared(names: Sequence[str], network: FaceNetwork, tasks: Mapping[str, Task]) -> tuple[dict[str, str], int, int]:
    """What the tasks read, by branch, and the people and the length of embeddings, which are the same for all."""
    sizes, branches = {}, {}
    for name in names:
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
    return branches, people, dim
