"""Verification of listed pairs, as LFW, CFP and CaVI have them, and identification of people who are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyface.data.readers.common import Pair
from polyface.errors import PolyfaceError, check_names
from polyface.metrics.recognition.identification import evaluate_identification
from polyface.metrics.recognition.pairs import Indices, checked_fars, figure_names
from polyface.metrics.recognition.verification import evaluate_verification
from polyface.metrics.resampling import Bools
from polyface.metrics.result import Result
from polyface.protocols.base import Answers, Cases, EvaluationSet, Words, answer, embedded

FARS = (0.1, 1.0)
"""The false acceptance rates, in percent, at which VAL is measured."""


@dataclass(frozen=True)
class PairList:
    """The rows of each pair's faces [N, 2], whether both show one person [N], and the fold of each pair [N] or how many
    folds are dealt out."""

    rows: Indices
    same: Bools
    folds: int | Indices


@dataclass(frozen=True)
class PairCases(Cases):
    """Lists of pairs by the prefix of their metrics; and, by metric, the faces that a task is to name."""

    lists: Mapping[str, PairList]
    named: Mapping[str, tuple[str, Indices]]


class ListedPairs:
    """Verification of the pairs of faces that a data set lists, by squared Euclidean distances of embeddings.

    reader: of the data set that lists them, by default the first of the evaluated ones that does. list: which of its
    lists, where it has several; or lists: prefix of the metrics → list, to evaluate several ({LFW: pairs} gives "LFW
    verification"). folds: how many are dealt out where the list has none; the threshold for the pairs of one is
    picked on the others, and figures are means over folds; AUC and EER are of all pairs at once, or with each_fold
    means over folds too. fars: false acceptance rates, in percent, at which VAL is measured. names: figure → what it
    is called, where that is another word ({verification: accuracy, VAL@1%: TAR@FAR 1%}). embedding: the task whose
    embedding is compared, or the name of an embedding that is no task's, where there are several. identification:
    metric → {task, faces}: beside it, how often a task names the right person of all that it learnt, on the faces
    with these words; left out for a model without that task.
    """

    def __init__(
        self,
        reader: str = "",
        list: str = "",
        folds: int = 10,
        embedding: str = "",
        identification: Mapping[str, Mapping[str, Any]] | None = None,
        lists: Mapping[str, str] | None = None,
        fars: Sequence[float] = FARS,
        names: Mapping[str, str] | None = None,
        each_fold: bool = False,
    ) -> None:
        self.reader, self.folds, self.embedding = reader, folds, embedding
        self.fars, self.names, self.each_fold = checked_fars(fars), names or {}, each_fold
        if list and lists:
            raise PolyfaceError("list and lists are both given: remove one of them")
        self.lists = {f"{name} " if name else "": asked for name, asked in (lists or {"": list}).items()}
        check_names(self.names, plain := figure_names(self.fars), "names")
        called = [self.names.get(name, name) for name in plain]
        if twice := [name for name in called if called.count(name) > 1]:
            raise PolyfaceError(f"names: two figures are called '{twice[0]}'; give each a word of its own")
        self.identification: dict[str, tuple[str, Words]] = {}
        for metric, asked in (identification or {}).items():
            if unknown := asked.keys() - {"task", "faces"}:
                raise PolyfaceError(f"identification.{metric}: unknown key '{min(unknown)}'; there are task and faces")
            self.identification[metric] = str(asked.get("task", "")), asked.get("faces", {})

    def cases(self, faces: EvaluationSet) -> PairCases:
        """The listed pairs of the part, in the order of the list.

        Raises:
            PolyfaceError: no data set lists pairs, or a pair's image is not in the table.
        """
        lists = {prefix: self._listed(faces, asked) for prefix, asked in self.lists.items()}
        named = {metric: (task, faces.rows(words)) for metric, (task, words) in self.identification.items()}
        units: dict[str, Indices] = {prefix: one.rows for prefix, one in lists.items()}
        units |= {_split(metric)[0]: chosen[:, None] for metric, (_, chosen) in named.items()}
        return PairCases(faces, units, lists, named)

    def _listed(self, faces: EvaluationSet, asked: str) -> PairList:
        listed: list[Pair] = faces.ask(self.reader, "pairs", asked)
        paths = [path for pair in listed for path in (pair.first, pair.second)]
        folds = [pair.fold for pair in listed if pair.fold is not None]
        return PairList(
            faces.rows_of(paths, "pairs").reshape(-1, 2),
            np.array([pair.same for pair in listed], dtype=bool),
            np.array(folds) if len(folds) == len(listed) else self.folds,
        )

    def evaluate(self, answers: Answers, cases: PairCases) -> Mapping[str, Result]:
        """Verification, and what of identification a model has tasks for."""
        table = cases.faces.table
        found: dict[str, Result] = {}
        identified: dict[str, Result] = {}
        for metric, (task, faces) in cases.named.items():
            if task in answers:
                people = cases.faces.tasks[task].people or []
                scores = answer(answers, task, "probabilities", table)
                if scores.shape[1] != len(people):
                    raise PolyfaceError(f"task '{task}': probabilities of {scores.shape[1]} people, of {len(people)}")
                prefix, name = _split(metric)
                truth = table.classes("identity", people)[faces]
                identified[prefix] = evaluate_identification(scores[faces], truth, metric=name)
        if self.embedding in answers or not identified:
            compared = embedded(answers, self.embedding, table)
            for prefix, pairs in cases.lists.items():
                distances = compared.pairs(*pairs.rows.T)
                found[prefix] = evaluate_verification(
                    distances,
                    pairs.same,
                    folds=pairs.folds,
                    fars=self.fars,
                    names=self.names,
                    each_fold=self.each_fold,
                )
        return found | identified


def _split(metric: str) -> tuple[str, str]:
    """A metric's prefix and the last word of its name."""
    before, space, last = metric.rpartition(" ")
    return before + space, last
