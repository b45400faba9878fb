"""The papers' figures: consistent with themselves, findable, and honest about what differs."""

from __future__ import annotations

import pytest

from polyface.errors import PolyfaceError
from polyface.report.published import PUBLISHED, STATEMENTS, lookup, published


@pytest.mark.parametrize("method", ["ESR", "SDM", "LBF", "TCDCN", "TCDCN-Averaged"])
def test_the_full_set_is_the_weighted_mean_of_its_parts(method: str) -> None:
    """300-W: full = (554 common + 135 challenging) / 689, which Table 1 satisfies to its rounding."""
    found = [lookup("tcdcn", method, f"mean error, 300-W {subset}") for subset in ("full", "common", "challenging")]
    full, common, challenging = (figure.value for figure in found if figure)
    assert full == pytest.approx((554 * common + 135 * challenging) / 689, abs=0.015)


def test_figures_are_unique_and_have_a_source() -> None:
    for figures in PUBLISHED.values():
        assert len({(figure.row, figure.metric) for figure in figures}) == len(figures)
        assert all(figure.source and figure.value > 0 for figure in figures)
    assert all(statement.text and statement.source for entries in STATEMENTS.values() for statement in entries)
    assert set(STATEMENTS) <= set(PUBLISHED)


def test_figures_measured_on_images_that_are_not_public_say_so() -> None:
    assert all("IBUG" in figure.differs for figure in published("tcdcn") if "300-W" in figure.metric)


def test_lookup_tells_absent_figures_from_unknown_papers() -> None:
    assert lookup("tcdcn", "FLD", "mean error") is None
    figure = lookup("tcdcn", "TCDCN", "time per face, CPU")
    assert figure is not None
    assert (figure.value, figure.unit) == (17, "ms")
    with pytest.raises(PolyfaceError, match="'tcdn': did you mean 'tcdcn'"):
        published("tcdn")
