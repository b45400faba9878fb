"""The search for DMM-CNN's learning rates."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from polyface.report.results import read_results
from polyface.reproduce.jobs import trains
from polyface.training.recipe import load

from .loading import TOOLS, tool

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return tool("dmm_search")


def test_every_row_of_the_tables_is_tried(search: ModuleType) -> None:
    """Those with a network of their own, and those that tell where weights act, at as many rates each."""
    recipe = load("dmm-cnn:small")
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
        "all faces",
    )
    own = [name for name, row in recipe.variants.items() if trains(row)]
    assert sorted(search.RATES) == sorted(name for name in own if not any(word in name for word in apart))
    assert {len(tried) for tried in search.RATES.values()} == {4}


def test_a_rate_that_diverges_is_worse_than_any(search: ModuleType) -> None:
    lines = [{"row": "AW", "rate": 0.001, "mean accuracy": 80.0}, {"row": "AW", "rate": 0.002, "diverged at": 7}]
    other = {"row": "DWA", "rate": 0.1}
    assert tool("trials").figures_of("AW", [*lines, other], search.figure) == {0.001: 80.0, 0.002: 0.0}


def test_the_recipe_has_the_rates_that_the_search_found(search: ModuleType) -> None:
    """Or one that is no worse than runs differ: by a tenth of a point, on LFWA's few validation faces a fifth."""
    recipe, found = load("dmm-cnn:small"), dict[str, dict[float, float]]()
    for row in read_results(DOCS / "results" / "dmm-cnn-search.json").rows:
        name, _, rate = row.row.removeprefix("trial ").rpartition(", ")
        if row.metric == "mean accuracy":
            found.setdefault(name, {})[float(rate)] = row.mean
    assert found.keys() == search.RATES.keys()
    for name, at in found.items():
        own = recipe.variant(name).measured.optimisation.lr
        assert at[own] >= max(at.values()) - (0.2 if name.startswith(search.LFWA) else 0.1), name
