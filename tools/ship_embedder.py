"""Make the shipped embedder, `identity`, from a finished run of `polyface reproduce caricature:small`.

Takes seed 0 of `Best network across`, whose test people no setting was chosen by, and keeps what an embedding needs, in
half precision. What is stored is measured on WebCaricature's people and by LFW's pairs, both without people whom it was
trained on, beside dlib's network, which it began as. Writes the model card.

    python tools/ship_embedder.py --data DIR --runs runs/caricature-small
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface import protocols
from polyface.data.boxes import boxes_of
from polyface.data.readers.folder import Folder
from polyface.data.store import open_source
from polyface.data.table import FaceTable
from polyface.data.writing import write_table
from polyface.files import cache_folder
from polyface.inference.embedder import BundleEmbedder
from polyface.metrics.recognition.pairs import pair_distances
from polyface.metrics.recognition.verification import evaluate_verification
from polyface.models.bundle import Bundle, load_bundle
from polyface.networks.folding import chosen_embedding, embedding_only
from polyface.protocols.base import EvaluationSet
from polyface.reproduce import Job, folder
from polyface.tasks.identity import IdentityTask
from ship_models import TERMS

NAME, VARIANT, SEED, PEER = "identity", "Best network across", 0, "dlib"
CARD = """# {name}

Answers: no task; an embedding of {dim} numbers, to be compared by its angle: for `polyface gallery` and
`BundleEmbedder`. Input: {size}×{size} RGB, an upright crop by a face detector's five points.

**Terms.** {terms}.

**Training data.** {data}.

**Made by** `polyface reproduce caricature:small`, variant “{variant}”, seed {seed} (not chosen among the seeds);
stored in half precision.

| on people whom the training here did not show it | this model | dlib's network |
|---|---|---|
{figures}
WebCaricature: {faces:,} faces of 123 people; C2P looks a caricature up in a gallery of one photo a person, P2C the
reverse. LFW: {pairs:,} of the 6,000 published pairs, from images of 96 pixels.

By photos both networks very likely know WebCaricature's celebrities: about half of the photos that dlib's network
learned are of FaceScrub and VGG Face, which show celebrities. What is new to them here are the caricatures. People of
LFW were kept out of those photos, by its author's notes.

**Limits.** People in its training data are well-known adults; how it errs by gender, age or origin was not measured.
Likeness of two faces is no proof of identity. Do not use it to decide about people, nor to recognise anybody without
their consent.
"""


def embeddings(embedder: BundleEmbedder, bundle: Bundle, table: FaceTable) -> np.ndarray:
    """What the gallery would hold of every face of a table, [N, E]."""
    boxes, found = boxes_of(table, bundle.boxes).xyxy, []
    for start in range(0, len(table), 64):
        rows = range(start, min(start + 64, len(table)))
        faces = embedder.embed([table.image(row) for row in rows], [boxes[row : row + 1] for row in rows])
        found += [face.embedding for (face,) in faces]
    return np.stack(found)


def lfw_pairs(path: Path) -> list[tuple[str, str, bool]]:
    """The published pairs as paths, and whether they show one person."""
    found = []
    for line in path.read_text().splitlines()[1:]:
        words = line.split("\t")
        people = (words[0], words[2] if len(words) == 4 else words[0])
        one, two = (f"{name}/{name}_{int(n):04d}.jpg" for name, n in zip(people, (words[1], words[-1]), strict=True))
        found.append((one, two, len(words) == 3))
    return found


def lfw_table(data: Path) -> FaceTable:
    path = cache_folder("tables") / "lfw-images.parquet"
    if not path.exists():
        write_table(Folder(people=True).records(data / "lfw" / "lfw-deepfunneled"), path, on_bad="skip")
    return FaceTable.open(path)


def figures(bundle: Bundle, data: Path, known: set[str]) -> tuple[dict[str, float], int]:
    """Figures in percent of people who are not `known` to any of the models that are compared, and the LFW pairs."""
    embedder = BundleEmbedder(bundle)
    web = open_source("webcaricature", data, {"split": "test"}).where(split="test")
    protocol = protocols.build(protocols.settings("webcaricature"))
    answers = {NAME: {"embedding": embeddings(embedder, bundle, web)}}
    across = {
        prefix + metric.name: one.figure(metric)
        for prefix, one in protocol.evaluate(answers, protocol.cases(EvaluationSet(web))).items()
        for metric in one.metrics
    }
    searched = [f"{way} rank-{rank}" for way in ("C2P", "P2C") for rank in (1, 10)]
    out = {f"WebCaricature, {metric}, %": across[metric] for metric in searched}
    out["WebCaricature, VAL at 1 % FAR, %"] = across["VAL@1%"]
    pairs = [p for p in lfw_pairs(data / "lfw" / "pairs.txt") if not known & {q.split("/")[0].lower() for q in p[:2]}]
    table = lfw_table(data)
    place = {table.path(row): row for row in range(len(table))}
    rows = np.unique([place[path] for pair in pairs for path in pair[:2]])
    found = embeddings(embedder, bundle, table.take(rows))
    one, two = (
        found[np.searchsorted(rows, [place[path] for path in side])] for side in [*zip(*pairs, strict=True)][:2]
    )
    judged = evaluate_verification(pair_distances(one, two), [same for *_, same in pairs])
    out["LFW, verification, %"] = judged.figures["verification"].value
    out["LFW, AUC, %"] = judged.figures["AUC"].value
    return {key: round(value, 2) for key, value in out.items()}, len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/caricature-small"))
    parser.add_argument("--out", type=Path, default=Path("src/polyface/weights"))
    given = parser.parse_args()
    trained = load_bundle(folder(given.runs, Job(VARIANT, SEED)) / "across" / "model", quiet=True)
    peer = load_bundle(folder(given.runs, Job(PEER, SEED)) / "photos" / "model", quiet=True)
    known = {
        name.lower() for task in trained.tasks.values() if isinstance(task, IdentityTask) for name in task.vocabulary
    }
    about: dict[str, Any] = {
        "name": NAME,
        "terms": TERMS,
        "data": f"Caricatures and photos of {len(known)} people of CaVI, none of them in WebCaricature; it began as "
        "dlib's face recognition network (CC0; about 3 million photos, by its author's notes about half of them of "
        "FaceScrub and VGG Face)",
        "recipe": "caricature:small",
        "variant": VARIANT,
        "seed": SEED,
    }
    branch = chosen_embedding(trained.network, None, NAME)
    lean = Bundle(embedding_only(trained.network, branch), {}, trained.crop, trained.boxes, about)
    bundle = load_bundle(lean.save(given.out / NAME, torch.float16), quiet=True)  # what is measured is what is shipped
    found, pairs = figures(bundle, given.data, known)
    other, _ = figures(peer, given.data, known)
    bundle.about["figures"] = found
    place = bundle.save(given.out / NAME, torch.float16)
    card = CARD.format(
        **about | {"terms": TERMS.capitalize()},
        figures="".join(f"| {key} | {found[key]:.2f} | {other[key]:.2f} |\n" for key in found),
        dim=bundle.network.embeddings[branch].dim,
        size=bundle.crop.size,
        faces=len(open_source("webcaricature", given.data, {"split": "test"}).where(split="test")),
        pairs=pairs,
    )
    (place / "README.md").write_text(card)
    print(json.dumps(bundle.about | {"dlib": other}, indent=1))


if __name__ == "__main__":
    main()
