"""What the recipe's rows do not say: other thresholds of the same networks, and attributes beside those of Table 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from polyface.metrics.attributes import AttributesResult, evaluate_attributes
from polyface.metrics.result import Metric, Result, Row, differences
from polyface.metrics.result import rows as rows_of
from polyface.metrics.sections import Table, cell
from polyface.papers import paper
from polyface.report.page import Section
from polyface.reproduce.jobs import trains
from polyface.reproduce.runs import Runs
from polyface.weighting.thresholds import at_rest, most_accurate

VALIDATED = ("Baseline", "DMM-EQ-AT", "DMM-CNN")
"""The rows whose networks are judged with other thresholds too, which are found on the validation faces."""
_FIXED = {"DMM-EQ-AT": "DMM-EQ-FIX", "DMM-CNN": "DMM-DW-FIX"}  # the rows of the same networks with thresholds 0
_RULES = {"AT at rest": at_rest, "τ best on validation": most_accurate}
_FINE_TUNED = "LFWA "  # what the rows of the second data set begin with


def rows(runs: Runs) -> list[Row]:
    """What other thresholds make of the same networks."""
    return list(_thresholds(runs))


def _thresholds(runs: Runs) -> Iterator[Row]:
    """The figures of networks whose thresholds are where Eq. 6 comes to rest on the validation faces, and where most of
    these are called right, beside those of thresholds 0. τ does not reach the loss, so stored answers are enough."""
    both = Runs(runs.recipe, runs.faces.data, runs.out, ("val", "test"), runs.faces)
    for name in (name for name in VALIDATED if name in runs.measured):
        seen, tested, fixed = _results(both, name, "val"), _results(both, name), _FIXED.get(name, name)
        main = runs.stage(name).evaluation.main
        for told, rule in _RULES.items():
            row, found = f"{runs.title(name)}, {told}", dict[int, Result]()
            for seed, known in seen.items():
                at = rule(both.answers(name, seed, "val")[main]["scores"], known.truth)
                scores = both.answers(name, seed)[main]["scores"]
                found[seed] = evaluate_attributes(scores, scores > at, tested[seed].truth, list(known.per_attribute))
            if found:
                made = rows_of(row, found, note=f"the networks of {name}; τ from the validation faces")
                made = [one for one in made if one.row == row]  # without each attribute's own
                yield from runs.told([*made, *differences(row, fixed, found, runs.main(fixed))], name)


def _results(runs: Runs, name: str, part: str = "test") -> dict[int, AttributesResult]:
    """What a variant's finished seeds reach on the faces of a part."""
    return {seed: one for seed, one in runs.main(name, part).items() if isinstance(one, AttributesResult)}


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
