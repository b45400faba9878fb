"""Heat maps over pictures: what is bright, what stays grey, and how a sheet is laid out."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.report.heat import heat_sheet, overlay

GREY = np.full((20, 20, 3), 128, np.uint8)


def test_the_largest_values_are_the_brightest_and_an_empty_map_leaves_grey() -> None:
    heat = np.zeros((20, 20))
    heat[5, 5], heat[10, 10] = 1, 0.5
    drawn = np.asarray(overlay(GREY, heat)).sum(-1).astype(int)
    assert drawn[5, 5] == drawn.max() > drawn[10, 10] > drawn[0, 0]
    nothing = np.asarray(overlay(GREY, np.zeros((20, 20))))
    assert (nothing == nothing[0, 0]).all()
    assert np.ptp(nothing[0, 0].astype(int)) < 10  # grey
    assert (np.asarray(overlay(GREY, 1e-9 * heat)) == np.asarray(overlay(GREY, heat))).all()  # whatever its unit
    with pytest.raises(PolyfaceError, match=r"a map \[10, 20\] does not fit its picture \[20, 20\]"):
        overlay(GREY, np.zeros((10, 20)))


def test_a_sheet_has_a_column_a_method_or_of_one_method_a_column_a_task() -> None:
    heat, titles = np.ones((20, 20)), {"cam": "Grad-CAM", "gradients": "guided backprop"}
    tasks = ("a", "b", "c")
    one = heat_sheet(GREY, {(task, "cam"): heat for task in tasks}, titles, cell=100)
    both = heat_sheet(GREY, {(task, method): heat for task in tasks for method in titles}, titles, cell=100)
    assert (round(one.width / 100), round(both.width / 100)) == (4, 3)  # the face, then a column each
    assert one.height < 200 < both.height
