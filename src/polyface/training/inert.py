"""What of a stage could not act, and says so before it is trained."""

from __future__ import annotations

from collections.abc import Mapping

from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.training.extras.base import Extra
from polyface.training.following import Period
from polyface.training.optimiser import is_adaptive
from polyface.training.specs import StageSpec
from polyface.training.terms import LossTerms
from polyface.weighting import Weighting


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
