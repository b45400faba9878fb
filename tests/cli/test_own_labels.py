"""`polyface data`: somebody's own labels come in, are shown, and are learnt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from polyface.cli.data import app
from polyface.data.synthetic import records
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate_tables
from polyface.schema import Column
from polyface.training import recipe as recipes
from polyface.training import stages


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawn faces, with glasses as "mask" and what somebody might know of them."""
    folder = tmp_path_factory.mktemp("own")
    lines = ["file,sex,mask,beard length,x,y,w,h,gendre,split,sad,happy"]
    for i, face in enumerate(records(60, 48, seed=4)):
        Image.fromarray(face.image).save(folder / f"{i}.png")
        split = "val" if i > 47 else "train"
        lines.append(
            f"{i}.png,{'MF'[i % 2]},{face.labels['glasses']},{i / 10},4,4,40,40,{'ab'[i % 2]},{split},{i % 4},{3}"
        )
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


CHOICES = [part for text in ("sex=gender", "gender.M=male", "gender.F=female") for part in ("--map", text)]
CHOICES += ["--option", "columns.gendre=none", "--option", "columns.mood=distribution:happy,sad"]


def test_own_labels_reach_training(labels: Path, cache_folder: Path) -> None:
    table = labels / "t.parquet"
    said = run("import", "csv", labels / "labels.csv", table, *CHOICES)
    for line in (
        "sex → gender 60 labelled words (male, female)",
        "mask 60 labelled words (no, yes)",
        "beard length 60 labelled number",
        "happy, sad → mood 60 labelled distribution (happy, sad)",
        "x, y, w, h → box 60 labelled box read as xywh",
        "left out: gendre: as asked; nearest known: 'gender' (--map gendre=gender)",
        "60 faces, 0 skipped",
    ):
        assert line in said
    shown = run("show", table, "--picture", labels / "sheet.png", "--count", "3")
    assert "gender 60 labelled male 30, female 30" in shown
    assert "beard length 60 labelled 0 … 5.9" in shown
    one = Image.open(labels / "sheet.png").size
    tree = {
        "name": "own",
        "stages": [
            {
                "name": "one",
                "data": {
                    "tables": [{"name": str(table)}],
                    "boxes": {"source": "table"},
                    "crop": {"size": 40, "channels": 1},
                    "augment": {"mirror": 0.5},
                    "batch": 24,
                },
                "network": {"trunk": {"name": "tcdcn"}},
                "tasks": {
                    "mask": {"kind": "classification", "column": "mask", "weights": "balanced", "smoothing": 0.1},
                    "mood": {"kind": "classification", "column": "mood"},
                    "beard": {
                        "kind": "classification",
                        "column": "beard length",
                        "edges": [2, 4],
                        "vocabulary": ["short", "middle", "long"],
                    },
                },
                "evaluation": {"main": "mask"},
                "optimisation": {"epochs": 1},
            }
        ],
    }
    (labels / "own.yaml").write_text(json.dumps(tree))
    run("show", table, "--picture", labels / "sheet2.png", "--count", "3", "--recipe", labels / "own.yaml")
    assert Image.open(labels / "sheet2.png").size == one
    options = stages.RunOptions(accelerator="cpu", logger="none")
    result = stages.run(recipes.load(labels / "own.yaml"), labels / "runs", None, options)["one"]
    bundle = load_bundle(result.bundle, quiet=True)
    assert bundle.tasks["mask"].config()["vocabulary"] == ["no", "yes"]
    assert set(bundle.tasks["mask"].config()["weights"]) == {"no", "yes"}
    results = {name.strip(): one for name, one in evaluate_tables(bundle, [str(table)], None, "val").results.items()}
    assert results["mask"].n == results["beard"].n == 12
    assert results["mood"].n == 9  # of the other three each word has a half
    assert results["beard"].labels == ("short", "middle", "long")


def test_a_typo_in_the_labels_stops_the_import(labels: Path) -> None:
    text = (labels / "labels.csv").read_text().replace("7.png,F", "7.png,Fm", 1)
    (labels / "typo.csv").write_text(text)
    with pytest.raises(PolyfaceError, match=r"typo\.csv:9: gender is 'Fm'; known: female, male"):
        run("import", "csv", labels / "typo.csv", labels / "u.parquet", *CHOICES)
    assert not (labels / "u.parquet").exists()


@pytest.mark.parametrize(
    "wrong, expected",
    [
        (("--map", "sex"), "--map sex: expected NAME=COLUMN"),
        (("--map", "sex=gender", "--map", "sex.M=male"), "'sex' has a value of its own"),
        (("--option", "colums.sex=words"), "unknown option 'colums'; did you mean 'columns'"),
    ],
)
def test_wrong_options_of_an_import(labels: Path, wrong: tuple[str, ...], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        run("import", "csv", labels / "labels.csv", labels / "u.parquet", *wrong)


def test_show_counts_soft_labels_and_any_words(labels: Path) -> None:
    rows = [{"file": f"{i}.png", "mood": {"sad": i, "happy": 1}, "note": "ab"[i % 2]} for i in range(3)]
    (labels / "l.json").write_text(json.dumps(rows))
    run("import", "json", labels / "l.json", labels / "j.parquet", "--option", "columns.note=words")
    assert FaceTable.open(labels / "j.parquet").declared("mood") == Column("distribution", ("happy", "sad"))
    shown = run("show", labels / "j.parquet")
    assert "mood 3 labelled mostly happy 1, sad 1" in shown  # of the third both have a half
    assert "note 3 labelled a 2, b 1" in shown


def test_the_documents_example_is_what_is_said(labels: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (command,) = re.findall(r"^polyface data import csv labels.csv faces.parquet (.*)$", text, re.M)
    table = labels.parent / "faces.parquet"
    rows = (labels / "labels.csv").read_text().split("\n")
    plain = [",".join(row.split(",")[:8]) for row in rows]
    (labels / "plain.csv").write_text("\n".join([f"{plain[0]},note", *(f"{row}," for row in plain[1:])]))
    said = run("import", "csv", labels / "plain.csv", table, *command.split())
    (block,) = re.findall(r"```text\n(.*?)```", text, re.S)
    told = [" ".join(line.split()).replace("faces.parquet:", f"{table}:") for line in block.strip().split("\n")]
    assert [line for line in told if line not in said] == []
