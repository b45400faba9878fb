"""Distillation: embeddings stay near those of a teacher, which saw more photos: the key `distil`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polyface.data.boxes import Boxes
from polyface.data.loader import FaceBatch, FacePool
from polyface.data.table import FaceTable, Progress
from polyface.errors import PolyfaceError
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import TTA, predict
from polyface.networks import FaceNetwork, FaceOutput
from polyface.tasks import masked_sums, term_means
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import Strict
from polyface.weighting.base import sum_over_ranks, world_size


class DistilSpec(Strict):
    """Let the embeddings of `tasks` stay near those that a teacher (an earlier stage's or another bundle) has of the
    training faces: `weight` · (1 − cosine) is added to the training loss. weighted: it is added to these tasks' own
    losses instead, before they are weighed, so that a weighting takes a task that is taught for a hard one. people: of
    caricatures, near the mean of the teacher's embeddings of their person's photos."""

    teacher: str
    tasks: list[str]
    weight: float = Field(10.0, ge=0)
    weighted: bool = False
    people: bool = False


class Distil(Extra):
    """Embeddings of training faces stay near those that a teacher has of them. What it adds to the loss, by task, is in
    the history ("distil") where it is not in the tasks' own losses."""

    Spec = DistilSpec
    added: Tensor
    """[2, tasks]: sums and counts of the epoch's labelled faces, of all processes."""

    def __init__(self, spec: DistilSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        teacher = load_bundle(setup.earlier.get(spec.teacher, Path(spec.teacher)), quiet=True)
        self.weighted = spec.weighted
        self.distillation = distillation(spec, teacher, setup.network, setup.training, setup.progress)
        self.register_buffer("added", torch.zeros(2, len(spec.tasks), dtype=torch.float64))

    def add_losses(self, losses: dict[str, Tensor], output: FaceOutput, batch: FaceBatch, training: bool) -> None:
        if training and self.weighted:  # the teacher was asked of training faces alone
            self.distillation.add_to(losses, output.embeddings, batch.rows)

    def add_total(self, output: FaceOutput, batch: FaceBatch) -> Tensor | None:
        """The sum over tasks of the mean over the labelled faces of the global batch, as if each task had weight 1."""
        if self.weighted:
            return None
        losses = {
            task: torch.zeros(len(batch.rows), 1, device=batch.rows.device) for task in self.distillation.branches
        }
        self.distillation.add_to(losses, output.embeddings, batch.rows)
        pairs = [masked_sums(each, batch.labelled[task]) for task, each in losses.items()]
        sums, counts = (torch.cat(each) for each in zip(*pairs, strict=True))
        totals = sum_over_ranks(torch.stack([sums.detach(), counts.to(sums)]))
        self.added += totals
        return term_means(world_size() * sums, totals[1]).sum()

    def end_epoch(self, row: dict[str, Any]) -> None:
        sums, counts = self.added.tolist()
        told = zip(self.distillation.branches, sums, counts, strict=True)
        if means := {task: one / count for task, one, count in told if count}:
            row["distil"] = means
        self.added.zero_()


class Distillation(nn.Module):
    """What a teacher says of every training face, and the loss of saying otherwise.

        weight · (1 − cos(e − m, t − m)),   e, t of length 1, m the mean of all t

    The mean is taken away because embeddings that never are negative are all alike. targets [N, E]: t − m at length 1,
    NaN for a face that nothing is said of. branches: task → the branch whose embedding it reads.
    """

    targets: Tensor
    mean: Tensor

    def __init__(self, targets: Tensor, branches: Mapping[str, str], weight: float) -> None:
        super().__init__()
        unit = F.normalize(targets)
        mean = unit[unit.isfinite().all(1)].mean(0)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("targets", F.normalize(unit - mean), persistent=False)  # made again when a run resumes
        self.branches, self.weight = dict(branches), weight

    def add_to(self, losses: dict[str, Tensor], embeddings: Mapping[str, Tensor], rows: Tensor) -> None:
        """Add to the tasks' losses [B, 1] what the faces `rows` [B] of the training pool have to stay near to."""
        target = self.targets[rows.to(self.targets.device)]
        known = target.isfinite().all(1)
        for task, branch in self.branches.items():
            own = F.normalize(F.normalize(embeddings[branch].float()) - self.mean)
            apart = 1 - (own * torch.where(known[:, None], target, own.detach())).sum(1)
            losses[task] = losses[task] + self.weight * torch.where(known, apart, 0.0)[:, None]


def distillation(
    spec: DistilSpec, teacher: Bundle, network: FaceNetwork, pool: FacePool, progress: Progress | None = None
) -> Distillation:
    """Ask the teacher, a bundle with one embedding, of all training faces (each and its mirror image)."""
    read = {name: teacher.network.embedding_of(name) for name in teacher.tasks}
    named = [name for name, branch in read.items() if branch]
    if len(named) != 1:
        raise PolyfaceError(
            f"distil.teacher {spec.teacher} has {len(named)} tasks that read an embedding; expected one"
        )
    branches = {}
    taught = teacher.network.embeddings[read[named[0]] or ""]
    for name in spec.tasks:
        branch = network.embedding_of(name) if name in network.heads else None
        if branch is None or network.embeddings[branch].dim != taught.dim:
            raise PolyfaceError(
                f"distil.tasks: '{name}' must read an embedding of {taught.dim} numbers, as those of {spec.teacher} are"
            )
        branches[name] = branch
    faces = FacePool.unlabelled(pool.table, Boxes(pool.boxes, np.zeros(0, np.int64)), teacher.crop)
    asked = {named[0]: teacher.tasks[named[0]]}
    answers = predict(teacher.network, asked, faces, tta=TTA(mirror=True), progress=progress)[named[0]]
    embeddings = answers[taught.answer]
    if spec.people:
        embeddings = _of_photos(embeddings, pool.table)
        if np.isnan(embeddings).any(1).all():
            raise PolyfaceError("distil.people: no training face is a photo, or shows somebody of whom there is one")
    return Distillation(torch.from_numpy(embeddings), branches, spec.weight)


def _of_photos(embeddings: np.ndarray, table: FaceTable) -> np.ndarray:
    """For caricatures the mean over their person's photos, NaN where there is none."""
    people, modality = table.words("identity"), table.words("modality")
    taught = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    drawn = modality == "caricature"
    for person in set(people[drawn]):
        photos = taught[(people == person) & (modality == "photo")]
        taught[drawn & (people == person)] = photos.mean(0) if len(photos) and person is not None else np.nan
    return np.asarray(taught, dtype=np.float32)
