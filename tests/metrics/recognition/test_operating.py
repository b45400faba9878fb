"""TAR at a FAR that is read off the very units: by hand, against a slow oracle, resampled, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.groups import within
from polyface.metrics.recognition.operating import OperatingResult, evaluate_operating
from polyface.metrics.resampling import Bools, Floats
from polyface.metrics.result import rows


def figures(result: OperatingResult) -> dict[str, float]:
    return {metric.name: result.figure(metric) for metric in result.metrics}


def test_by_hand() -> None:
    """Right ones at 1, 3, 5 and 7, wrong ones at 2, 4, 6 and 8: none of these may be accepted at 20 %, one at 25 %, two
    at 60 %."""
    distances = np.arange(1.0, 9)
    result = evaluate_operating(distances, np.arange(8) % 2 == 0, fars=[20, 25, 60])
    assert figures(result) == {"TAR@FAR 20%": 25, "TAR@FAR 25%": 50, "TAR@FAR 60%": 75}
    assert [metric.n for metric in result.metrics] == [8] * 3
    # a right one that is as far as a wrong one that is too many is not accepted either
    assert figures(evaluate_operating([1, 2, 2, 3], [True, True, False, False], fars=[1])) == {"TAR@FAR 1%": 50}


def slow(distances: Floats, right: Bools, far: float) -> float:
    """Every distance tried as a threshold; the largest share of right ones at which few enough wrong ones are in."""
    best = 0.0
    for threshold in distances:
        accepted = distances <= threshold
        if 100 * (accepted & ~right).sum() <= far * (~right).sum() + 1e-9:
            best = max(best, 100 * (accepted & right).sum() / right.sum())
    return best


@given(st.integers(0, 2**31), st.sampled_from([1.0, 10.0, 33.0, 50.0]))
@settings(max_examples=30)
def test_it_is_the_best_threshold(seed: int, far: float) -> None:
    generator = np.random.default_rng(seed)
    distances, right = generator.integers(0, 12, 40).astype(float), generator.random(40) < 0.4
    right[:2] = True, False
    result = evaluate_operating(distances, right, fars=[far])
    (metric,) = result.metrics
    assert result.figure(metric) == pytest.approx(slow(distances, right, far))
    order = generator.permutation(40)
    assert evaluate_operating(distances[order], right[order], fars=[far]).figure(metric) == result.figure(metric)
    # units that are there several times, as a resample has them, are as if they were listed so often
    counts = generator.integers(1, 4, 40).astype(np.int32)
    often = evaluate_operating(np.repeat(distances, counts), np.repeat(right, counts), fars=[far])
    assert result.at(counts[None], [metric])[metric][0] == often.figure(metric)


def test_a_group_keeps_the_threshold_of_all() -> None:
    """The one wrong unit of the group, at 9, would let both of its right ones in; everybody's, at 2, lets in one."""
    distances, right = np.array([1.0, 3, 9, 2, 5]), np.array([True, True, False, False, True])
    result = evaluate_operating(distances, right, fars=[1])
    group = within(result, np.array([True, True, True, False, False]))
    (metric,) = group.metrics
    assert (group.figure(metric), metric.n) == (50, 3)


def test_it_has_rows_with_intervals() -> None:
    generator = np.random.default_rng(3)
    right = np.arange(200) % 2 == 0
    distances = generator.normal(size=200) - right
    (row,) = rows("x", {0: evaluate_operating(distances, right, fars=[10], name="TPIR@FPIR", over="probes")})
    assert (row.metric, row.n, row.over) == ("TPIR@FPIR 10%", 200, "probes only")
    assert row.interval[0] < row.mean < row.interval[1]


@pytest.mark.parametrize(
    "distances, right, far, message",
    [
        ([1, 2], [True, True], 1, "all 2 pairs are right: nothing to tell"),
        ([1, 2], [False, False], 1, "all 2 pairs are wrong: nothing to tell"),
        ([1, np.nan], [True, False], 1, "1 pairs have scores that are not finite"),
        ([], [], 1, "no pair to verify"),
        ([1, 2], [True, False], 0, "a FAR is a percentage between 0 and 100, not 0"),
    ],
)
def test_bad_input_is_explained(distances: list[float], right: list[bool], far: float, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        evaluate_operating(distances, right, fars=[far])
