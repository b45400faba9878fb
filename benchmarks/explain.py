"""Whether heat maps lie where what is asked is drawn, whether they depend on the network, and how long they take.

    python benchmarks/explain.py [--out FILE] [--quick]

The shipped model face5 on faces that are drawn, seen from the front: with glasses, whose map must lie on the eyes, and
smiling, whose map must lie on the mouth. "pointing" is the rate at which a map's largest value does (the pointing game,
Zhang et al. 2016), "chance" the region's share of the crop, over the faces that the model answers rightly; Grad-CAM is
told of the trunk's last map (4×4 places) and of the one before (7×7). Intervals are over faces. "rank correlation" is
that of the randomisation check (Adebayo et al. 2018) on photos of the demonstration: the largest of the means from half
of the layers on, which must be below 0.5. Seconds are of the processor, for a face after loading, on one thread.
Occlusion, which looks at a face some 200 times, is measured on fewer faces.
--quick tries every part on few faces and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from polyface.data.crops import cut, sample, transform
from polyface.data.synthetic import render
from polyface.demo.photos import people
from polyface.explain.maps import METHODS, TITLES
from polyface.explain.questions import question
from polyface.explain.regions import REGIONS, pointed, region_masks
from polyface.explain.sanity import LIMIT, SHARES, passes
from polyface.inference.explainer import Explainer
from polyface.metrics.resampling import percentile_interval, resampled_counts
from polyface.metrics.result import Row
from polyface.models import find
from polyface.models.bundle import Bundle, load_bundle
from polyface.report.results import write_results

MODEL, SEED = "face5", 5
ASKED = {"glasses=yes": ("glasses", "yes", "eyes"), "smile=yes": ("expression", "happiness", "mouth")}
"""What is asked: the factor that is drawn, its word, and the region where it is."""
FEW = 24
"""Faces for occlusion."""
LAYERS = {"": "", "trunk.stage4": ", 7×7 map"}


def figure(row: str, metric: str, values: ArrayLike) -> Row:
    """A rate over faces with its interval, in percent."""
    known = 100 * np.asarray(values, dtype=np.float64)
    counts = np.concatenate(list(resampled_counts(len(known))))
    ends = percentile_interval((counts @ known) / len(known)).ends
    return Row(row, metric, float(known.mean()), n=len(known), interval=ends, over="faces only")


def localisation(bundle: Bundle, faces: int) -> list[Row]:
    rows, spec = [], bundle.crop
    for asked, (factor, word, region) in ASKED.items():
        drawn = render(faces, 160, SEED, modality="photo", fixed={"yaw": 0.0, "roll": 0.0, factor: word})
        points = drawn.labels["landmarks_68"]
        boxes = np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], 1)
        cuts = torch.from_numpy(np.stack([cut(*each, spec) for each in zip(drawn.images, boxes, strict=True)]))
        images = sample(cuts, torch.from_numpy(spec.cut_to_input()).repeat(faces, 1, 1), spec.size)
        placed = transform(torch.from_numpy(spec.crops(boxes)), torch.from_numpy(points)).numpy()
        one = question(bundle.network, bundle.tasks, asked)
        with torch.no_grad():
            right = one.numbers(bundle.network(images)).argmax(1).numpy() == one.place
        images, place = images[right], REGIONS.index(region)
        masks = np.stack([region_masks(face, spec.size)[place] for face in placed[right]])
        rows.append(figure(f"{one.named} on the {region}", "chance", masks.mean((1, 2))))
        for method in METHODS:
            for layer in LAYERS if "cam" in method else [""]:
                batches = images[: FEW if method == "occlusion" else None].split(16)
                heat = torch.cat([METHODS[method](bundle.network, batch, one, layer) for batch in batches])
                name = f"{TITLES[method]}{LAYERS[layer]}: pointing"
                rows.append(figure(f"{one.named} on the {region}", name, pointed(heat.numpy(), masks[: len(heat)])))
    return rows


def dependence(
    model: str, asked: list[str], photos: list[Path], methods: list[str], like: Path | None = None
) -> list[Row]:
    found = Explainer(model).checked(photos, tasks=asked, methods=methods, like=like)
    rows = []
    for (told, method), correlations in found.items():
        means = correlations.mean(1)
        late = float(means[np.array(SHARES) >= 0.5].max())
        verdict = "passes" if passes(correlations) else f"fails: it must be below {LIMIT}"
        note = f"{verdict}; the answer's own layer random: {means[0]:.2f}, all layers: {means[-1]:.2f}"
        row = Row(f"{model} {told}", f"{TITLES[method]}: rank correlation", late, n=len(photos), unit="", note=note)
        rows.append(row)
    return rows


def seconds(model: str, asked: str, photo: Path, rounds: int, like: Path | None = None) -> list[Row]:
    """Of one photo, its face found already."""
    explainer, rows = Explainer(model), []
    (known,) = explainer(photo, tasks=[asked], methods=[], like=like)
    box = np.array([known.faces[0].face.box]) if known.faces else None
    for method in METHODS:
        times = []
        for _ in range(1 if method == "occlusion" else rounds + 1):
            start = time.process_time()
            list(explainer(photo, box, tasks=[asked], methods=[method], like=like))
            times.append(time.process_time() - start)
        taken = times[1:] or times
        row = Row(f"{model} {asked}", f"{TITLES[method]}: time", float(np.median(taken)), n=len(taken), unit="s")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/explain.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    everybody = people()[: 1 if given.quick else 8]
    smiling, other = [person.smiling for person in everybody], everybody[0].neutral
    quick = [name for name in METHODS if name != "occlusion"]
    rows = localisation(load_bundle(find(MODEL)), 8 if given.quick else 100)
    rows += dependence(MODEL, ["glasses", "smile", "gender", "landmarks=2.x"], smiling, quick)
    rows += dependence(MODEL, ["glasses", "smile"], smiling[:2], ["occlusion"])
    rows += dependence("identity", ["verification"], smiling, quick, other)
    rounds = 1 if given.quick else 3
    rows += seconds(MODEL, "smile", smiling[0], rounds) + seconds("identity", "verification", smiling[0], rounds, other)
    for row in rows:
        print(f"{row.row:32} {row.metric:44} {row.mean:7.2f} {row.unit} {row.note}")
    if not given.quick:
        data = "faces drawn by polyface.data.synthetic; the photos of the demonstration"
        write_results(given.out, rows, command="python benchmarks/explain.py", data=data)
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
