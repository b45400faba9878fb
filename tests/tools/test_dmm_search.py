"""The search for DMM-CNN's learning rates."""

from __future__ import annotations

import pytest

from polyface.reproduce.jobs import trains
from polyface.training.recipe import load

from .loading import TOOLS, tool


def test_every_row_of_tables_1_and_2_is_tried_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a network of their own, and those that tell where weights act; the recipe's own rate is among them."""
    monkeypatch.syspath_prepend(str(TOOLS))
    rates, recipe = tool("dmm_search").RATES, load("dmm-cnn:small")
    apart = (
        "pass",
        "Any size",
        "Longer",
        "paper network",
        "One level",
        "Groups",
        "Random",
        "Average",
        "points",
        "no land",
    )
    own = [name for name, row in recipe.variants.items() if trains(row) and row.stages == ["celeba"]]
    assert sorted(rates) == sorted(name for name in own if not any(word in name for word in apart))
    assert {len(tried) for tried in rates.values()} == {4}
    for name, tried in rates.items():
        assert recipe.variant(name).measured.optimisation.lr in tried
