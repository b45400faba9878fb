"""Search of a gallery that holds one face a person, as WebCaricature, Multi-PIE and IJB-A have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.all_pairs import evaluate_all_pairs
from polyface.metrics.recognition.pairs import Indices
from polyface.metrics.recognition.retrieval import draw_gallery, evaluate_retrieval
from polyface.metrics.result import Result
from polyface.protocols.base import Answers, Cases, EvaluationSet, Words, embedded
from polyface.protocols.listed_pairs import FARS


@dataclass(frozen=True)
class Search:
    """Rows of the probes, of the faces that galleries are of, and of each gallery among these."""

    probes: Indices
    faces: Indices
    galleries: Sequence[Indices]


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
    ) -> None:
        self.searches, self.reader, self.list = searches or {"": {}}, reader, list
        self.draws, self.seed, self.verify, self.embedding = draws, seed, verify, embedding
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
        units: dict[str, Any] = {prefix: one.probes[:, None] for prefix, one in searches.items()}
        verified = searches[_prefix(self.verify)] if self.verify else None
        pairs = (verified.probes, verified.faces) if verified else None
        if pairs:
            names = faces.table.words("identity")
            both = np.concatenate(pairs)
            units[""] = [both[names[both] == name] for name in sorted(set(names[both].astype(str)))]
        return SearchCases(faces, units, searches, pairs)

    def _drawn(self, faces: EvaluationSet) -> dict[str, Search]:
        found = {}
        for prefix, asked in self.searches.items():
            probes, gallery = (faces.rows(asked.get(kind, {})) for kind in ("probes", "gallery"))
            people = _people(faces, gallery, "gallery")
            _people(faces, probes, "probes")
            found[_prefix(prefix)] = Search(probes, gallery, draw_gallery(people, self.draws, self.seed))
        return found

    def _listed(self, faces: EvaluationSet) -> dict[str, Search]:
        found = {}
        for prefix, listed in faces.ask(self.reader, "searches", self.list).items():
            probes, gallery = (faces.rows_of(paths, "lists") for paths in (listed.probes, listed.gallery))
            found[_prefix(prefix)] = Search(probes, gallery, [np.arange(len(gallery))])
        return found

    def evaluate(self, answers: Answers, cases: SearchCases) -> Mapping[str, Result]:
        """Verification of all pairs, if it is asked for, and the searches."""
        faces, found = cases.faces, {}
        embedding = embedded(answers, self.embedding, faces.table)
        if cases.pairs:
            first, second = cases.pairs
            people = (_people(faces, rows, "verification") for rows in cases.pairs)
            found[""] = evaluate_all_pairs(embedding.between(first, second), *people, fars=FARS, seed=self.seed)
        retrieved: dict[str, Result] = {}
        for prefix, search in cases.searches.items():
            place = {row: at for at, row in enumerate(search.faces.tolist())}
            itself = np.array([place.get(row, -1) for row in search.probes.tolist()])
            retrieved[prefix] = evaluate_retrieval(
                embedding.between(search.probes, search.faces),
                _people(faces, search.probes, "probes"),
                _people(faces, search.faces, "gallery"),
                galleries=search.galleries,
                itself=itself,
            )
        return found | retrieved


def _people(faces: EvaluationSet, rows: Indices, what: str) -> NDArray[Any]:
    """Who is on each face, by name."""
    names = faces.table.words("identity")[rows]
    if nameless := sum(name is None for name in names):
        raise PolyfaceError(f"{nameless} of the {len(rows)} faces of the {what} have no identity: leave them out")
    return names.astype(str)


def _prefix(name: str) -> str:
    return f"{name} " if name else ""
