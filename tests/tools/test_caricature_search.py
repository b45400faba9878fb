"""The search for the settings of caricature: as many trials for each weighting, and the best of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from polyface.training.recipe import load

from .loading import TOOLS, tool


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)  # where it finds its neighbour
    return tool("caricature_search")


def test_every_weighting_has_as_many_trials(search: ModuleType) -> None:
    """At the same rates, of rows that the recipe has and at keys that the rows take."""
    rates: dict[str, list[float]] = {}
    recipes = {name: load(name) for name in ("caricature:small", "caricature:optimisers")}
    for source, row, changes in search.TRIALS.values():
        assert row in recipes[source].variants
        if "cavi.optimisation.lr" in changes:
            rates.setdefault(row, []).append(changes["cavi.optimisation.lr"])
            recipes[source].variants[row].set |= changes
            assert recipes[source].variant(row).measured.optimisation.lr == rates[row][-1]
    for kind, count in {"IRv1": 4, "Toy": 2, "RMSProp": 7}.items():
        (same,) = Counter(tuple(each) for row, each in rates.items() if kind in row).items()
        assert same[1] == count


def test_the_best_trial_is_by_the_mean_of_what_a_row_is_judged_by(
    search: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [
        {"verification": 90.0, "visual id": 90.0, "caricature id": 60.0, "AUC": 99.0},  # 80
        {"verification": 80.0, "visual id": 90.0, "caricature id": 76.0, "AUC": 10.0},  # 82
    ]
    lines = [
        {"trial": f"RMSProp: D, {lr}", "row": "D", "settings": {"lr": lr}, "figures": one}
        for lr, one in zip((0.1, 0.3), figures, strict=True)
    ]
    other = {"trial": "weighting gls", "row": "D", "settings": {}, "figures": dict.fromkeys(figures[0], 99.0)}
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in [*lines, other]))
    search.best(tmp_path / "log")
    assert capsys.readouterr().out == "D: {'lr': 0.3} (82.00 %, of 2 trials)\n"
