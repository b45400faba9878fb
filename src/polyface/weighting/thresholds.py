"""Thresholds of attributes that follow the mistakes made on validation faces (Mao et al. 2020, Eqs. 5 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def at_rest(scores: ArrayLike, truth: ArrayLike, start: float = 0.0) -> NDArray[np.float64]:
    """Where Eq. 6 comes to rest on outputs that stay as they are, τ float64 [K], from `start` on.

    scores [N, K], truth [N, K] of −1, 1 and NaN (unknown), each attribute over its own labelled faces. N_FP − N_FN is
    how many more faces are called positive than are, so it falls as τ rises, and Eq. 6 goes one way until both are
    equal: of P positives, between the P-th highest output and the next. Small steps stop at the end of this range that
    they reach first, or at `start` itself. Where the two outputs are the same number, mistakes never balance, and Eq. 6
    stays within a step of it: that number is given. A range without an end (all faces, or none, are positive) has its
    other one; an attribute without labels keeps `start`.
    """
    return _each(scores, truth, lambda own, has: _rest(own, has, start), start)


def _rest(scores: NDArray[np.float64], has: NDArray[np.bool_], start: float) -> float:
    edges = np.concatenate([[np.inf], np.sort(scores)[::-1], [-np.inf]])
    last, first = edges[has.sum()], edges[has.sum() + 1]  # of those to be called positive, and of those not to be
    return float(np.clip(start, first, max(first, np.nextafter(last, -np.inf))))


def most_accurate(scores: ArrayLike, truth: ArrayLike, start: float = 0.0) -> NDArray[np.float64]:
    """The thresholds [K] by which most faces are called right, of outputs and labels as for `at_rest`: midway between
    two outputs, or the highest one (nobody is positive), or just below the lowest; of several as good, the nearest to
    `start`, which is itself one of them. An attribute without labels keeps `start`."""
    return _each(scores, truth, lambda own, has: _best(own, has, start), start)


def _best(scores: NDArray[np.float64], has: NDArray[np.bool_], start: float) -> float:
    values = np.unique(scores)
    cuts = np.concatenate([[start, np.nextafter(values[0], -np.inf), values[-1]], (values[1:] + values[:-1]) / 2])
    cuts = cuts[np.argsort(np.abs(cuts - start), kind="stable")]
    missed = np.searchsorted(np.sort(scores[has]), cuts, side="right")  # positives at or below each cut
    right = has.sum() - missed + np.searchsorted(np.sort(scores[~has]), cuts, side="right")
    return float(cuts[right.argmax()])


def _each(
    scores: ArrayLike,
    truth: ArrayLike,
    found: Callable[[NDArray[np.float64], NDArray[np.bool_]], float],
    start: float,
) -> NDArray[np.float64]:
    """A threshold an attribute, from the outputs of its labelled faces and whether these have it."""
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if values.shape != known.shape or values.ndim != 2:
        raise PolyfaceError(
            f"thresholds: outputs {list(values.shape)} and labels {list(known.shape)} must both be [faces, attributes]"
        )
    labelled = ~np.isnan(known)
    columns = [(values[rows, k], known[rows, k] > 0) for k, rows in enumerate(labelled.T)]
    return np.array([found(own, has) if len(own) else start for own, has in columns])


def _counts(what: str, given: ArrayLike, count: int) -> NDArray[np.float64]:
    """Counts float64 [count]; one number stands for all attributes."""
    values = np.asarray(given, dtype=np.float64)
    values = np.full(count, values) if values.ndim == 0 else values
    if values.shape != (count,) or not (np.isfinite(values) & (values >= 0)).all():
        raise PolyfaceError(f"thresholds: {what} must be {count} counts, one an attribute, not {values.tolist()}")
    return values
