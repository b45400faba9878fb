"""What the page shows of attributes: the accuracy of each beside that of the published systems (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyface.metrics.result import Metric, Result
from polyface.metrics.sections import Table, cell
from polyface.papers import paper
from polyface.report.page import Section
from polyface.reproduce.jobs import trains
from polyface.reproduce.runs import Runs

_FINE_TUNED = "LFWA "  # what the rows of the second data set begin with


def sections(runs: Runs) -> list[Section]:
    """A table for the variants of each data set; nothing where none of them is finished."""
    found = {name: runs.main(name) for name, variant in runs.recipe.variants.items() if trains(variant)}
    groups: dict[str, dict[str, list[Result]]] = {}
    for name, results in found.items():
        if results:
            groups.setdefault(results[min(results)].key, {})[name] = list(results.values())
    return [_each_attribute(shown) for shown in groups.values()]


def _each_attribute(shown: Mapping[str, Sequence[Result]]) -> Section:
    """Accuracies, mean over seeds, of variants that were evaluated on the same faces, and of the published systems."""
    first = next(iter(shown))
    prefix = _FINE_TUNED if first.startswith(_FINE_TUNED) else ""
    papers = {figure.row: figure.value for figure in paper("dmm-cnn").figures if figure.detail}
    systems = dict.fromkeys(row.rpartition(": ")[0] for row in papers)
    beside = [name for name in systems if name.startswith(_FINE_TUNED) == bool(prefix)]
    header = ["attribute", *(f">{name}" for name in shown)]
    header += [f">{name.removeprefix(prefix)} (published)" for name in beside]
    metrics = [metric for metric in shown[first][0].metrics if metric.part and metric.name == "accuracy"]
    body = [
        [
            metric.part,
            *(cell(_mean(results, metric)) for results in shown.values()),
            *(cell(papers.get(f"{name}: {metric.part}")) for name in beside),
        ]
        for metric in metrics
    ]
    caption = "Accuracy in percent, mean over seeds. Published figures are of other faces: see their notes above."
    return Section(f"Each attribute: {', '.join(shown)}", [Table(header, body, caption)])


def _mean(results: Sequence[Result], metric: Metric) -> float:
    return float(np.mean([result.figure(metric) for result in results]))
