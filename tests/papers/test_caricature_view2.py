"""Tables 3 to 5 as published, from the files of WebCaricature to the rows: on made-up files in its layout."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from polyface import reproduce
from polyface.data.images import encode_png
from polyface.metrics.result import Row
from polyface.papers import paper
from polyface.training import stages
from polyface.training.recipe import load

from ..data import published

CHANGES = [
    "within.init=null",
    "variants.* view 2 *.start=null",
    "variants.* view 2 *.seeds=2",
    "within.data.tables.0.faces=null",
    "within.data.boxes={source: image}",
    "within.data.crop={size: 40, channels: 3, scale: 1.0}",
    "within.data.batch=32",
    "within.network={trunk: {name: tcdcn, channels: 3}, branches: {verification: &b {kind: linear, width: 16, "
    "similarity: cosine}, visual: *b, caricature: *b}, heads: {verification: verification, visual: visual, "
    "caricature: caricature}}",
    "within.optimisation.epochs=2",
    "within.optimisation.lr=0.01",
]


def picture(name: str, image: str) -> bytes:
    """A pattern of the person's own, and noise of the picture's."""
    own, noise = (np.random.default_rng(zlib.crc32(word.encode())) for word in (name, name + image))
    pattern = np.kron(own.integers(40, 216, (4, 4, 3)), np.ones((10, 10, 1)))
    return encode_png((pattern + noise.integers(-30, 30, pattern.shape)).astype(np.uint8))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    published.webcaricature(data / "webcaricature", picture)
    recipe = load("caricature:view2", CHANGES)
    for name, variant in recipe.variants.items():
        if "view 2" in name:
            variant.set["within.data.tables"][0]["faces"] = None
    todo = reproduce.jobs(recipe, ["Dynamic view 2 *"])
    reproduce.run_jobs(recipe, todo, data, out, stages.RunOptions(accelerator="cpu", threads=1, logger="none"))
    runs = reproduce.Runs(recipe, data, out)
    made = reproduce.collect(runs, out / "rows.json", "command", "webcaricature", paper("caricature").figures)
    return {row.metric: row for row in made if row.row == "Dynamic"}


def test_table_3_is_of_the_pairs_of_two_folds(rows: dict[str, Row]) -> None:
    """24 pairs a fold, half of them of one person; thresholds are picked on nine tenths of them."""
    found = rows["within VAL@1%"]
    assert (found.n, found.seeds, found.published) == (24, (0, 1), 83.2)
    assert "over 10 folds" in found.note
    assert rows["within AUC"].mean > 60


@pytest.mark.parametrize("way, probes, printed", [("C2P", 12, 87.3), ("P2C", 18, 84.0)])
def test_tables_4_and_5_are_of_the_listed_galleries(
    rows: dict[str, Row], way: str, probes: int, printed: float
) -> None:
    """Six people a fold, whom training does not show, with one gallery; chance is one in six."""
    found = rows[f"within {way} rank-1"]
    assert (found.n, found.seeds, found.published) == (probes, (0, 1), printed)
    assert "draws" not in found.note
    assert found.mean > 100 / 6
