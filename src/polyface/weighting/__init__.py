"""How several losses become one update. Needs torch, numpy and scipy alone; works in anyone's own training loop.

weighting = build("nash", ["landmarks", "pose"])
combined = weighting.combine({"landmarks": loss_a, "pose": loss_b}, Context(shared=features))
combined.total.backward()
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

from polyface.errors import PolyfaceError
from polyface.registry import Registry, lacks
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

WEIGHTINGS = Registry(
    "weighting",
    group="polyface.weightings",
    built_in={
        "fixed": "polyface.weighting.base:Fixed",
        "uniform": "polyface.weighting.base:Uniform",
        "yin-liu": "polyface.weighting.features:YinLiu",
        "ming": "polyface.weighting.features:Ming",
        "naive-dynamic": "polyface.weighting.features:NaiveDynamic",
        "dmm": "polyface.weighting.trend:ValidationTrend",
        "dwa": "polyface.weighting.trend:DynamicAverage",
        "aw": "polyface.weighting.trend:AdaptiveWeights",
        "uncertainty": "polyface.weighting.scalars:Uncertainty",
        "rlw": "polyface.weighting.losses:RandomWeights",
        "gls": "polyface.weighting.losses:GeometricMean",
        "stch": "polyface.weighting.losses:SmoothTchebycheff",
        "famo": "polyface.weighting.famo:FAMO",
        "imtl-l": "polyface.weighting.scalars:LossBalance",
        "imtl-g": "polyface.weighting.imtl:GradientBalance",
        "imtl": "polyface.weighting.imtl:IMTL",
        "gradnorm": "polyface.weighting.gradnorm:GradNorm",
        "mgda": "polyface.weighting.mgda:MGDA",
        "pcgrad": "polyface.weighting.surgery:PCGrad",
        "cagrad": "polyface.weighting.cagrad:CAGrad",
        "gradvac": "polyface.weighting.surgery:GradVac",
        "nash": "polyface.weighting.fair:NashMTL",
        "aligned": "polyface.weighting.aligned:AlignedMTL",
        "fairgrad": "polyface.weighting.fair:FairGrad",
        "upgrad": "polyface.weighting.upgrad:UPGrad",
    },
    check=lambda part: lacks(part, "combine"),
)
"""Weightings by name: classes, called with (tasks, **options)."""


def build(name: str, tasks: Sequence[str], *, features: int | Sequence[int] | None = None, **options: Any) -> Weighting:
    """A weighting by name. features: the width of the shared features, or the shape [D, h, w] of a shared map, for the
    methods that learn from them."""
    method = WEIGHTINGS.get(name, "weighting.name")
    if getattr(method, "needs_features", False):
        if features is None:
            raise PolyfaceError(f"weighting {name} learns from shared features: give features, their width")
        options["features"] = features
    parameters = inspect.signature(method).parameters
    for option, value in options.items():
        annotation = str(parameters[option].annotation) if option in parameters else ""
        if annotation.startswith(("float", "int")) and not (value is None and "None" in annotation):
            for number in value if isinstance(value, list | tuple) else [value]:
                _check_number(name, option, number)
    built: Weighting = WEIGHTINGS.make(name, options, tasks, where="weighting.options")
    return built


def _check_number(name: str, option: str, value: Any) -> None:
    """All options that are numbers are finite and at least 0, whatever else the method asks of them."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        raise PolyfaceError(f"weighting.options ({name}): {option} is {value}; expected a number ≥ 0")
