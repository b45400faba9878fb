"""What a reproduction's page says of caricatures and photos: curves, mistakes, embeddings."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from polyface.data.readers.common import Pair
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import squared_distances, unit_vectors
from polyface.metrics.recognition.verification import VerificationResult, mistakes
from polyface.metrics.sections import Text
from polyface.protocols.recognition import RecognitionResult, embedding_task, rows_by_modality
from polyface.report.faces import Picture, contact_sheet
from polyface.report.page import Block, FacesSection, Figure, Figures, Section, TextSection, side_by_side
from polyface.report.plots import PALETTE, plot_scatter
from polyface.reproduce.jobs import Job, stored
from polyface.reproduce.tables import Runs

_MOST_CURVES = 2 * len(PALETTE)  # of which the second half is dashed
_MOST_FACES = 400  # that t-SNE lays out in seconds
_DATA = {"cavi": "CaVI", "webcaricature": "WebCaricature"}


def recognition_sections(runs: Runs) -> list[Section]:
    """What there is to show of the variants that are measured by a protocol, those of one protocol and prefix together;
    nothing where there are none. Each is shown by one seed, the first that there is."""
    groups: dict[str, list[str]] = {}
    for name, variant in runs.recipe.variants.items():
        if (protocol := runs.stage(name).evaluation.protocol) and runs.seeds(name):
            about = ", ".join(filter(None, (_DATA[protocol], variant.prefix.strip())))
            groups.setdefault(about, []).append(name)
    return [section for about, names in groups.items() for section in _Group.of(runs, names, about).sections()]


@dataclass(frozen=True)
class _Group:
    """Variants that are measured on the same faces, all at one seed, and the name of the data in titles."""

    runs: Runs
    names: Sequence[str]
    seed: int
    about: str

    @classmethod
    def of(cls, runs: Runs, names: Sequence[str], about: str) -> _Group:
        seed = min(min(runs.seeds(name)) for name in names)
        return cls(runs, [name for name in names if seed in runs.seeds(name)], seed, about)

    def sections(self) -> list[Section]:
        found = {self._title(name): self.runs.recognition(name)[self.seed] for name in self.names}
        return [*curve_sections(found, self.about), *self._mistakes(), *self._embeddings()]

    def _title(self, name: str) -> str:
        return self.runs.recipe.variants[name].row or name

    def _table(self, name: str) -> FaceTable:
        return self.runs.faces.of(self.runs.stage(name, self.seed), "test").table

    def _proposed(self, names: Sequence[str]) -> str:
        """Of some variants that of which the recipe says that it is better than another, or else the last one."""
        better = {pair.better for pair in self.runs.recipe.comparisons}
        return ([name for name in names if name in better] or [*names])[-1]

    def _mistakes(self) -> list[Section]:
        verified = {name: self.runs.recognition(name)[self.seed].verification for name in self.names}
        judged = [name for name, result in verified.items() if result is not None]
        if not judged:
            return []
        name = self._proposed(judged)
        table, result = self._table(name), verified[name]
        if result is not None and result.over == "pairs":
            wrong = listed_mistakes(cast(VerificationResult, result), self.runs.faces.pairs(self.runs.stage(name)))
        else:
            answers = stored(self.runs.out, Job(name, self.seed))
            wrong = all_pairs_mistakes(answers[embedding_task(answers)]["embedding"], table)
        return [mistakes_section(f"Mistakes of {self._title(name)}: {self.about}", wrong, table)]

    def _embeddings(self) -> list[Section]:
        """The networks of one task, each beside the same task's branch of the network of several."""
        tasks = {name: list(self.runs.stage(name, self.seed).tasks) for name in self.names}
        shown = [(task, name) for name in self.names for task in tasks[name] if len(tasks[name]) == 1]
        if several := [name for name in self.names if len(tasks[name]) > 1]:
            alone, whole = {task for task, _ in shown}, self._proposed(several)
            shown += [(task, whole) for task in tasks[whole] if task in alone or not alone]
        table = self._table(shown[-1][1])
        answers = {name: stored(self.runs.out, Job(name, self.seed)) for _, name in shown}
        found: dict[str, ArrayLike] = {}
        order = list(dict.fromkeys(task for task, _ in shown))
        for task, name in sorted(shown, key=lambda one: order.index(one[0])):
            embedding = answers[name].get(task, {}).get("embedding", ())
            if len(embedding) == len(table):
                found[self._title(name) + (f", {task}" if name in several else "")] = embedding
        return [embeddings_section(f"Embeddings: {self.about}", found, table)] if found else []


# ------------------------------------------------------------------------------------------------------------- curves


def curve_sections(results: Mapping[str, RecognitionResult], about: str = "") -> list[Section]:
    """ROC and DET of the methods' verification and CMC of their retrieval, as far as there is any: the result of one
    seed of each method (as many methods as curves are told apart). about: which data, for the titles."""
    first = dict(list(results.items())[:_MOST_CURVES])
    left = ", ".join(list(results)[_MOST_CURVES:])
    note = "First seed." + (f" Not drawn: {left}." if left else "")
    keys = dict.fromkeys(key for one in first.values() for key in one.results)
    found = [{name: one.results[key] for name, one in first.items() if key in one.results} for key in keys]
    return [section for results_ in found for section in side_by_side(results_, about, note)]


# ----------------------------------------------------------------------------------------------------------- mistakes


Wrong = Mapping[str, Sequence[tuple[Pair, float]]]
"""What was mistaken for what, each pair with its squared distance, the clearest mistake first: "false positives"
(different people who are close), "false negatives" (one person who is far)."""


def listed_mistakes(result: VerificationResult, pairs: Sequence[Pair]) -> Wrong:
    """The pairs that were judged wrongly. `pairs` are those that were judged, in their order, or it is an error."""
    judged = np.array([pair.same for pair in pairs], dtype=bool)
    if not np.array_equal(judged, result.truth):
        raise PolyfaceError(f"the {len(pairs)} pairs are not the {result.n} that were judged")
    wrong = mistakes(result, result.n)
    return {kind: [(pairs[place], float(result.distances[place])) for place in found] for kind, found in wrong.items()}


def all_pairs_mistakes(embedding: ArrayLike, table: FaceTable, most: int = 2000) -> Wrong:
    """Of every caricature [N, E] with every photo, the `most` different people who are closest, and the `most` times
    that one person is farthest."""
    caricatures, photos = rows_by_modality(table).values()
    vectors, names = np.asarray(embedding), table.words("identity")
    distances = squared_distances(vectors[caricatures], vectors[photos])
    same = names[caricatures][:, None] == names[photos][None]
    found: dict[str, list[tuple[Pair, float]]] = {}
    for kind, of, sign in (("false positives", ~same, 1), ("false negatives", same, -1)):
        where = np.flatnonzero(of)
        worst = where[np.argsort(sign * distances.ravel()[where], kind="stable")[:most]]
        found[kind] = [
            (Pair(table.path(caricatures[i]), table.path(photos[j]), bool(same[i, j])), float(distances[i, j]))
            for i, j in zip(*np.unravel_index(worst, same.shape), strict=True)
        ]
    return found


def mistakes_section(title: str, wrong: Wrong, table: FaceTable, count: int = 12) -> Section:
    """The most confident wrong pairs, a caricature over its photo (Ming et al. 2021, Fig. 8). No image is shown twice.

    Raises:
        PolyfaceError: a pair whose image is not in the table.
    """
    groups = {kind: list(_apart(found))[:count] for kind, found in wrong.items()}
    named = {path for chosen in groups.values() for pair, _ in chosen for path in _paths(pair)}
    rows = {path: row for row in range(len(table)) if (path := table.path(row)) in named}
    if absent := sorted(named - rows.keys()):
        raise PolyfaceError(f"section '{title}': {absent[0]} is not in the table: give the part that was judged")
    people = table.words("identity")

    def shown(pair: Pair, distance: float) -> tuple[Picture, str]:
        places = [rows[path] for path in _paths(pair)]
        names = " / ".join(dict.fromkeys(str(people[row]).replace("_", " ") for row in places))
        both = contact_sheet([table.image(row) for row in places], columns=1, cell=240)
        return both, f"{names}: {distance:.2f}"

    text = (
        "A caricature over a photo each, with their squared distance, the clearest mistakes first. False positives are "
        "different people who were taken for one, false negatives one person who was taken for two."
    )
    faces = {kind.capitalize(): [shown(*one) for one in chosen] for kind, chosen in groups.items()}
    return FacesSection(title, faces, text)


def _paths(pair: Pair) -> tuple[str, str]:
    return pair.caricature, pair.photo


def _apart(wrong: Sequence[tuple[Pair, float]]) -> Iterator[tuple[Pair, float]]:
    """Those of the pairs that share no image with one before."""
    seen: set[str] = set()
    for pair, distance in wrong:
        if not seen & set(_paths(pair)):
            seen.update(_paths(pair))
            yield pair, distance


# --------------------------------------------------------------------------------------------------------- embeddings


def embeddings_section(
    title: str,
    embeddings: Mapping[str, ArrayLike],
    table: FaceTable,
    people: Sequence[str] = (),
    count: int = len(PALETTE),
    seed: int = 0,
) -> Section:
    """The embeddings {network: [N, E]} of a few people's faces, laid out in a plane by t-SNE, photos and caricatures
    with different markers (Ming et al. 2021, Fig. 2). people: by default those `count` who have the most faces of the
    rarer modality.

    Without scikit-learn the section says so. Source: van der Maaten & Hinton 2008.
    """
    if importlib.util.find_spec("sklearn") is None:
        return TextSection(title, ["Not drawn: t-SNE needs scikit-learn, `pip install polyface[explain]`."])
    chosen = list(people) or _most_pictured(table, count)
    names, modalities = table.words("identity"), table.words("modality")
    rows = np.flatnonzero(np.isin(names.astype(str), chosen))
    if absent := sorted(set(chosen) - set(names[rows])):
        raise PolyfaceError(f"section '{title}': no face of {absent[0]} is in the table")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_FACES])
    figures = []
    for network, embedding in embeddings.items():
        vectors = unit_vectors(embedding, f"embeddings of {network}")
        if len(vectors) != len(table):
            raise PolyfaceError(f"section '{title}': {len(vectors)} embeddings for {len(table)} faces")
        places = _plane(vectors[rows], seed)
        points = {
            name.replace("_", " "): {
                kind: places[(names[rows] == name) & (modalities[rows] == kind)] for kind in ("photo", "caricature")
            }
            for name in chosen
        }
        figures.append(Figure(plot_scatter(points), f"t-SNE of the embeddings of {network}", network))
    text = f"{len(rows)} faces of {len(chosen)} people, laid out by t-SNE: neighbours are alike to the network."
    return _Plots(title, text, figures)


def _most_pictured(table: FaceTable, count: int) -> list[str]:
    """The people with the most faces of the modality that they have fewer of."""
    shown = Counter(zip(table.words("identity"), table.words("modality"), strict=True))
    fewer = {name: min(shown[name, kind] for kind in ("photo", "caricature")) for name, _ in shown if name is not None}
    both = [name for name in fewer if fewer[name]]
    if not both:
        raise PolyfaceError("nobody in the table is on both a photo and a caricature: there is nothing to compare")
    return sorted(sorted(both, key=lambda name: (-fewer[name], name))[:count])


def _plane(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Vectors [N, E] laid out by t-SNE: [N, 2]."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(vectors) - 1) / 3))
    layout = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(layout.fit_transform(vectors))


@dataclass(frozen=True)
class _Plots:
    title: str
    text: str
    figures: Sequence[Figure]

    def blocks(self) -> Sequence[Block]:
        return [Text(self.text), Figures(self.figures, wide=True)]
