"""Shares of a whole: by hand, over faces drawn again, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.metrics.result import differences, rows
from polyface.metrics.shares import AREA, evaluate_shares

PARTS = ["eyes", "rest"]
MASS = [[1, 3], [2, 2], [0, 0], [np.nan, np.nan]]
AREAS = [[10, 90], [30, 70], [20, 80], [np.nan, np.nan]]


def test_a_share_is_the_mean_over_faces_that_have_any() -> None:
    found = evaluate_shares("share of mass", PARTS, MASS, AREAS)
    made = {row.key: row for row in rows("net", {0: found})}
    assert made["net: eyes", "share of mass"].mean == pytest.approx((25 + 50) / 2)  # of each face, not of all mass
    assert made["net: rest", "share of mass"].mean == pytest.approx((75 + 50) / 2)
    assert made["net: eyes", AREA].mean == pytest.approx((10 + 30) / 2)  # of the same faces
    assert made["net: eyes", "share of mass"].interval == (25, 50)
    assert made["net: eyes", "share of mass"].n == 2
    assert made["net: eyes", "share of mass"].notes[0] == "2 faces left out"
    assert made["net: eyes", AREA].interval is None  # the same whatever the network is


def test_two_networks_are_compared_face_by_face() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(1, 2, (50, 2))
    second = first * [1.1, 1]
    areas = np.ones((50, 2))
    a, b = (evaluate_shares("share", PARTS, mass, areas) for mass in (second, first))
    (row,) = (row for row in differences("a", "b", {0: a}, {0: b}) if row.row.endswith("eyes"))
    assert row.interval is not None
    assert 0 < row.interval[0] <= row.mean <= row.interval[1]


@pytest.mark.parametrize(
    "mass, line",
    [
        ([[0, 0], [np.nan, np.nan]], "share: no face has any"),
        ([[-1, 2]], "a mass below 0 cannot be shared out"),
        ([[1, 2, 3]], r"mass \[1, 3\] and areas"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(mass: list[list[float]], line: str) -> None:
    with pytest.raises(PolyfaceError, match=line):
        evaluate_shares("share", PARTS, mass, np.ones((len(mass), 2)))
