"""Whether weights follow the hardest task, and whom the detector misses: rows; the course of weights and losses,
mistakes, and maps of embeddings: pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.explain.embeddings import NEEDS, can_lay_out, most_pictured, plane
from polyface.explain.mistakes import of_all_pairs, of_listed_pairs
from polyface.metrics.resampling import summarise
from polyface.metrics.result import Row
from polyface.metrics.sections import Curves, Text
from polyface.protocols.base import embedding_name
from polyface.report.page import Figure, Figures, Section
from polyface.report.pairs import mistakes_section
from polyface.report.plots import PALETTE, plot_scatter
from polyface.reproduce.jobs import trains
from polyface.reproduce.runs import Runs
from polyface.training.course import in_tenth, shares

KINDS = ("photo", "caricature")
STAYING = ("fixed", "uniform")
"""Weightings whose weights stay as they are."""
TENTHS = {"hardest weighted first": 0, "hardest weighted last": 9}
HARDEST = "caricature"
DETECTOR, DETECTED = "Detector", ("detector", "points")
"""The row of faces that are not found, and the sources of boxes in which it looks for them."""
_MOST_FACES = 400  # that t-SNE lays out in seconds


def rows(runs: Runs) -> list[Row]:
    """Of every training of several tasks in which share of the iterations caricatures have the largest loss; where
    weights move, in which share of the first and of the last tenth the largest weight lies on the largest loss (Fig. 6
    in two numbers); and how many faces of each test the detector does not find, which are cropped without it."""
    followed = [row for name, courses in _courses(runs).items() for row in _followed(runs, name, courses)]
    return followed + _missed(runs)


def _courses(runs: Runs) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The course of every training of several tasks that has kept one, by variant and seed."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for name, variant in runs.measured.items():
        for seed in runs.seeds(name) if trains(variant) else ():
            course = (runs.record(name, seed) or {}).get("course")
            if course and any(course["compared"]):
                found.setdefault(name, {})[seed] = course
    return found


def _moves(runs: Runs, name: str) -> bool:
    return runs.stage(name).weighting.name not in STAYING


def _followed(runs: Runs, name: str, courses: Mapping[int, Mapping[str, Any]]) -> Iterator[Row]:
    hardest = f"{HARDEST} hardest"
    notes = {hardest: f"iterations in which {HARDEST} has the largest loss"}
    found = {hardest: {seed: shares(one).get(HARDEST) for seed, one in courses.items()}}
    for metric, tenth in TENTHS.items() if _moves(runs, name) else ():
        notes[metric] = "iterations in which the largest weight lies on the largest loss"
        found[metric] = {seed: shares(one, in_tenth(one, tenth)).get("") for seed, one in courses.items()}
    for metric, by_seed in found.items():
        if told := {seed: 100 * share for seed, share in by_seed.items() if share is not None}:
            figure, called = summarise([*told.values()]), runs.recipe.variants[name].prefix + metric
            yield Row(runs.title(name), called, figure.mean, figure.std, seeds=tuple(told), note=notes[metric])


def _missed(runs: Runs) -> list[Row]:
    """Of each test by the first variant that has it; a network has no part in it."""
    found: dict[str, Row] = {}
    for name, variant in runs.measured.items():
        seed, stage = min(runs.seeds(name), default=None), runs.stage(name)
        about = [f"{variant.prefix}missed {kind}s" for kind in KINDS]
        if seed is None or variant.splits or about[0] in found or stage.data.boxes.source not in DETECTED:
            continue
        pool = runs.faces.of(stage, "test")
        for metric, kind in zip(about, KINDS, strict=True):
            missed = pool.undetected[pool.table.words("modality") == kind]
            if len(missed):
                note = f"{missed.sum():,} test faces in which the detector finds none"
                found[metric] = Row(DETECTOR, metric, 100 * float(missed.mean()), None, len(missed), (seed,), note=note)
    return list(found.values())


def sections(runs: Runs) -> list[Section]:
    """The course of the weights and losses of every training whose weights move; and, of the variants that are
    evaluated on the same faces, those of one protocol and prefix, the mistakes of the proposed one and the embeddings
    of all. All by the first seed that any has."""
    groups: dict[str, list[str]] = {}
    for name, variant in runs.recipe.variants.items():
        if runs.seeds(name):
            about = variant.prefix.strip() or runs.stage(name).name
            groups.setdefault(about, []).append(name)
    made = [_course(name, *min(courses.items())) for name, courses in _courses(runs).items() if _moves(runs, name)]
    for about, names in groups.items():
        seed = min(min(runs.seeds(name)) for name in names)
        having = [name for name in names if seed in runs.seeds(name)]
        made += [*_mistakes(runs, having, seed, about), *_embeddings(runs, having, seed, about)]
    return made


def _course(name: str, seed: int, course: Mapping[str, Any]) -> Section:
    """Weights and losses by iteration (Figs. 6, 7), about a hundred points of each, means over as many iterations."""
    each = {
        part: {task: (course["step"], np.array(values, dtype=float)) for task, values in course[part].items()}
        for part in ("weight", "loss")
    }
    blocks = [
        Curves(curves, "iteration", part, f"{part.capitalize()} per task (seed {seed}).", y_log=part == "loss")
        for part, curves in each.items()
    ]
    return Section(f"Weights and losses by iteration: {name}", blocks)


def _proposed(runs: Runs, names: Sequence[str]) -> str:
    """Of some variants the last of which the recipe says that it is better than another, or else the last one."""
    better = {pair.better for pair in runs.recipe.comparisons}
    return ([name for name in names if name in better] or [*names])[-1]


def _mistakes(runs: Runs, names: Sequence[str], seed: int, about: str) -> Iterator[Section]:
    results = {name: runs.results(name)[seed].get("") for name in names}
    if not (verified := [name for name, result in results.items() if result is not None]):
        return
    name = _proposed(runs, verified)
    _, cases = runs.protocol(name, seed)
    table, result = cases.faces.table, results[name]
    if result is not None and result.over == "pairs":
        wrong = of_listed_pairs(result, cases.lists[""].rows)  # type: ignore[arg-type]
    else:
        answers = runs.answers(name, seed)
        wrong = of_all_pairs(answers[embedding_name(answers, "verification")]["embedding"], table, *cases.pairs)
    yield mistakes_section(f"Mistakes of {runs.title(name)}: {about}", wrong, table)


def _embeddings(runs: Runs, names: Sequence[str], seed: int, about: str) -> Iterator[Section]:
    """The networks of one task, each beside the same task's branch of the network of several."""
    tasks = {name: list(runs.stage(name, seed).tasks) for name in names}
    shown = [(task, name) for name in names for task in tasks[name] if len(tasks[name]) == 1]
    if several := [name for name in names if len(tasks[name]) > 1]:
        alone, whole = {task for task, _ in shown}, _proposed(runs, several)
        shown += [(task, whole) for task in tasks[whole] if task in alone or not alone]
    order = list(dict.fromkeys(task for task, _ in shown))
    _, cases = runs.protocol(shown[-1][1], seed)
    found: dict[str, ArrayLike] = {}
    for task, name in sorted(shown, key=lambda one: order.index(one[0])):
        embedding = runs.answers(name, seed).get(task, {}).get("embedding", ())
        if len(embedding) == len(cases.faces.table):
            found[runs.title(name) + (f", {task}" if name in several else "")] = embedding
    if found:
        yield embeddings_section(f"Embeddings: {about}", found, cases.faces.table)


def embeddings_section(
    title: str,
    embeddings: Mapping[str, ArrayLike],
    table: FaceTable,
    people: Sequence[str] = (),
    count: int = len(PALETTE),
    seed: int = 0,
) -> Section:
    """The embeddings {network: [N, E]} of a few people's faces, laid out in a plane by t-SNE, photos and caricatures
    with different markers (Fig. 2). people: by default those `count` who have the most faces of the rarer modality.
    Without scikit-learn the section says so."""
    if not can_lay_out():
        return Section(title, [Text(f"Not drawn: {NEEDS}.")])
    chosen = list(people) or most_pictured(table, "modality", KINDS, count)
    names, modalities = table.words("identity"), table.words("modality")
    rows = np.flatnonzero(np.isin(names.astype(str), chosen))
    if absent := sorted(set(chosen) - set(names[rows])):
        raise PolyfaceError(f"section '{title}': no face of {absent[0]} is in the table")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_FACES])
    figures = []
    for network, embedding in embeddings.items():
        vectors = np.asarray(embedding)
        if len(vectors) != len(table):
            raise PolyfaceError(f"section '{title}': {len(vectors)} embeddings for {len(table)} faces")
        places = plane(vectors[rows], seed)
        points = {
            name.replace("_", " "): {kind: places[(names[rows] == name) & (modalities[rows] == kind)] for kind in KINDS}
            for name in chosen
        }
        figures.append(Figure(plot_scatter(points), f"t-SNE of the embeddings of {network}", network))
    text = f"{len(rows)} faces of {len(chosen)} people, laid out by t-SNE: faces side by side are alike to the network."
    return Section(title, [Text(text), Figures(figures, wide=True)])
