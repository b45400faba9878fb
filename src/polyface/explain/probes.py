"""What a linear probe can read from a vector, on people that it has not seen."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.data.table import FaceTable, Progress
from polyface.errors import PolyfaceError
from polyface.explain.energy import Indices
from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.metrics.resampling import Floats
from polyface.tasks import Task

NEEDS = "linear probes need scikit-learn, `pip install polyface[explain]`"


def can_probe() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def probe(
    x: ArrayLike,
    classes: ArrayLike,
    people: ArrayLike,
    labels: Sequence[str],
    folds: int = 2,
    seed: int = 0,
) -> ClassificationResult:
    """How well classes can be read from vectors x [N, D] of people that the probe has not seen: logistic regression on
    standardised dimensions, every class counting as much. An extra, not of Yin & Liu.

    classes [N]: places in `labels`, −1 where not labelled. people [N]: who is on each face, None where unknown; such
    faces are left out. The people are drawn into `folds` parts by `seed`; faces of each are answered by what was learnt
    from the others.

    Raises:
        PolyfaceError: fewer people than folds, or one class alone in the faces that a probe learns from.
    """
    if not can_probe():
        raise PolyfaceError(NEEDS)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, names = np.asarray(x, dtype=np.float64), np.asarray(people, dtype=object)
    truth = np.where([name is not None for name in names], np.asarray(classes), -1)
    known = truth >= 0
    everybody = sorted(set(names[known].tolist()))
    if len(everybody) < folds:
        raise PolyfaceError(f"{len(everybody)} people have labels, and a probe needs {folds} parts of them")
    order = np.random.default_rng(seed).permutation(len(everybody))
    part = {everybody[person]: place % folds for place, person in enumerate(order)}
    fold = np.array([part.get(name, -1) if kept else -1 for name, kept in zip(names, known, strict=True)])
    predicted: NDArray[np.int64] = np.full(len(values), -1, np.int64)
    for number in range(folds):
        learnt, asked = known & (fold != number), fold == number
        if len(set(truth[learnt].tolist())) < 2:
            raise PolyfaceError(
                f"only one of the classes {', '.join(labels)} is among the faces that a probe learns from"
            )
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        predicted[asked] = model.fit(values[learnt], truth[learnt]).predict(values[asked])
    return evaluate_classification(predicted, truth, labels)


def probe_tasks(
    x: Floats,
    kept: Mapping[str, Indices],
    tasks: Mapping[str, Task],
    table: FaceTable,
    progress: Progress | None = None,
) -> tuple[dict[str, dict[str, ClassificationResult]], dict[str, str]]:
    """Every task of classes probed on some dimensions of x [N, D], the vectors of a table's faces: {task: {name of the
    dimensions: result}}, and {task: why} of those that cannot be. kept: the dimensions, by name."""
    found: dict[str, dict[str, ClassificationResult]] = {}
    left: dict[str, str] = {}
    people, asked = table.words("identity"), {name: task for name, task in tasks.items() if hasattr(task, "classes")}
    todo = [(name, kind) for name in asked for kind in kept]
    for done, (name, kind) in enumerate(todo, 1):
        task: Any = asked[name]
        try:
            if name not in left:
                result = probe(x[:, kept[kind]], task.classes(table), people, task.vocabulary)
                found.setdefault(name, {})[kind] = result
        except PolyfaceError as reason:
            left[name] = str(reason)
        if progress:
            progress(done, len(todo), "labels probed")
    return found, left


def chance(result: ClassificationResult) -> float:
    """The balanced accuracy of answers that know nothing, in percent: of K classes that occur, 100 / K."""
    return float(100 / np.count_nonzero(result.sizes))
