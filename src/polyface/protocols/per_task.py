"""Each task by itself, as most data sets are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyface.errors import PolyfaceError, check_names
from polyface.metrics.result import Result
from polyface.protocols.base import Answers, Cases, EvaluationSet


class PerTask:
    """Each task's own figures, over the faces that are labelled for it.

    tasks: which; by default the main one, and without a main one all that any face is labelled for.
    """

    def __init__(self, tasks: Sequence[str] = ()) -> None:
        self.tasks = tuple(tasks)

    def cases(self, faces: EvaluationSet) -> Cases:
        """Raises a `PolyfaceError` for a task that the model does not have, or if no face is labelled."""
        known = faces.tasks
        check_names(self.tasks, known, "evaluation.protocol.tasks")
        asked = self.tasks or ([faces.main] if faces.main else known)
        labelled = [name for name in asked if known[name].targets(faces.table).labelled.any()]
        if not labelled:
            raise PolyfaceError(f"none of the {len(faces.table)} faces is labelled for {', '.join(asked) or 'a task'}")
        everybody = np.arange(len(faces.table))[:, None]
        return Cases(faces, {_prefix(name, faces.main): everybody for name in labelled})

    def evaluate(self, answers: Answers, cases: Cases) -> Mapping[str, Result]:
        """The main task's figures have no prefix, those of any other its name."""
        faces = cases.faces
        named = {_prefix(name, faces.main): name for name in faces.tasks}
        return {
            prefix: faces.tasks[named[prefix]].evaluate(answers[named[prefix]], faces.table) for prefix in cases.units
        }


def _prefix(task: str, main: str) -> str:
    return "" if task == main else f"{task} "
