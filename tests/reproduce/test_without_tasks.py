"""A variant whose last stage trains no tasks: trained once, shown on the page, measured nowhere, started from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from polyface import reproduce
from polyface.errors import PolyfaceError
from polyface.metrics.sections import Curves
from polyface.models.bundle import load_bundle
from polyface.report.page import Figures
from polyface.report.results import read_results
from polyface.reproduce.pages import training_section
from polyface.reproduce.tables import collect
from polyface.training import stages
from polyface.training.recipe import Recipe, load

RECIPE = """
name: small
defaults:
  data:
    tables: [{name: synthetic, options: {n: 80, size: 48}}]
    boxes: {source: table}
    crop: {size: 16, channels: 1}
    batch: 16
stages:
  - name: encoder
    learner: adversarial
    network:
      trunk: {name: began, size: 16, widths: [4, 4, 4, 4]}
      latent: 4
      decoder: {width: 4, convolutions: [1, 1]}
    optimisation: {epochs: 2}
  - name: smiles
    network:
      trunk: {name: began, size: 16, widths: [4, 4, 4, 4], frozen: true}
      parts: {face: {}}
      heads: {smile: face}
    tasks: {smile: {kind: classification, column: smile}}
    init: {source: encoder, parts: [trunk]}
    evaluation: {main: smile}
    optimisation: {epochs: 1}
variants:
  BEGAN: {stages: [encoder], seeds: 1}
  smile: {stages: [smiles], seeds: 1, start: BEGAN}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> reproduce.Runs:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(RECIPE)
    recipe = load(folder / "small.yaml")
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    assert [job.variant for job in reproduce.jobs(recipe)] == ["BEGAN", "smile"]
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), None, folder, options)
    return reproduce.Runs(recipe, None, folder)


def test_it_is_finished_without_answers_and_others_start_from_it(runs: reproduce.Runs) -> None:
    recipe, out = runs.recipe, runs.out
    assert all(reproduce.finished(recipe, out, job) for job in reproduce.jobs(recipe))
    assert not (out / "BEGAN/seed0/test.npz").exists()
    first, last = (
        load_bundle(out / place / "model").network for place in ("BEGAN/seed0/encoder", "smile/seed0/smiles")
    )
    for name, value in first.trunk.state_dict().items():
        assert (last.trunk.state_dict()[name] == value).all(), name
    retrained = _changed(recipe, {"encoder.objective.gamma": 0.7})
    assert not reproduce.finished(retrained, out, reproduce.Job("BEGAN", 0))


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    variants = {"BEGAN": recipe.variants["BEGAN"].model_copy(update={"set": changes})}
    return recipe.model_copy(update={"variants": variants})


def test_it_has_no_row_and_the_page_shows_its_equilibrium_and_sheets(runs: reproduce.Runs, tmp_path: Path) -> None:
    rows = collect(runs, tmp_path / "results.json", "command", "synthetic")
    assert {row.row.partition(":")[0] for row in rows} == {"smile"}
    assert {row.row for row in read_results(tmp_path / "results.json").rows} == {row.row for row in rows}
    page = reproduce.table_report(tmp_path / "report.html", runs, tmp_path / "results.json").read_text()
    assert "Training: BEGAN (seed 0)" in page
    assert "Sheets: BEGAN (seed 0)" in page
    assert "Sheets: smile" not in page
    for shown in ("Generated faces.", "Faces, and below each what encoder and decoder make of it.", "latent vectors."):
        assert shown in page
    assert page.count("k over epoch of") == page.count("M over epoch of") == 1


def test_where_nothing_else_is_finished_its_page_is_made_all_the_same(runs: reproduce.Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.out / "BEGAN", tmp_path / "BEGAN")
    alone = reproduce.Runs(runs.recipe, None, tmp_path)
    assert collect(alone, tmp_path / "results.json", "command", "synthetic") == []
    page = reproduce.table_report(tmp_path / "report.html", alone, tmp_path / "results.json").read_text()
    assert "Sheets: BEGAN (seed 0)" in page
    assert reproduce.printed(runs.recipe, tmp_path / "results.json") == ""
    nothing = reproduce.Runs(runs.recipe, None, tmp_path / "empty")
    with pytest.raises(PolyfaceError, match="no finished run to collect"):
        collect(nothing, tmp_path / "results.json", "command", "synthetic")


def test_an_equilibrium_is_drawn_a_plot_a_number() -> None:
    history = [
        {"epoch": 1, "train": {"real": 0.3, "generated": 0.1}, "equilibrium": {"k": 0.0, "M": 0.4}},
        {"epoch": 2, "train": {"real": 0.2, "generated": 0.1}, "equilibrium": {"k": 0.1, "M": 0.3}},
    ]
    losses, *others = (block for block in training_section("t", history).blocks if isinstance(block, Curves))
    assert losses.caption == "Loss"  # of no tasks
    assert [(block.y_label, block.curves) for block in others] == [
        ("k", {"": ([1, 2], [0.0, 0.1])}),
        ("M", {"": ([1, 2], [0.4, 0.3])}),
    ]


def test_a_record_shows_no_file_from_elsewhere(runs: reproduce.Runs, tmp_path: Path) -> None:
    """What a record names is looked for in the stage's own folder of sheets."""
    from polyface.reproduce.pages import _stage_sections

    history = runs.out / "BEGAN/seed0/encoder/history.json"
    text = history.read_text()
    (tmp_path / "secret.png").write_bytes(b"secret")
    history.write_text(text.replace('"samples.png"', f'"{tmp_path / "secret.png"}"'))
    sections = _stage_sections(runs, reproduce.Job("BEGAN", 0), "encoder")
    history.write_text(text)
    (block,) = sections[-1].blocks
    assert isinstance(block, Figures)
    assert [figure.alt.split()[0] for figure in block.figures] == ["Faces,", "From"]
