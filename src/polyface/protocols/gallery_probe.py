"""Search of a gallery that holds one face a person, as WebCaricature, Multi-PIE and IJB-A have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyface.errors import PolyfaceError, check_names
from polyface.metrics.clusters import clustered, together
from polyface.metrics.recognition.all_pairs import evaluate_all_pairs
from polyface.metrics.recognition.pairs import Indices
from polyface.metrics.recognition.retrieval import draw_gallery, evaluate_retrieval
from polyface.metrics.resampling import Bools
from polyface.metrics.result import Result
from polyface.protocols.base import (
    PEOPLE,
    Answers,
    Cases,
    EvaluationSet,
    Words,
    embedded,
    people_of,
    rows_by_person,
    tasks_by_person,
)
from polyface.protocols.listed_pairs import FARS

PROBES = "probes"


@dataclass(frozen=True)
class Search:
    """Rows of the probes, of the faces that galleries are of, and of each gallery among these; which of the faces a
    probe is never found as, [probes, faces]; and kinds of probes by name, [probes] each."""

    probes: Indices
    faces: Indices
    galleries: Sequence[Indices]
    never: Bools
    groups: Mapping[str, Bools]


@dataclass(frozen=True)
class SearchCases(Cases):
    """Searches by the prefix of their metrics, and the faces of both kinds of which all pairs are verified."""

    searches: Mapping[str, Search]
    pairs: tuple[Indices, Indices] | None


class GalleryProbe:
    """The place of a probe's own person among the faces of a gallery, nearest first: rank-1, rank-10.

    searches: prefix of the metrics → {probes, gallery}, the words of the faces that are sought and of those that are
    searched; by default every face is sought among one face of each other person and of its own. Galleries of one face
    a person are drawn `draws` times by `seed`. reader: instead, the data set that lists probes and galleries, and
    `list`, which of its lists. verify: the prefix of a search of which, beside it, all pairs are verified. embedding:
    the task whose embedding is compared, or the name of an embedding that is no task's, where there are several;
    distances are squared Euclidean ones.

    groups: name → the words of a kind of probes, each with a rank-1 of its own ({turned: {pose: [left, right]}} gives
    "rank-1 turned"). apart: a column of moments, such as one of pictures that several cameras took at once: a probe is
    never found as a face of its own moment; where the gallery has no other face of its person, it is not judged. over:
    "probes" are resampled for intervals, or "people", each with all of theirs. tasks: over people, these tasks too, by
    their own figures on all faces that are labelled for them, the first of which is called as the task is.
    """

    def __init__(
        self,
        searches: Mapping[str, Mapping[str, Words]] | None = None,
        reader: str = "",
        list: str = "",
        draws: int = 10,
        seed: int = 0,
        verify: str = "",
        embedding: str = "",
        groups: Mapping[str, Words] | None = None,
        apart: str = "",
        over: str = PROBES,
        tasks: Sequence[str] = (),
    ) -> None:
        self.searches, self.reader, self.list = searches or {"": {}}, reader, list
        self.draws, self.seed, self.verify, self.embedding = draws, seed, verify, embedding
        self.groups, self.apart, self.over, self.tasks = groups or {}, apart, over, tasks
        check_names([over], (PROBES, PEOPLE), "evaluation.protocol.over")
        if tasks and over != PEOPLE:
            raise PolyfaceError(f"evaluation.protocol.tasks needs over: {PEOPLE}, which searches and tasks both are of")
        for prefix, asked in self.searches.items():
            if unknown := asked.keys() - {"probes", "gallery"}:
                raise PolyfaceError(f"searches.{prefix}: unknown key '{min(unknown)}'; there are probes and gallery")
        if verify and verify not in self.searches:
            raise PolyfaceError(f"verify is '{verify}', which is none of the searches {', '.join(self.searches)}")

    def cases(self, faces: EvaluationSet) -> SearchCases:
        """Who is sought among whom.

        Raises:
            PolyfaceError: no face has the words of probes or gallery, or a face of them is nobody's.
        """
        searches = self._listed(faces) if self.reader else self._drawn(faces)
        units: dict[str, Any] = {
            prefix: rows_by_person(faces, one.probes, "probes") if self.over == PEOPLE else one.probes[:, None]
            for prefix, one in searches.items()
        }
        verified = searches[_prefix(self.verify)] if self.verify else None
        pairs = (verified.probes, verified.faces) if verified else None
        if pairs:
            units[""] = rows_by_person(faces, np.concatenate(pairs), "verification")
        return SearchCases(faces, units, searches, pairs)

    def _drawn(self, faces: EvaluationSet) -> dict[str, Search]:
        found = {}
        for prefix, asked in self.searches.items():
            probes, gallery = (faces.rows(asked.get(kind, {})) for kind in ("probes", "gallery"))
            people = people_of(faces, gallery, "gallery")
            people_of(faces, probes, "probes")
            galleries = draw_gallery(people, self.draws, self.seed)
            found[_prefix(prefix)] = self._search(faces, probes, gallery, galleries)
        return found

    def _listed(self, faces: EvaluationSet) -> dict[str, Search]:
        found = {}
        for prefix, listed in faces.ask(self.reader, "searches", self.list).items():
            probes, gallery = (faces.rows_of(paths, "lists") for paths in (listed.probes, listed.gallery))
            found[_prefix(prefix)] = self._search(faces, probes, gallery, [np.arange(len(gallery))])
        return found

    def _search(self, faces: EvaluationSet, probes: Indices, gallery: Indices, galleries: Sequence[Indices]) -> Search:
        never = probes[:, None] == gallery
        if self.apart:
            moments = faces.table.words(self.apart)
            known = np.array([moment is not None for moment in moments[probes]])
            never |= known[:, None] & (moments[probes][:, None] == moments[gallery])
        groups = {name: np.isin(probes, faces.rows(words)) for name, words in self.groups.items()}
        for name, kind in groups.items():
            if not kind.any():
                raise PolyfaceError(f"evaluation.protocol.groups.{name}: none of the {len(probes)} probes is of it")
        return Search(probes, gallery, galleries, never, groups)

    def evaluate(self, answers: Answers, cases: SearchCases) -> Mapping[str, Result]:
        """Verification of all pairs, if it is asked for, and the searches."""
        faces, found = cases.faces, {}
        embedding = embedded(answers, self.embedding, faces.table)
        if cases.pairs:
            first, second = cases.pairs
            people = (people_of(faces, rows, "verification") for rows in cases.pairs)
            found[""] = evaluate_all_pairs(embedding.between(first, second), *people, fars=FARS, seed=self.seed)
        retrieved: dict[str, Result] = {}
        for prefix, search in cases.searches.items():
            probes = people_of(faces, search.probes, "probes")
            retrieved[prefix] = evaluate_retrieval(
                embedding.between(search.probes, search.faces),
                probes,
                people_of(faces, search.faces, "gallery"),
                galleries=search.galleries,
                never=search.never,
                groups=search.groups,
            )
            if self.over == PEOPLE:
                retrieved[prefix] = clustered(retrieved[prefix], probes, PEOPLE)
        if self.tasks:
            told_with, beside = next(iter(retrieved)), tasks_by_person(answers, faces, self.tasks)
            retrieved[told_with] = together({"": retrieved[told_with], **beside})
        return found | retrieved


def _prefix(name: str) -> str:
    return f"{name} " if name else ""
