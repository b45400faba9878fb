"""One learned number a task: homoscedastic uncertainty, and the loss balance of IMTL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.weighting.base import Step, Weighting


class Uncertainty(Weighting):
    """Homoscedastic uncertainty (Kendall, Gal & Cipolla 2018, Eq. 7, with s = log σ²):

        L = Σ ½ e^{-s_t} L_t + ½ s_t

    The paper has no factor ½ before a cross-entropy; it would only shift s_t by log 2 and is the same for all tasks
    here. s starts at 0 (LibMTL: −0.5). Its minimum over s is at e^{s_t} = L_t: weights 1/(2 L_t).
    Absent tasks: s_t gets no gradient, the other weights keep their value.
    """

    def __init__(self, tasks: Sequence[str], *, lr: float | None = None) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))
        self.lr = lr

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        s = self.log_variance[step.index]
        weights = 0.5 * torch.exp(-s)
        return weights, (weights * step.values.to(s) + 0.5 * s).sum()


class LossBalance(Weighting):
    """IMTL-L, loss balance without gradients (Liu et al. 2021, Section 3.2):

        L = Σ e^{s_t} L_t − s_t

    with s from 0: the scaled losses e^{s_t} L_t all go to 1. Absent tasks: as in Uncertainty, of which this is twice
    the objective at −s.
    """

    def __init__(self, tasks: Sequence[str], *, lr: float | None = None) -> None:
        super().__init__(tasks)
        self.log_scale = nn.Parameter(torch.zeros(len(self.tasks)))
        self.lr = lr

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        s = self.log_scale[step.index]
        weights = torch.exp(s)
        return weights, (weights * step.values.to(s) - s).sum()
