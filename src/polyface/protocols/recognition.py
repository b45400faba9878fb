"""How well people are recognised across caricatures and photos: all figures of a finished run, and their rows.

CaVI: verification of listed pairs, and identification of photos and of caricatures (Ming, Burie & Luqman 2021, Table
2). WebCaricature: every caricature against every photo, and search of either in a gallery of the other that holds one
face a person (Huo et al. 2018; Ming et al., Tables 3 to 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.readers.common import Pair
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.all_pairs import AllPairsResult, evaluate_all_pairs
from polyface.metrics.recognition.identification import IdentificationResult, evaluate_identification
from polyface.metrics.recognition.pairs import Indices, pair_distances, squared_distances
from polyface.metrics.recognition.retrieval import RetrievalResult, draw_gallery, evaluate_retrieval
from polyface.metrics.recognition.verification import VerificationResult, evaluate_verification
from polyface.metrics.resampling import Bools, Floats
from polyface.metrics.result import Result, Row, differences, rows

Answers = Mapping[str, Mapping[str, NDArray[Any]]]
"""{task: {"probabilities": [N, K], "embedding": [N, E] of unit length}} over the faces of a table."""

FARS = (0.1, 1.0)
"""The false acceptance rates, in percent, at which VAL is measured."""

_IDENTIFIED = {
    "visual id": ("visual", "photo"),
    "caricature id": ("caricature", "caricature"),
    "visual model on caricatures": ("visual", "caricature"),
    "caricature model on visual images": ("caricature", "photo"),
}
"""Metric → the task that answers, and the modality of the faces that it is asked about."""

_TASKS = ("verification", "visual", "caricature")


@dataclass(frozen=True)
class RecognitionResult:
    """What applies of a run's figures on a part: verification (of listed pairs, or of all), identification by metric
    ("visual id", "caricature id" and the two crossed ones), retrieval by "C2P" (caricatures are sought among photos)
    and "P2C"."""

    verification: VerificationResult | AllPairsResult | None = None
    identification: Mapping[str, IdentificationResult] = field(default_factory=dict)
    retrieval: Mapping[str, RetrievalResult] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Result]:
        """All of them by what they are about."""
        verified: dict[str, Result] = {} if self.verification is None else {"verification": self.verification}
        return verified | dict(self.identification) | dict(self.retrieval)


Results = Mapping[int, RecognitionResult]
"""By training seed, or by split."""


# ------------------------------------------------------------------------------------------------------------ judging


def judge_cavi(
    answers: Answers, vocabulary: Sequence[str], table: FaceTable, pairs: Sequence[Pair], folds: int = 10, seed: int = 0
) -> RecognitionResult:
    """Judge answers on the faces of a part of CaVI: tasks `verification`, `visual` and `caricature`, or some of them.

    Verification is of `pairs`, by the paths of the table, by squared Euclidean distances of the embeddings of
    `verification`, with thresholds by `folds` of pairs that are dealt out by `seed`. Identification is of all photos
    and all caricatures, among the people of `vocabulary`, by the probabilities of `visual` and `caricature`; a face of
    anybody else is part of nothing, and counted.

    Raises:
        PolyfaceError: none of the three tasks, answers that do not fit the table or the vocabulary, a table of one
            modality, a pair whose image is not in the table.
    """
    if not answers.keys() & set(_TASKS):
        raise PolyfaceError(f"answers of {_listed(answers)}: CaVI is judged by one of {', '.join(_TASKS)}")
    rows, people = rows_by_modality(table), table.classes("identity", vocabulary)
    verified = None
    if "verification" in answers:
        distances, same = _distances(_answer(answers, "verification", "embedding", table), table, pairs)
        verified = evaluate_verification(distances, same, folds=folds, fars=FARS, seed=seed)
    identified = {}
    for metric, (task, modality) in _IDENTIFIED.items():
        if task in answers:
            scores, faces = _answer(answers, task, "probabilities", table), rows[modality]
            if scores.shape[1] != len(vocabulary):
                raise PolyfaceError(
                    f"task '{task}': probabilities of {scores.shape[1]} people for a vocabulary of {len(vocabulary)}"
                )
            identified[metric] = evaluate_identification(scores[faces], people[faces], metric=metric)
    return RecognitionResult(verified, identified)


def judge_across(answers: Answers, table: FaceTable, draws: int = 10, seed: int = 0) -> RecognitionResult:
    """Judge embeddings on caricatures and photos of people whom no network need have seen, all against all.

    The embeddings are those of the task `verification`, or of the only task that has any; distances are squared
    Euclidean ones. Caricatures are sought among photos (C2P) and photos among caricatures (P2C), in galleries of one
    face a person that are drawn `draws` times by `seed`; a probe of a person whom the galleries lack is excluded and
    counted. Verification is of every caricature against every photo, by ten folds of people that are dealt out by
    `seed` too: see `evaluate_all_pairs`.

    Raises:
        PolyfaceError: no embedding, or several of which none is `verification`'s; embeddings that do not fit the table
            or are not of length 1; faces without a person or a modality; fewer than three people with both.
    """
    embedding = _answer(answers, embedding_task(answers), "embedding", table)
    rows, names = rows_by_modality(table), table.words("identity")
    nameless, other = sum(name is None for name in names), len(table) - sum(map(len, rows.values()))
    if nameless or other:
        raise PolyfaceError(
            f"{nameless} faces have no identity and {other} are neither caricature nor photo: leave them out"
        )
    distances = squared_distances(embedding[rows["caricature"]], embedding[rows["photo"]])
    caricatures, photos = (names[found].astype(str) for found in rows.values())
    retrieved = {}
    for way, values, probes, gallery in (
        ("C2P", distances, caricatures, photos),
        ("P2C", distances.T, photos, caricatures),
    ):
        galleries = draw_gallery(gallery, draws, seed)
        retrieved[way] = evaluate_retrieval(values, probes, gallery, galleries=galleries, prefix=f"{way} ")
    verified = evaluate_all_pairs(distances, caricatures, photos, fars=FARS, seed=seed)
    return RecognitionResult(verified, retrieval=retrieved)


def _listed(answers: Answers) -> str:
    return ", ".join(answers) or "no task"


def _answer(answers: Answers, task: str, key: str, table: FaceTable) -> NDArray[Any]:
    """A task's answer [N, …] over the faces of the table."""
    if key not in answers[task]:
        raise PolyfaceError(f"task '{task}' has no {key}; its answers are: {', '.join(answers[task]) or 'none'}")
    found = np.asarray(answers[task][key])
    if found.ndim != 2 or len(found) != len(table):
        raise PolyfaceError(f"task '{task}': {key} {list(found.shape)} for a table of {len(table)} faces")
    return found


def embedding_task(answers: Answers) -> str:
    """The task whose embedding faces are compared by: `verification`, or the only one that has any."""
    having = [task for task in answers if "embedding" in answers[task]]
    if not having:
        raise PolyfaceError(f"answers of {_listed(answers)}: no task has an embedding to compare faces by")
    if len(having) > 1 and "verification" not in having:
        raise PolyfaceError(f"tasks {', '.join(having)} have embeddings, and none is 'verification': give one of them")
    return "verification" if "verification" in having else having[0]


def rows_by_modality(table: FaceTable) -> dict[str, Indices]:
    """The rows of caricatures and of photos."""
    words = table.words("modality")
    rows = {modality: np.flatnonzero(words == modality) for modality in ("caricature", "photo")}
    for modality, found in rows.items():
        if not len(found):
            raise PolyfaceError(f"none of the {len(table)} faces is a {modality} (column modality): both are needed")
    return rows


def _distances(embedding: NDArray[Any], table: FaceTable, pairs: Sequence[Pair]) -> tuple[Floats, Bools]:
    """The distance [N] of each pair, and whether it shows one person."""
    row_of = {table.path(row): row for row in range(len(table))}
    named = dict.fromkeys(path for pair in pairs for path in (pair.caricature, pair.photo))
    if absent := [path for path in named if path not in row_of]:
        raise PolyfaceError(
            f"{len(absent)} of {len(named)} images of the pairs are not in the table, such as {absent[0]}: "
            "give the pairs of the part that was answered"
        )
    first, second = ([row_of[getattr(pair, kind)] for pair in pairs] for kind in ("caricature", "photo"))
    return pair_distances(embedding[first], embedding[second]), np.array([pair.same for pair in pairs], dtype=bool)


# --------------------------------------------------------------------------------------------------------------- rows


def recognition_rows(
    name: str,
    results: Results,
    *,
    prefix: str = "",
    splits: bool = False,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
) -> list[Row]:
    """The results rows of one method, from its results by training seed over the same faces: "verification", "visual
    id", "caricature id", "C2P rank-1", "VAL@1%", "AUC", …, each after a `prefix` such as "across ": see `rows`."""
    if not results:
        raise PolyfaceError(f"{name}: give one result per seed")
    return [
        row
        for key in _common(results)
        for row in rows(
            name, _of(results, key), prefix=prefix, splits=splits, published=published, note=note, resamples=resamples
        )
    ]


def recognition_differences(
    better: str, than: str, a: Results, b: Results, *, prefix: str = "", splits: bool = False, resamples: int = 1000
) -> list[Row]:
    """The figures of `better` minus those of `than` that both have: see `differences`."""
    if not a or not b:
        return []
    both = [key for key in _common(a) if key in _common(b)]
    return [
        row
        for key in both
        for row in differences(
            better, than, _of(a, key), _of(b, key), prefix=prefix, splits=splits, resamples=resamples
        )
    ]


def _of(results: Results, key: str) -> dict[int, Result]:
    return {run: one.results[key] for run, one in results.items()}


def _common(results: Results) -> list[str]:
    """What all have, in the order of the first."""
    first, *others = (one.results for one in results.values())
    return [key for key in first if all(key in other for other in others)]
