"""What of a stage could not act, and says so before it is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from polyface.data.loader import FacePool
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.tasks import Task, as_classes
from polyface.training.extras.base import Extra
from polyface.training.following import Period
from polyface.training.optimiser import is_adaptive
from polyface.training.specs import StageSpec
from polyface.training.terms import LossTerms
from polyface.weighting import Weighting

_log = logging.getLogger(__name__)


def check_period(stage: StageSpec, period: Period, weighting: Weighting, extras: Mapping[str, Extra]) -> None:
    """Raise a `PolyfaceError` where what follows validations would see fewer than two of them."""
    every = stage.optimisation.validate_steps
    following = [f"weighting {stage.weighting.name}"] if weighting.follows_passes else []
    following += [name for name, extra in extras.items() if extra.follows]
    if following and every and period.steps < every:
        raise PolyfaceError(
            f"stage {stage.name}: {' and '.join(following)} could not act: a validation every {every} steps "
            f"(optimisation.validate_steps), and the run has {period.steps} steps: lower it, or give "
            "optimisation.validate_times, so many an epoch"
        )


def check_groups(stage: StageSpec, network: FaceNetwork, tasks: Mapping[str, Task], training: FacePool) -> None:
    """Raise a `PolyfaceError` where a routed part would learn nothing: no training face, as it is or mirrored, is
    labelled with one of its classes."""
    parts = network.graph.parts.items()
    groups = {name: p.rows for name, p in parts if p.rows and not p.frozen and p.rows.task in tasks}
    for name, rows in groups.items():
        task, places = tasks[rows.task], list(rows.classes)
        counts = _labels(task, training, mirrored=False)
        shown = counts + _labels(task, training, mirrored=True) if stage.data.augment.mirror else counts
        if not shown[places].any():
            words = [str(getattr(task, "vocabulary", range(len(counts)))[place]) for place in places]
            others = ", ".join(
                f"{other} {int(counts[list(own.classes)].sum())}"
                for other, own in groups.items()
                if other != name and own.task == rows.task
            )
            raise PolyfaceError(
                f"stage {stage.name}: network.parts.{name}: no training face is labelled {rows.task} "
                f"{' or '.join(words)} (faces of the other groups: {others or 'none'}): "
                f"choose other edges or classes of task '{rows.task}', give these classes to another part, or add faces"
            )


def warn_of_classes(stage: StageSpec, tasks: Mapping[str, Task], training: FacePool) -> None:
    """Say of each task of classes which of them no training face, as it is or mirrored, is labelled with."""
    for name, task in tasks.items():
        words: list[str] = getattr(task, "vocabulary", [])
        if hasattr(task, "classes") and len(words) == task.output_dim:
            views = (False, True) if stage.data.augment.mirror else (False,)
            prepared = [_prepared(task, training, mirrored) for mirrored in views]
            seen = [one.sum(0) if one.ndim == 2 else torch.bincount(one, minlength=len(words)) for one in prepared]
            absent = [word for word, *counts in zip(words, *seen, strict=True) if not any(counts)]
            if 0 < len(absent) < len(words):
                what = "no training face is labelled %s, so no answer will be; leave it out of vocabulary, or add faces"
                _log.warning(f"stage %s: tasks.%s: {what}", stage.name, name, " or ".join(absent))


def _labels(task: Task, faces: FacePool, mirrored: bool) -> Tensor:
    """How many faces are labelled with each class of a task, [classes]."""
    return torch.bincount(as_classes(_prepared(task, faces, mirrored)), minlength=task.output_dim)


def _prepared(task: Task, faces: FacePool, mirrored: bool) -> Tensor:
    """The labels of a task's labelled faces as the loss compares them."""
    targets = faces.targets[task.name]
    values = targets.values[targets.labelled[:, 0]]
    matrix = torch.tensor([[-1.0 if mirrored else 1.0, 0, 0], [0, 1, 0]])
    return task.prepare(values, matrix.expand(len(values), 2, 3), 1)


def warn(stage: StageSpec, period: Period, weighting: Weighting, network: FaceNetwork, terms: LossTerms) -> None:
    """Say, once, where weights never change, and where the optimiser takes them away again."""
    needed = weighting.steps_needed + weighting.epochs_needed * period.step(period.batches)
    needed += weighting.validations_needed * period.first
    if needed >= period.steps:
        weighting.warn_once(
            f"its weights can change after {needed} steps, and the run has {period.steps}: they stay as they begin"
        )
    if (
        not weighting.plain
        and len(terms.weighted) > 1
        and is_adaptive(stage.optimisation)
        and not _shared(network, terms)
    ):
        weighting.warn_once(
            f"no parameter that learns is shared by two losses, and {stage.optimisation.optimiser} divides each "
            "gradient by its own size: the weights change next to nothing; take optimiser sgd, or let the trunk learn"
        )


def _shared(network: FaceNetwork, terms: LossTerms) -> bool:
    """Whether a parameter that learns is reached by two weighted losses, of two tasks or of two terms of one."""
    if network.shared_parameters():
        return True
    for name, head in network.graph.heads.items():
        losses = sum(task == name for task in terms.task_of.values())
        read = [node for node in network.graph.needed([head], routing=False) if node.kept_in == "branches"]
        if losses > 1 and any(p.requires_grad for node in read for p in network.branches[node.name].parameters()):
            return True
    return False
