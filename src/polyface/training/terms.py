"""The loss terms of all tasks in one row [terms], and how they are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from polyface.errors import check_names
from polyface.tasks import Task, mean_of_terms


class LossTerms:
    """The places of loss terms in the row: `tasks`, those of each task; `weighted`, those of each loss that the
    weighting gives a weight, which is a task's or a single term's.

    single: tasks whose terms each have a weight of their own, under the terms' names (`attributes/Bald`).
    task_of: the task of each weighted loss. count: terms of all tasks.
    """

    def __init__(self, tasks: Mapping[str, Task], single: Sequence[str] = ()) -> None:
        check_names(single, tasks, "weighting.terms")
        self.tasks: dict[str, slice] = {}
        self.weighted: dict[str, slice] = {}
        self.task_of: dict[str, str] = {}
        start = 0
        for name, task in tasks.items():
            self.tasks[name] = slice(start, start + len(task.terms))
            parts = [(name, self.tasks[name])]
            if name in single:
                parts = [(term, slice(start + i, start + i + 1)) for i, term in enumerate(task.terms)]
            self.weighted |= dict(parts)
            self.task_of |= {part: name for part, _ in parts}
            start += len(task.terms)
        self.count = start

    def losses(self, means: Tensor) -> dict[str, Tensor]:
        """Mean losses [terms] → the weighted losses: sums over their terms."""
        return {name: means[part].sum() for name, part in self.weighted.items()}

    def counts(self, counts: Tensor) -> dict[str, int]:
        """Labelled faces [terms] → those of each weighted loss: the most that any of its terms has."""
        values = counts.tolist()
        return {name: int(max(values[part])) for name, part in self.weighted.items()}

    @staticmethod
    def means(totals: Tensor, groups: Mapping[str, slice]) -> dict[str, float]:
        """Sums and counts [2, terms] → mean loss of each group; groups without a labelled face are left out."""
        sums, counts = totals.cpu()
        return {
            name: float(mean_of_terms(sums[part], counts[part]))
            for name, part in groups.items()
            if counts[part].sum() > 0
        }
