"""What `polyface demo` does: shipped models on photos, a short training, a search in a gallery, all on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps

from polyface.data.detector import RetinaFace
from polyface.data.table import Progress
from polyface.demo.photos import CREDIT, Person, people, portrait
from polyface.files import check_output
from polyface.gallery import Gallery
from polyface.gallery.format import MANIFEST
from polyface.inference import Analyzer, BundleEmbedder, ImageResult, draw
from polyface.metrics.sections import Table, Text
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.report.page import Section, faces_section, measured_section, photo_section, write_report
from polyface.reproduce.pages import figure_rows, recipe_section, training_section
from polyface.training import stages
from polyface.training.recipe import Recipe, load

THREADS = 1
"""Of torch and of the detector: what is computed here is small, and threads that wait for each other on a busy machine
cost more than they bring."""

_SIDE = 200  # pixels of a photo in a pair


def demonstrate(out: Path, own: Path | None, changes: Sequence[str], progress: Progress | None = None) -> Path:
    """Show what Polyface does on one page, `out`/report.html, and return its path.

    own: a photo to analyse in place of matplotlib's portrait. changes: of the training's recipe, as `--set` takes them.
    """
    page = out / "report.html"
    check_output(page, inputs=[own] if own else [])
    torch.set_num_threads(THREADS)
    everybody, analyzer = people(), Analyzer(detector=RetinaFace(threads=THREADS))
    photos, set_photos = [_photo(own or portrait(), analyzer)], _two_photos_each(everybody, analyzer, progress)
    recipe = load("synthetic", changes)
    sections = [
        *([*photos, *set_photos] if own else [*set_photos, *photos]),
        *_training(recipe, out, progress),
        *_search(out / "gallery", everybody, progress),
        recipe_section(recipe),
    ]
    return write_report(page, "Polyface: one face, many questions", sections)


def _photo(path: Path, analyzer: Analyzer) -> Section:
    """The shipped models' answers drawn on a photo, and in words."""
    (found,) = analyzer(path)
    about = (
        f"{len(found.faces)} face(s). Each line of the table is one: where it is, in pixels, and what the shipped "
        "models answer, each answer with its probability."
    )
    return photo_section(f"A photo: {path.name}", draw(path, found), about, found.table())


def _two_photos_each(everybody: Sequence[Person], analyzer: Analyzer, progress: Progress | None) -> list[Section]:
    """The shipped models' answers about people whose gender and smiles are known."""
    neutral = analyzer([person.neutral for person in everybody], progress=progress)
    smiling = analyzer([person.smiling for person in everybody], progress=progress)
    faces = {
        name: [
            (_face(one), f"{who.name}: smile {_word(one, 'smile')}") for who, one in zip(everybody, found, strict=True)
        ]
        for name, found in (("Neutral", neutral), ("Smiling", smiling))
    }
    rows = [
        [person.name, person.gender, _word(calm, "gender"), _word(calm, "smile"), _word(happy, "smile")]
        for person, calm, happy in zip(everybody, neutral, smiling, strict=True)
    ]
    gender = sum(person.gender == _answer(calm, "gender") for person, calm in zip(everybody, neutral, strict=True))
    smile = [_answer(one, "smile") for one in neutral].count("no") + [_answer(one, "smile") for one in smiling].count(
        "yes"
    )
    text = (
        "Each line is a person: the gender that the set gives, the one that the model answers on the neutral photo, "
        "and whether the model sees a smile on the neutral and on the smiling photo. "
        f"Gender is right for {gender} of {len(everybody)} people, the smile on {smile} of {2 * len(everybody)} photos."
    )
    header = ["person", "gender in the set", "gender answered", "smile, neutral photo", "smile, smiling photo"]
    title = f"{len(everybody)} people, two photos each"
    return [
        faces_section(title, faces, f"With the landmarks of face5 and face68. {CREDIT}"),
        Section("What the models answer about them", [Text(text), Table(header, rows)]),
    ]


def _answer(result: ImageResult, task: str) -> str:
    """The answer about a photo's first face."""
    return result.faces[0].labels[task][0] if result.faces else "no face found"


def _word(result: ImageResult, task: str) -> str:
    """The answer about a photo's first face, with its probability where there is one."""
    chance = f" ({100 * result.faces[0].labels[task][1]:.0f} %)" if result.faces else ""
    return _answer(result, task) + chance


def _face(result: ImageResult) -> Image.Image:
    """A photo with its points drawn, cut around its first face."""
    picture = draw(result.path, result, labels=False)
    if not result.faces:
        return picture
    x0, y0, x1, y1 = (float(value) for value in result.faces[0].box)
    side, x, y = 0.75 * max(x1 - x0, y1 - y0), (x0 + x1) / 2, (y0 + y1) / 2
    return picture.crop((round(x - side), round(y - side), round(x + side), round(y + side)))


def _training(recipe: Recipe, out: Path, progress: Progress | None) -> list[Section]:
    """A network trained here on rendered faces, measured on others of them."""
    options = stages.RunOptions(accelerator="cpu", progress=progress, threads=THREADS)
    stage = recipe.measured
    trained = stages.run(recipe, out, None, options)[stage.name]
    bundle = load_bundle(trained.bundle, quiet=True)
    found = evaluate(bundle, stages.pool_of(stage, None, bundle.tasks), progress=progress)
    rows = [row for prefix, one in found.results.items() for row in figure_rows(prefix.strip(), one)]
    text = (
        f"One network learnt {len(bundle.tasks)} tasks at once in {trained.seconds:.0f} seconds "
        f"({bundle.about['precision']}), from faces that Polyface draws itself. Each line is one figure of one task on "
        f"{len(found.pool):,} faces that it did not see. Balanced accuracy is the mean over the answers of how often "
        "each is recognised: guessing gives 50 % where there are two, 33 % where there are three. Figures on drawn "
        "faces say nothing about real ones."
    )
    return [
        measured_section("A network trained now", rows, text=text),
        training_section("Its training", trained.history),
    ]


def _search(folder: Path, everybody: Sequence[Person], progress: Progress | None) -> list[Section]:
    """Everybody enrolled by the neutral photo in a gallery, and looked for by the smiling one."""
    embedder = BundleEmbedder(detector=RetinaFace(threads=THREADS))
    known = (folder / MANIFEST).exists()
    with Gallery.open(folder, embedder, write=True) if known else Gallery.create(folder, embedder) as gallery:
        gallery.enrol([p.neutral for p in everybody], [p.name for p in everybody], progress=progress)
        found = gallery.search([p.smiling for p in everybody], top=2, progress=progress)
    rows, pairs, right = [], [], 0
    for person, result in zip(everybody, found, strict=True):
        matches = result.faces[0].matches if result.faces else ()
        rows.append([person.name, *(text for match in matches for text in (match.person, f"{match.similarity:.2f}"))])
        if matches:
            right += matches[0].person == person.name
            pairs.append((_beside(person.smiling, Path(str(matches[0].path))), f"{person.name}: {matches[0].person}"))
    text = (
        f"A gallery holds the neutral photos of {len(everybody)} people. Each line is a search by a smiling photo with "
        "the shipped model identity: who is nearest, who comes next, and the cosine similarity of both. The nearest is "
        f"the same person in {right} of {len(everybody)} searches. `polyface gallery search {folder} PHOTO` searches "
        "it again."
    )
    header = ["smiling photo of", "nearest", ">similarity", "next", ">similarity"]
    shown = "Left: the photo that is searched by; right: the nearest photo of the gallery."
    return [
        Section("Who is it? A search in a gallery", [Text(text), Table(header, rows)]),
        faces_section("What the search found", {"": pairs}, f"{shown} {CREDIT}"),
    ]


def _beside(left: Path, right: Path) -> Image.Image:
    """Two photos side by side, each reduced to its middle, where the face is."""
    pair = Image.new("RGB", (2 * _SIDE, _SIDE))
    for number, path in enumerate((left, right)):
        pair.paste(ImageOps.fit(Image.open(path).convert("RGB"), (_SIDE, _SIDE)), (number * _SIDE, 0))
    return pair
