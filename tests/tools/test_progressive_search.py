"""The search for learning rates where few faces have labels."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from polyface.report.results import read_results
from polyface.training.recipe import load

from .loading import TOOLS, tool


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return tool("progressive_search")


def test_every_row_of_few_faces_is_tried_at_as_many_rates(search: ModuleType) -> None:
    """Those of 4,000 faces have the rates of 1,000."""
    few = [name for name in load("progressive:small").variants if name.endswith(" faces")]
    assert {name for name in few if not name.endswith(" 4,000 faces")} == search.RATES.keys()
    assert {len(rates) for rates in search.RATES.values()} == {5}


def test_only_searches_that_are_finished_are_told(
    search: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(row: str, rate: float, figure: float) -> dict[str, object]:
        figures = {"emotion": figure, "emotion balanced accuracy": 1.0}
        return {"row": row, "rate": rate, "faces": 9, "seconds": 1, "figures": figures}

    done, open_ = "from scratch, 250 faces", "encoder frozen, 250 faces"
    rates = (0.000025, 0.00005, 0.0001, 0.0002, 0.0005)
    lines = [line(done, rate, figure) for rate, figure in zip(reversed(rates), (1, 3, 2, 1, 0), strict=True)]
    lines.append(line(open_, 0.0002, 5.0))
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    search.write(lines)
    rows = read_results(tmp_path / "docs/results/progressive-rates.json").rows
    told = [(row.row, row.mean) for row in rows if row.metric == "emotion"]
    assert told == [(f"trial {done}, {rate:g}", n) for rate, n in zip(rates, (0, 1, 2, 3, 1), strict=True)]
