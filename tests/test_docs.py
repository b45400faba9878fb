"""Tables in the documents are what the results files say; nothing in them was typed by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from polyface.report.results import read_results

from .tools.loading import tool

documents = tool("documents")

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


def test_tables_match_the_results_files() -> None:
    stale = documents.documents_are_current(DOCUMENTS, ROOT / "docs" / "results")
    assert not stale, "run: python tools/documents.py docs README.md"


def test_an_edited_table_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "tcdcn.md"
    copy.write_text((ROOT / "docs" / "tcdcn.md").read_text())
    documents.update_document(copy, ROOT / "docs" / "results")
    assert not documents.documents_are_current([copy], ROOT / "docs" / "results")
    text = copy.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| modern trunk 112"))
    copy.write_text(text.replace(row, row.replace("7", "6", 1)))
    assert documents.documents_are_current([copy], ROOT / "docs" / "results")


def test_an_edited_figure_of_the_readme_is_noticed(tmp_path: Path) -> None:
    copy, text = tmp_path / "README.md", (ROOT / "README.md").read_text()
    figures = re.findall(r"<!-- figure: .*?-->(.*?)<!-- /figure -->", text)
    assert len(figures) >= 5
    copy.write_text(text.replace(figures[0] + "<!-- /figure -->", "1.00 %<!-- /figure -->", 1))
    assert documents.documents_are_current([copy], ROOT / "docs" / "results")


def test_the_readme_tells_the_five_systems_and_little_before_them() -> None:
    before, _, after = (ROOT / "README.md").read_text().partition("## Five published systems")
    assert len(before.splitlines()) < 60  # one and a half screens
    rows = [line for line in after.partition("\nEvery figure")[0].splitlines() if line.startswith("|")][2:]
    assert len(rows) == 5
    for row in rows:
        assert "polyface reproduce" in row or "not built yet" in row


LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#]+)")


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    gone = [target for target in LINK.findall(path.read_text()) if not (path.parent / target).exists()]
    assert not gone


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_say_what_measured_them(path: Path) -> None:
    results = read_results(path)
    about = json.loads(path.read_text())
    assert results.rows
    assert all(about[key] for key in ("command", "commit", "machine", "data", "date"))
    assert all(math.isfinite(row.mean) for row in results.rows)


def test_every_weighting_is_in_the_documents() -> None:
    from polyface.weighting import WEIGHTINGS

    text = (ROOT / "docs" / "weighting.md").read_text()
    assert [name for name in WEIGHTINGS.names() if f"`{name}`" not in text] == []


def test_the_weighting_example_runs() -> None:
    """Somebody's own loop: features, two losses, and the printed lines."""
    import torch

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "weighting.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "polyface.weighting" in block]
    trunk, heads = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)
    features = trunk(torch.randn(16, 4))
    loss_a, loss_b = (heads(features) - torch.tensor([1.0, 5.0])).square().mean(0)
    exec(example, {"features": features, "loss_a": loss_a, "loss_b": loss_b})
    assert trunk.weight.grad is not None
    assert trunk.weight.grad.any()
