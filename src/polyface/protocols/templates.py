"""Templates, several pictures and videos of a person that are compared as one, as IJB-A has them: 1:1 and 1:N."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.readers.common import TemplateSplit
from polyface.errors import PolyfaceError
from polyface.metrics.folds import pooled
from polyface.metrics.recognition.operating import evaluate_operating
from polyface.metrics.recognition.pairs import Indices, checked_fars, unit_vectors
from polyface.metrics.recognition.retrieval import evaluate_retrieval
from polyface.metrics.resampling import Bools, Floats
from polyface.metrics.result import Result
from polyface.protocols.base import Answers, Cases, Embedded, EvaluationSet, embedded

VERIFIED, CLOSED, OPEN = "", "closed-set ", "open-set "
"""The prefixes of the results: verification, and searches with the probe's person in the gallery, or perhaps not."""


@dataclass(frozen=True)
class SplitCases:
    """What is compared in one split. people: who each template [T] shows. faces, weights: of each, the rows that are
    averaged, and the share of each in the mean. pairs [N, 2], probes, gallery: places of templates."""

    people: NDArray[Any]
    faces: Sequence[Indices]
    weights: Sequence[Floats]
    pairs: Indices
    probes: Indices
    gallery: Indices

    @property
    def mated(self) -> Bools:
        """Whether a probe's person is in the gallery [P]."""
        return np.isin(self.people[self.probes], self.people[self.gallery])

    def pool(self, faces: Embedded) -> Embedded:
        """Embeddings of faces [N, E] → of templates [T, E]: the mean over media of the mean over a medium's faces.

        Compared by cosine, it is divided by its length: that of a mean of unit vectors says how much these agree, not
        who it is. A mean of vectors that are compared by their products is left as it is: its product with another is
        the mean of those of their faces. Faces that cancel each other out are as near to everybody: the product is 0.
        """
        vectors = np.asarray(faces.vectors, np.float64) if faces.inner else unit_vectors(faces.vectors)
        each = zip(self.faces, self.weights, strict=True)
        means = np.stack([weight @ vectors[rows] for rows, weight in each])
        if not faces.inner:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
        return Embedded(means, inner=True)


@dataclass(frozen=True)
class TemplateCases(Cases):
    """What is compared, by split."""

    splits: Sequence[SplitCases]


class Templates:
    """Templates of faces, verified in pairs (TAR@FAR), and sought in a gallery of templates: closed-set rank-1 and
    rank-5 of probes whose person is in it, and open-set TPIR@FPIR. Figures are means over the splits of the data set.

    A template is the mean over its media of the mean over the faces of each, so that a video of a hundred frames has no
    more say than a picture. reader: of the data set that lists them, by default the first of the evaluated ones that
    does. list: which split, by default all. fars: false acceptance rates, in percent, at which verification is
    measured. fpirs: shares of the probes of strangers, in percent, that may be found; a probe whose person is in the
    gallery counts if it is nearest to that person, and near enough. Both thresholds are read off the split itself.
    ranks: of the closed-set search. embedding: the task whose embedding is compared, or the name of an embedding that
    is no task's, where there are several.
    """

    def __init__(
        self,
        reader: str = "",
        list: str = "",
        fars: Sequence[float] = (1.0, 0.1),
        fpirs: Sequence[float] = (10.0, 1.0),
        ranks: Sequence[int] = (1, 5),
        embedding: str = "",
    ) -> None:
        self.fars, self.fpirs = checked_fars(fars), checked_fars(fpirs)
        self.reader, self.list, self.ranks, self.embedding = reader, list, ranks, embedding

    def cases(self, faces: EvaluationSet) -> TemplateCases:
        """The templates of each split and what is compared of them.

        Raises:
            PolyfaceError: no data set lists templates, a face of one is not in the table, or there is none to compare.
        """
        listed: Mapping[str, TemplateSplit] = faces.ask(self.reader, "templates", self.list)
        splits = [_split(faces, one) for one in listed.values() if one.pairs or one.probes]
        if not splits:
            raise PolyfaceError(f"none of {len(listed)} splits has templates to compare: are their images there?")
        pairs = [np.concatenate([one.faces[a], one.faces[b]]) for one in splits for a, b in one.pairs]
        closed, strangers = (
            [one.faces[probe] for one in some for probe in one.probes]
            for some in (splits, [one for one in splits if not one.mated.all()])
        )
        return TemplateCases(faces, {VERIFIED: pairs, CLOSED: closed, OPEN: strangers}, splits)

    def evaluate(self, answers: Answers, cases: TemplateCases) -> Mapping[str, Result]:
        """Verification and both searches, those that the splits have."""
        compared = embedded(answers, self.embedding, cases.faces.table)
        found: dict[str, list[Result]] = {}
        for split in cases.splits:
            for prefix, result in self._evaluate(split, split.pool(compared)):
                found.setdefault(prefix, []).append(result)
        return {prefix: pooled(results, f"{len(results)} splits") for prefix, results in found.items()}

    def _evaluate(self, split: SplitCases, templates: Embedded) -> Iterator[tuple[str, Result]]:
        """The results of a split by their prefix."""
        if len(split.pairs):
            first, second = split.pairs.T
            same = split.people[first] == split.people[second]
            yield VERIFIED, evaluate_operating(templates.pairs(first, second), same, fars=self.fars)
        if len(split.probes):
            distances = templates.between(split.probes, split.gallery)
            probes, gallery = split.people[split.probes], split.people[split.gallery]
            yield CLOSED, evaluate_retrieval(distances, probes, gallery, ranks=self.ranks)
            if not split.mated.all():
                nearest = _nearest(distances, probes[:, None] == gallery, split.mated)
                yield OPEN, evaluate_operating(nearest, split.mated, fars=self.fpirs, name="TPIR@FPIR", over="probes")


def _nearest(distances: Floats, same: Bools, mated: Bools) -> Floats:
    """How far the nearest template of the gallery is from each probe [P]; of a probe whose person is in the gallery and
    not nearest (ties lose), farther than any."""
    own, others = (np.where(kind, distances, np.inf).min(1) for kind in (same, ~same))
    return np.asarray(np.where(mated & (own >= others), distances.max() + 1, np.minimum(own, others)))


def _split(faces: EvaluationSet, listed: TemplateSplit) -> SplitCases:
    place = {name: at for at, name in enumerate(listed.templates)}
    templates = listed.templates.values()
    return SplitCases(
        np.array([one.person for one in templates]),
        [faces.rows_of([path for medium in one.media for path in medium], "templates") for one in templates],
        [_shares([len(medium) for medium in one.media]) for one in templates],
        np.array([[place[name] for name in pair] for pair in listed.pairs], dtype=np.intp).reshape(-1, 2),
        np.array([place[name] for name in listed.probes], dtype=np.intp),
        np.array([place[name] for name in listed.gallery], dtype=np.intp),
    )


def _shares(sizes: Sequence[int]) -> Floats:
    """The share of each face in the mean over media that hold so many."""
    return np.repeat(1 / (len(sizes) * np.array(sizes, dtype=np.float64)), sizes)
