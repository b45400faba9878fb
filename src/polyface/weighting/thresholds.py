"""Thresholds of attributes that follow the mistakes made on validation faces (Mao et al. 2020, Eqs. 5 and 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from polyface.errors import PolyfaceError


class AdaptiveThresholds(nn.Module):
    """DMM-CNN's τ: after every pass over the validation faces, each attribute's threshold moves by

        τ_t = τ_{t−1} + γ · l · (N_FP − N_FN) / V

    with l the epoch, N_FP and N_FN the false positives and negatives among V faces, *counted with τ_{t−1}*: a face has
    an attribute if its output is above τ (Eq. 5). So τ rises where too many faces are called positive, rests where
    both mistakes are as frequent, and never moves by more than γ · l. What it seeks is thus that as many faces are
    called positive as are, which is near the highest accuracy but not the same.

    start: τ_0, one number an attribute. rate: γ = 0.01; 0 leaves the thresholds fixed. The thresholds are plain numbers
    (float64, on no device) and in the checkpoint.

    Where the paper is silent: τ_0 is 0; the epoch counts from 1, so the first passes move τ too; V is the number of
    validation faces *labelled for that attribute*, all of them in CelebA; an attribute without labels keeps its τ. A
    validation set without a positive (or negative) face has N_FN (N_FP) = 0 and both counts stay defined. In Algorithm
    1 one pass gives the losses, then τ, then the weights. LFWA has no validation faces: there the paper counts on the
    training faces. Test faces are judged by the τ found here.
    """

    def __init__(self, start: Sequence[float], rate: float = 0.01) -> None:
        super().__init__()
        self.thresholds = [float(value) for value in start]
        """τ as it stands, one number an attribute: what the next counts are to be made with."""
        self.rate = rate
        if not self.thresholds or not all(map(math.isfinite, self.thresholds)):
            raise PolyfaceError(f"thresholds start at {self.thresholds}; expected a finite number an attribute")
        if not (math.isfinite(rate) and rate >= 0):
            raise PolyfaceError(f"thresholds rate is {rate}; expected a number ≥ 0")

    def update(
        self, false_positives: ArrayLike, false_negatives: ArrayLike, faces: ArrayLike, epoch: int
    ) -> list[float]:
        """Take one pass's counts and return the new thresholds.

        false_positives, false_negatives: [K], counted over all processes. faces: V, [K] or one number for all. epoch:
        the present one, from 1.
        """
        count = len(self.thresholds)
        above = _counts("false positives", false_positives, count)
        below = _counts("false negatives", false_negatives, count)
        known = _counts("faces", faces, count)
        if (above + below > known).any():
            place = int((above + below > known).argmax())
            raise PolyfaceError(
                f"thresholds: attribute {place} has {above[place]:g} false positives and {below[place]:g} false "
                f"negatives among {known[place]:g} faces; count labelled faces alone"
            )
        if epoch < 1:
            raise PolyfaceError(f"thresholds: the epoch is {epoch}; epochs count from 1")
        moved = np.array(self.thresholds) + self.rate * epoch * (above - below) / np.maximum(known, 1)
        self.thresholds = moved.tolist()
        return list(self.thresholds)

    def get_extra_state(self) -> dict[str, Any]:
        return {"thresholds": list(self.thresholds)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.thresholds = [float(value) for value in state["thresholds"]]


def _counts(what: str, given: ArrayLike, count: int) -> NDArray[np.float64]:
    """Counts float64 [count]; one number stands for all attributes."""
    values = np.asarray(given, dtype=np.float64)
    values = np.full(count, values) if values.ndim == 0 else values
    if values.shape != (count,) or not (np.isfinite(values) & (values >= 0)).all():
        raise PolyfaceError(f"thresholds: {what} must be {count} counts, one an attribute, not {values.tolist()}")
    return values
