"""Make the shipped models from finished runs of `polyface reproduce tcdcn`: two TCDCNs stand in for the larger two.

Picks the seed by validation loss, measures on test faces and on sets the model never saw, stores in half precision, and
writes the model cards.

    python tools/ship_models.py --data DIR --runs runs/tcdcn
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import polyface
from polyface.data.boxes import boxes_of
from polyface.data.loader import FacePool
from polyface.data.store import open_source
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import predict
from polyface.protocols.evaluation import evaluate
from polyface.reproduce import Job, folder
from polyface.schema import eyes, five_of_68
from polyface.training.recipe import Recipe, load
from polyface.training.stages import pool_of

TERMS = "research use only: trained on data sets that forbid commercial use; no warranty"
MTFL = "MTFL (10,000 training faces, of which 1,000 only for validation)"
DENSE = "Helen, LFPW and AFW (2,012 training faces), after MTFL's training faces for the trunk"
MODELS = {
    "face5": ("modern trunk 112", MTFL),
    "face68": ("68 modern trunk 112, common", DENSE),
    "tcdcn5": ("FLD+all, 60 epochs (shared)", MTFL),
    "tcdcn68": ("68 transfer, common", DENSE),
}
STANDS_IN = {"tcdcn5": "face5", "tcdcn68": "face68"}
"""Small models, which answer only when they are named → the models in whose place they do."""
STANDS_IN_LINE = "Smaller and quicker than `{}`; it answers only when it is named."


def best_seed(recipe: Recipe, variant: str, runs: Path) -> int:
    """The seed of lowest final validation loss of the landmarks; the test faces have no say."""
    stage = recipe.variant(variant).stages[-1].name
    losses = {}
    for seed in range(10):
        path = folder(runs, Job(variant, seed)) / stage / "history.json"
        if path.exists():
            losses[seed] = json.loads(path.read_text())["history"][-1]["validation"]["landmarks"]
    return min(losses, key=lambda seed: losses[seed])


def figures(bundle: Bundle, recipe: Recipe, variant: str, data: Path) -> dict[str, Any]:
    stage = recipe.variant(variant).stages[-1]
    found = evaluate(bundle, pool_of(stage, data, bundle.tasks))
    out: dict[str, Any] = {}
    for prefix, result in found.results.items():
        for metric in result.metrics:
            out[f"{prefix.strip()}: {metric.name}, {metric.unit}"] = round(result.figure(metric), 2)
    return out


def held_out(bundle: Bundle, data: Path, folder_: Path) -> dict[str, Any]:
    """face5 on people and photographers it never saw: five points of Helen-test, gender and smile of the London set."""
    if "gender" not in bundle.tasks:
        return {}
    table = open_source("300w", data).where(split="test", source=["Helen"])
    tasks = {"landmarks": bundle.tasks["landmarks"]}
    truth = five_of_68(table.points("landmarks_68"))
    pool = FacePool.unlabelled(table, boxes_of(table, bundle.boxes), bundle.crop)
    points = predict(bundle.network, tasks, pool)["landmarks"]["points"]
    result = evaluate_landmarks(points, truth, eyes=eyes(5))
    out: dict[str, Any] = {
        "Helen test, five points: mean error, %": round(result.mean_error, 2),
        "Helen test, five points: failure rate, %": round(result.failure_rate, 2),
    }
    with open(data / "london" / "london_info.csv") as file:
        people = {row["face_id"]: row["face_gender"] for row in csv.DictReader(file)}
    smile, gender = [], []
    for kind in ("neutral_front", "smiling_front"):
        for image in polyface.analyze(data / "london" / kind, models=[folder_]):
            if image.faces:
                labels = image.faces[0].labels
                smile.append((labels["smile"][0] == "yes") == (kind == "smiling_front"))
                sex = people.get(Path(image.path).stem[:3])
                if sex:
                    gender.append(labels["gender"][0] == sex)
    return out | {
        f"London set, {len(smile)} photos: smile accuracy, %": round(100 * float(np.mean(smile)), 2),
        f"London set, {len(gender)} photos: gender accuracy, %": round(100 * float(np.mean(gender)), 2),
    }


CARD = """# {name}

Answers: {tasks}. Input: {size}×{size} {colours}, cropped by a face detector's box.{stands_in}

**Terms.** {terms}.

**Training data.** {data}.

**Made by** `polyface reproduce tcdcn`, variant “{variant}”, seed {seed}, chosen by its validation loss among the seeds;
stored in half precision.

| on test faces (never used to choose anything) | |
|---|---|
{figures}
{held_out}
**Limits.** Labels of gender, where given, are the annotators' impression, binary, and say nothing of identity. Faces in
MTFL, Helen, LFPW and AFW are mostly of adults, frontal to half-profile; profiles and faces under 30 pixels are less
exact. Do not use it to decide about people.
"""


def lines(values: dict[str, Any]) -> str:
    return "".join(f"| {key} | {value} |\n" for key, value in values.items())


def card(name: str, about: dict[str, Any], bundle: Bundle) -> str:
    other = about["held out"]
    return CARD.format(
        name=name,
        tasks=", ".join(bundle.tasks),
        size=bundle.crop.size,
        colours="grey" if bundle.crop.channels == 1 else "RGB",
        stands_in=f" {STANDS_IN_LINE.format(STANDS_IN[name])}" if name in STANDS_IN else "",
        terms=about["terms"].capitalize(),
        data=about["data"],
        variant=about["variant"],
        seed=about["seed"],
        figures=lines(about["figures"]),
        held_out=f"| on sets it was not trained on | |\n|---|---|\n{lines(other)}" if other else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/tcdcn"))
    parser.add_argument("--out", type=Path, default=Path("src/polyface/weights"))
    given = parser.parse_args()
    recipe = load("tcdcn")
    for name, (variant, data) in MODELS.items():
        stage = recipe.variant(variant).stages[-1].name
        if not folder(given.runs, Job(variant, 0)).exists():
            print(f"{name}: no finished run of '{variant}' yet")
            continue
        seed = best_seed(recipe, variant, given.runs)
        bundle = load_bundle(folder(given.runs, Job(variant, seed)) / stage / "model", quiet=True)
        bundle.about = {"name": name, "terms": TERMS, "data": data, "recipe": "tcdcn", "variant": variant, "seed": seed}
        if name in STANDS_IN:
            bundle.about["stands in for"] = STANDS_IN[name]
        place = bundle.save(given.out / name, torch.float16)
        bundle = load_bundle(place, quiet=True)  # what is measured is what is shipped
        bundle.about["figures"] = figures(bundle, recipe, variant, given.data)
        bundle.about["held out"] = held_out(bundle, given.data, place)
        bundle.save(place, torch.float16)
        (place / "README.md").write_text(card(name, bundle.about, bundle))
        print(name, json.dumps(bundle.about, indent=1))


if __name__ == "__main__":
    main()
