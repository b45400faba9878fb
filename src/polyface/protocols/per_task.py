"""Each task by itself, as most data sets are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyface.errors import PolyfaceError, check_names
from polyface.metrics.clusters import together
from polyface.metrics.result import Result
from polyface.protocols.base import PEOPLE, Answers, Cases, EvaluationSet, rows_by_person, tasks_by_person

FACES = "faces"


class PerTask:
    """Each task's own figures, over the faces that are labelled for it.

    tasks: which; by default the main one, and without a main one all that any face is labelled for. over: "faces" are
    resampled for intervals, or "people", each with all of theirs. named: the first figure of each task is called as the
    task is, the names of its others begin with that ("age", "age 1-off"), and none has a prefix; over people always.
    """

    def __init__(self, tasks: Sequence[str] = (), over: str = FACES, named: bool = False) -> None:
        self.tasks, self.over, self.named = tuple(tasks), over, named
        check_names([over], (FACES, PEOPLE), "evaluation.protocol.over")

    def cases(self, faces: EvaluationSet) -> Cases:
        """Raises a `PolyfaceError` for a task that the model does not have, or if no face is labelled."""
        labelled = self._labelled(faces)
        everybody = np.arange(len(faces.table))
        if self.over == PEOPLE:
            return Cases(faces, {"": rows_by_person(faces, everybody, "tasks")})
        prefixes = [""] if self.named else [_prefix(name, faces.main) for name in labelled]
        return Cases(faces, dict.fromkeys(prefixes, everybody[:, None]))

    def evaluate(self, answers: Answers, cases: Cases) -> Mapping[str, Result]:
        """The main task's figures have no prefix, those of any other its name; named, none has one."""
        faces = cases.faces
        if self.over == PEOPLE:
            return {"": together(tasks_by_person(answers, faces, self.tasks or list(faces.tasks)))}
        found = {name: faces.tasks[name].evaluate(answers[name], faces.table) for name in self._labelled(faces)}
        return {"": together(found)} if self.named else {_prefix(name, faces.main): one for name, one in found.items()}

    def _labelled(self, faces: EvaluationSet) -> list[str]:
        known = faces.tasks
        check_names(self.tasks, known, "evaluation.protocol.tasks")
        asked = self.tasks or ([faces.main] if faces.main else known)
        labelled = [name for name in asked if known[name].targets(faces.table).labelled.any()]
        if not labelled:
            raise PolyfaceError(f"none of the {len(faces.table)} faces is labelled for {', '.join(asked) or 'a task'}")
        return labelled


def _prefix(task: str, main: str) -> str:
    return "" if task == main else f"{task} "
