"""What the page shows of caricatures and photos beside the figures: mistakes, and maps of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.explain.embeddings import NEEDS, can_lay_out, most_pictured, plane
from polyface.explain.mistakes import of_all_pairs, of_listed_pairs
from polyface.metrics.sections import Text
from polyface.protocols.base import embedding_name
from polyface.report.page import Figure, Figures, Section
from polyface.report.pairs import mistakes_section
from polyface.report.plots import PALETTE, plot_scatter
from polyface.reproduce.runs import Runs

KINDS = ("photo", "caricature")
_MOST_FACES = 400  # that t-SNE lays out in seconds


def sections(runs: Runs) -> list[Section]:
    """Of the variants that are evaluated on the same faces, those of one protocol and prefix, the mistakes of the
    proposed one and the embeddings of all: by the first seed that any has."""
    groups: dict[str, list[str]] = {}
    for name, variant in runs.recipe.variants.items():
        if runs.seeds(name):
            about = variant.prefix.strip() or runs.stage(name).name
            groups.setdefault(about, []).append(name)
    made: list[Section] = []
    for about, names in groups.items():
        seed = min(min(runs.seeds(name)) for name in names)
        having = [name for name in names if seed in runs.seeds(name)]
        made += [*_mistakes(runs, having, seed, about), *_embeddings(runs, having, seed, about)]
    return made


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
