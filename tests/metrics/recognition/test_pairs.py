"""The equal error rate where FAR and FRR do not meet at a pair, by hand and against a fine interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.metrics.recognition.pairs import equal_error_rate, roc


def test_equal_error_rate_between_two_points_of_the_roc_by_hand() -> None:
    """Cuts at (FAR, VAL) = (0, 1/5), (1/2, 4/5), (1, 1): FRR falls from 4/5 to 1/5 while FAR rises from 0 to 1/2. They
    meet 8/11 along that line, at 1/2 · 8/11 = 4/11."""
    same = [1] * 5 + [0] * 4
    distances = [1, 2, 2, 2, 3, 2, 2, 3, 3]
    assert equal_error_rate(distances, same) == pytest.approx(400 / 11)
    # the other way round: from (0, 3/4) to (1/3, 1), met after 1/4 ÷ (1/4 + 1/3) = 3/7 of it
    assert equal_error_rate([1, 1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 0, 0, 0]) == pytest.approx(100 / 7)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_equal_error_rate_is_where_the_interpolated_rates_meet(pairs: list[tuple[int, bool]]) -> None:
    distances, same = zip(*pairs, strict=True)
    if all(same) or not any(same):
        return
    far, val = roc(distances, same)
    along = np.linspace(0, 1, 20_001)
    steps = np.linspace(0, 1, len(far))
    gap = np.interp(along, steps, far) - (100 - np.interp(along, steps, val))
    met = np.interp(along, steps, far)[np.abs(gap).argmin()]
    assert equal_error_rate(distances, same) == pytest.approx(met, abs=0.5)
