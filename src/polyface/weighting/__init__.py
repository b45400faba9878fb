"""How several losses become one update. Needs torch, numpy and scipy alone; works in anyone's own training loop.

weighting = build("nash", ["landmarks", "pose"])
combined = weighting.combine({"landmarks": loss_a, "pose": loss_b}, Context(shared=features))
combined.total.backward()
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from polyface.errors import PolyfaceError, nearest
from polyface.weighting.aligned import AlignedMTL
from polyface.weighting.base import Combined, Context, Fixed, Uniform, Weighting
from polyface.weighting.cagrad import CAGrad
from polyface.weighting.fair import FairGrad, NashMTL
from polyface.weighting.famo import FAMO
from polyface.weighting.features import Ming, NaiveDynamic, YinLiu
from polyface.weighting.gradnorm import GradNorm
from polyface.weighting.gramian import gramian
from polyface.weighting.imtl import IMTL, GradientBalance
from polyface.weighting.losses import GeometricMean, RandomWeights, SmoothTchebycheff
from polyface.weighting.mgda import MGDA
from polyface.weighting.scalars import LossBalance, Uncertainty
from polyface.weighting.stopping import TaskStopping, criterion
from polyface.weighting.surgery import GradVac, PCGrad
from polyface.weighting.thresholds import AdaptiveThresholds
from polyface.weighting.trend import AdaptiveWeights, DynamicAverage, ValidationTrend
from polyface.weighting.upgrad import UPGrad

__all__ = [
    "WEIGHTINGS",
    "AdaptiveThresholds",
    "Combined",
    "Context",
    "TaskStopping",
    "Weighting",
    "build",
    "criterion",
    "gramian",
]
__all__ += [
    "AdaptiveWeights", "AlignedMTL", "CAGrad", "DynamicAverage", "FAMO", "FairGrad", "Fixed", "GeometricMean",
    "GradNorm", "GradVac", "GradientBalance", "IMTL", "LossBalance", "MGDA", "Ming", "NaiveDynamic", "NashMTL",
    "PCGrad", "RandomWeights", "SmoothTchebycheff", "UPGrad", "Uncertainty", "Uniform", "ValidationTrend", "YinLiu",
]  # fmt: skip

WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    "fixed": Fixed,
    "uniform": Uniform,
    "yin-liu": YinLiu,
    "ming": Ming,
    "naive-dynamic": NaiveDynamic,
    "dmm": ValidationTrend,
    "dwa": DynamicAverage,
    "aw": AdaptiveWeights,
    "uncertainty": Uncertainty,
    "rlw": RandomWeights,
    "gls": GeometricMean,
    "stch": SmoothTchebycheff,
    "famo": FAMO,
    "imtl-l": LossBalance,
    "imtl-g": GradientBalance,
    "imtl": IMTL,
    "gradnorm": GradNorm,
    "mgda": MGDA,
    "pcgrad": PCGrad,
    "cagrad": CAGrad,
    "gradvac": GradVac,
    "nash": NashMTL,
    "aligned": AlignedMTL,
    "fairgrad": FairGrad,
    "upgrad": UPGrad,
}
"""name → class, called with (tasks, **options). Packages add more by the entry point group `polyface.weightings`."""


def build(name: str, tasks: Sequence[str], *, features: int | None = None, **options: Any) -> Weighting:
    """A weighting by name. features: the width of the shared features, for the methods that learn from them."""
    known = WEIGHTINGS
    if name not in known:
        known = WEIGHTINGS | {point.name: point.load() for point in entry_points(group="polyface.weightings")}
    if name not in known:
        raise PolyfaceError(f"weighting.name is '{name}'; {nearest(name, known)}")
    method = known[name]
    if getattr(method, "needs_features", False):
        if features is None:
            raise PolyfaceError(f"weighting {name} learns from shared features: give features, their width")
        options["features"] = features
    expected = list(inspect.signature(method).parameters)[1:]
    if unknown := [option for option in options if option not in expected]:
        hint = nearest(unknown[0], [o for o in expected if o != "features"])
        raise PolyfaceError(f"weighting.options ({name}): unknown option '{unknown[0]}'; {hint}")
    for option, value in options.items():
        annotation = str(inspect.signature(method).parameters[option].annotation)
        if annotation.startswith(("float", "int")) and not (value is None and "None" in annotation):
            _check_number(name, option, value)
    try:
        return method(tasks, **options)
    except (AttributeError, TypeError, ValueError) as error:
        raise PolyfaceError(f"weighting.options ({name}): {error}") from error


def _check_number(name: str, option: str, value: Any) -> None:
    """All options that are numbers are finite and at least 0, whatever else the method asks of them."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        raise PolyfaceError(f"weighting.options ({name}): {option} is {value}; expected a number ≥ 0")
