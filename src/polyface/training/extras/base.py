"""The moments of training at which an extra may act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from torch import Tensor, nn

from polyface.data.loader import FaceBatch, FacePool
from polyface.data.table import Progress
from polyface.networks import FaceNetwork, FaceOutput
from polyface.tasks import Task
from polyface.training.following import Period
from polyface.training.specs import StageSpec
from polyface.training.terms import LossTerms


@dataclass(frozen=True)
class Setup:
    """What an extra is built from beside its settings. training: the training faces. earlier: bundles of other stages,
    by name. progress: to be called with what is going on.

    period: of the validations that weights and thresholds follow, and the length of the run. losses: (part, faces) →
    the mean losses, by task, of so many fixed faces of "train" or "val" (the same at every call), as they are and in
    evaluation mode, over all processes. weights: → those of the last step, by weighted loss.
    """

    stage: StageSpec
    network: FaceNetwork
    tasks: Mapping[str, Task]
    terms: LossTerms
    training: FacePool
    earlier: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    period: Period | None = None
    losses: Callable[[str, int], Mapping[str, float]] | None = None
    weights: Callable[[], Mapping[str, float]] = dict


class Extra(nn.Module):
    """Base of all extras; each overrides the moments at which it acts.

    Parameters, buffers and `get_extra_state` (tensors and plain values) are in the checkpoint, so that a resumed run
    goes on bit for bit. Parameters that learn are trained with the network's, at the recipe's rate; under DDP they must
    take part in every batch. Extras act in the alphabetical order of their names, on every process: what is added to a
    loss is of this process's faces, and what changes state is summed over all (`weighting.base.sum_over_ranks`).
    """

    Spec: ClassVar[type[BaseModel] | None] = None
    """The class of its settings; None: no key of the stage's own asks for it."""
    needs_validation: ClassVar[bool] = False
    """Whether it can do nothing without validation faces."""

    def __init__(self, spec: Any, setup: Setup) -> None:
        super().__init__()

    @classmethod
    def check(cls, spec: Any, stage: StageSpec) -> None:
        """Raise a `PolyfaceError` where the settings do not fit the stage; called when the recipe is read."""

    @classmethod
    def moves(cls, spec: Any) -> Sequence[str]:
        """The tasks whose own settings it changes in training."""
        return ()

    @property
    def follows(self) -> bool:
        """Whether it acts on whole passes over the validation faces (`after_validation`)."""
        return type(self).after_validation is not Extra.after_validation

    def counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Labelled faces of each weighted loss, as the weighting is told them; 0 takes a loss out of training."""
        return dict(counts)

    def add_losses(self, losses: dict[str, Tensor], output: FaceOutput, batch: FaceBatch, training: bool) -> None:
        """Add to the losses [B, K] of tasks: the weighting sees it, masks and means follow. training: whether the
        faces are training faces."""

    def add_total(self, output: FaceOutput, batch: FaceBatch) -> Tensor | None:
        """A scalar that is added to the training loss, unseen by the weighting; called once a batch, after it."""
        return None

    def before_step(self, network: FaceNetwork) -> None:
        """Before each step of the optimiser, the gradients being there."""

    def after_step(self, network: FaceNetwork, step: int) -> None:
        """After each step of the optimiser. step: counted from 1."""

    def before_validation(self) -> None:
        """Before each pass over the validation faces."""

    def on_validation_batch(self, output: FaceOutput, batch: FaceBatch) -> None:
        """For each batch of that pass, without gradients."""

    def after_validation(self, counts: Tensor, epoch: int) -> None:
        """After a pass that weights and thresholds follow, before the weighting. counts: labelled faces [terms].
        epoch: the present one, from 1."""

    def validated(self, row: dict[str, Any]) -> None:
        """After weights and thresholds followed a validation; `row` is its entry among the run's validations ("step",
        "losses", "weights"), to which plain values may be added."""

    def end_epoch(self, row: dict[str, Any]) -> None:
        """After each epoch; `row` is its entry in the history ("train", "weights", "validation" where there was one),
        to which plain values may be added."""

    def record(self) -> Any:
        """Plain values that history.json keeps under the extra's name, beside the epochs; None: nothing."""
        return None

    def evaluated(self, network: FaceNetwork) -> FaceNetwork:
        """The network to validate and to save in place of `network`."""
        return network

    def best(self) -> Any:
        """What belongs to the epoch that is the best so far, beside the network."""
        return None

    def restore(self, best: Any) -> None:
        """Take back what `best` gave; called once, where the best epoch is kept."""
