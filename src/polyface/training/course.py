"""The course of a training: losses, weights and which of them are largest, in about a hundred spans of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from polyface.files import rounded

SPANS = 100


class Course:
    """Sums over each hundredth of a run's iterations (a batch is one), of which `record` gives the means.

    iterations: of the whole run; of fewer than 100 each is a span. `spans`: one for each hundredth that has begun, of
    plain numbers, which a checkpoint keeps; None in a run that was begun without.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.spans: list[dict[str, Any]] | None = []

    def add(self, done: int, losses: Mapping[str, float], weights: Mapping[str, float]) -> None:
        """An iteration, after so many others: the present tasks' losses, and the weights that these had."""
        if self.spans is None:
            return
        place = done * SPANS // self.iterations
        if not self.spans or self.spans[-1]["place"] != place:
            self.spans.append({"place": place, "compared": 0, "agreed": 0, "hardest": {}, "loss": {}, "weight": {}})
        span = self.spans[-1]
        span["step"] = done + 1
        for name, values in (("loss", losses), ("weight", weights)):
            for task in losses:
                total, count = span[name].get(task, (0.0, 0))
                span[name][task] = [total + values[task], count + 1]
        hardest, heaviest = _largest(losses), _largest({task: weights[task] for task in losses})
        if len(losses) > 1 and hardest:
            span["hardest"][hardest] = span["hardest"].get(hardest, 0) + 1
            span["compared"] += 1
            span["agreed"] += hardest == heaviest

    def record(self) -> dict[str, Any] | None:
        """What `history.json` keeps: "iterations" of the run, and lists with an entry a span: its last "step", and by
        task the mean "loss" and "weight", None in a span without labels; in how many of its iterations losses were
        "compared", of how many each task was the "hardest", with the largest loss, and in how many "agreed" the largest
        weight was that of the hardest task. Weights that are equal are none of them the largest."""
        if not self.spans:
            return None
        tasks = list(dict.fromkeys(task for span in self.spans for task in span["loss"]))
        told: dict[str, Any] = {"iterations": self.iterations}
        told |= {name: [span[name] for span in self.spans] for name in ("step", "compared", "agreed")}
        told["hardest"] = {task: [span["hardest"].get(task, 0) for span in self.spans] for task in tasks}
        for name in ("loss", "weight"):
            told[name] = {task: [_mean(span[name].get(task)) for span in self.spans] for task in tasks}
        return told


def in_tenth(course: Mapping[str, Any], tenth: int) -> list[int]:
    """The places of the spans that a tenth of a run has, from 0 to 9; a run of fewer than ten iterations lacks some."""
    return [at for at, step in enumerate(course["step"]) if (step - 1) * 10 // course["iterations"] == tenth]


def shares(course: Mapping[str, Any], places: Iterable[int] | None = None) -> dict[str, float]:
    """In which share of the iterations of some spans, by default of all, each task was the hardest; and as "" in which
    the largest weight was that of the hardest. Nothing where no losses were compared."""
    chosen = list(range(len(course["step"])) if places is None else places)
    counts = Counter({task: sum(each[place] for place in chosen) for task, each in course["hardest"].items()})
    counts[""] = sum(course["agreed"][place] for place in chosen)
    compared = sum(course["compared"][place] for place in chosen)
    return {task: count / compared for task, count in counts.items()} if compared else {}


def _largest(values: Mapping[str, float]) -> str | None:
    """Whose value is above all others; None where several are."""
    most = max(values.values(), default=0.0)
    largest = [name for name, value in values.items() if value == most]
    return largest[0] if len(largest) == 1 else None


def _mean(pair: Any) -> float | None:
    return None if pair is None else rounded(pair[0] / pair[1])
