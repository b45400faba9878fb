"""What the recipe's rows do not say: other thresholds of the same networks, how soon these learn, what weights
come to, which attributes move, how well landmarks are learnt; and pictures by iteration (Figs. 5–7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from polyface.metrics.attributes import AttributesResult, evaluate_attributes
from polyface.metrics.resampling import summarise
from polyface.metrics.result import Metric, Result, Row, differences, differences_of_runs
from polyface.metrics.result import rows as rows_of
from polyface.metrics.sections import Curve, Curves, Table, cell, mean_curve
from polyface.papers import paper
from polyface.report.page import Section
from polyface.reproduce.jobs import trains
from polyface.reproduce.runs import Runs
from polyface.weighting.thresholds import at_rest, most_accurate

VALIDATED = ("Baseline", "DMM-EQ-AT", "DMM-CNN")
"""The rows whose networks are judged with other thresholds too, which are found on the validation faces."""
WHOLE, PLAIN = "DMM-CNN", "Baseline"
MEAN, ACCURACY, SOON, POINTS = "mean accuracy", "accuracy", "steps to within 1 %", "FLD error"
WEIGHT = "median weight"
NEAR = 1.01  # of the lowest loss
_FIXED = {"DMM-EQ-AT": "DMM-EQ-FIX", WHOLE: "DMM-DW-FIX"}  # the rows of the same networks with thresholds 0
_RULES = {"AT at rest": at_rest, "τ best on validation": most_accurate}
_FINE_TUNED = "LFWA "  # what the rows of the second data set begin with
_DRAWN = {"DW": WHOLE, "UW": "DMM-EQ-AT"}
_SHOWN = ("Mouth_Slightly_Open", "Young")  # in Figs. 5 to 7, beside the mean
_SYSTEMS = ("MCNN-AUX", WHOLE)  # of Table 3, whose figures stand beside ours where attributes are compared


def rows(runs: Runs) -> list[Row]:
    """What other thresholds make of the same networks; the mean accuracy of each group of attributes; the difference of
    DMM-CNN and Baseline at every attribute; how soon the validation loss is near its lowest; what weights come to; and
    the landmarks' error.
    """
    return [*_thresholds(runs), *_groups(runs), *_moved(runs), *_soon(runs), *_last_weights(runs), *_points(runs)]


def sections(runs: Runs) -> list[Section]:
    """A table for the variants of each data set; nothing where none of them is finished. Then the attributes by how far
    DMM-CNN is from Baseline, and Figs. 5 to 7."""
    found = {name: runs.main(name) for name, variant in runs.recipe.variants.items() if trains(variant)}
    groups: dict[str, dict[str, list[Result]]] = {}
    for name, results in found.items():
        if results:
            groups.setdefault(results[min(results)].key, {})[name] = list(results.values())
    return [*(_each_attribute(shown) for shown in groups.values()), *_most_moved(runs), *_by_iteration(runs)]


def _results(runs: Runs, name: str, part: str = "test") -> dict[int, AttributesResult]:
    """What a variant's finished seeds reach on the faces of a part."""
    return {seed: one for seed, one in runs.main(name, part).items() if isinstance(one, AttributesResult)}


def _pairs(runs: Runs) -> list[tuple[str, str]]:
    """The variants that the recipe compares."""
    return [(one.better, one.than) for one in runs.recipe.comparisons]


# ---------------------------------------------------------------------------------------------------------- thresholds


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


# ---------------------------------------------------------------------------------------------------------- attributes


def grouped(runs: Runs) -> Mapping[str, Sequence[str]]:
    """The attributes of each group, objective and subjective, as the recipe of the whole system has them."""
    heads = runs.stage(WHOLE).network.heads.get("attributes") if WHOLE in runs.measured else None
    return heads if isinstance(heads, Mapping) else {}


def _groups(runs: Runs) -> Iterator[Row]:
    """The mean accuracy over the attributes of each group, whatever branch a variant has them on, and the differences
    that the recipe asks for."""
    for group, names in grouped(runs).items():
        found = {name: _among(runs, name, names) for name in runs.measured}
        for name, results in found.items():
            if results:
                yield from runs.told(rows_of(runs.title(name), results, prefix=f"{group} ", wanted=MEAN), name)
        for better, than in _pairs(runs):
            titles = runs.title(better), runs.title(than)
            made = differences(*titles, found[better], found[than], prefix=f"{group} ", wanted=MEAN)
            yield from runs.told(made, better, than)


def _among(runs: Runs, name: str, attributes: Sequence[str]) -> dict[int, AttributesResult]:
    return {seed: one.among(attributes) for seed, one in _results(runs, name).items()}


def _moved(runs: Runs) -> Iterator[Row]:
    """How much more often each attribute is told right by DMM-CNN than by Baseline."""
    if not {WHOLE, PLAIN} <= runs.measured.keys():
        return
    for attribute in (name for names in grouped(runs).values() for name in names):
        a, b = (_among(runs, name, [attribute]) for name in (WHOLE, PLAIN))
        made = differences(WHOLE, PLAIN, a, b, wanted=MEAN)
        yield from runs.told(
            (replace(row, row=f"{row.row}: {attribute}", metric=ACCURACY) for row in made), WHOLE, PLAIN
        )


def _most_moved(runs: Runs) -> list[Section]:
    """The attributes by that difference, with the published accuracies of a plain network and of DMM-CNN."""
    papers = {figure.row: figure.value for figure in paper("dmm-cnn").figures if figure.detail}
    branch = {name: group for group, names in grouped(runs).items() for name in names}
    found = {row.row.rpartition(": ")[2]: row for row in _moved(runs)}
    lines = [
        [
            name, branch.get(name, ""), cell(row.mean), " to ".join(map(cell, row.interval or ())),
            *(cell(papers.get(f"{system}: {name}")) for system in _SYSTEMS),
        ]
        for name, row in sorted(found.items(), key=lambda item: item[1].mean)
    ]  # fmt: skip
    header = ["attribute", "group", f">{WHOLE} minus {PLAIN}", ">95 %", *(f">{name} (published)" for name in _SYSTEMS)]
    caption = "Accuracy in percent. Published figures are of other faces: see their notes above."
    return [Section("Attributes by how far they move", [Table(header, lines, caption)])] if lines else []


# ------------------------------------------------------------------------------------------------------------ training


def _soon(runs: Runs) -> Iterator[Row]:
    """How many steps the mean validation loss of the attributes takes to within a hundredth of its lowest, and how the
    variants that the recipe compares differ there."""
    found = {name: _steps(runs, name) for name, variant in runs.measured.items() if trains(variant)}
    note = "until the mean validation loss of the attributes is within 1 % of the run's lowest"
    for name, steps in found.items():
        if steps:
            of_all = summarise(list(steps.values()))
            yield Row(runs.title(name), SOON, of_all.mean, of_all.std, seeds=tuple(steps), unit="steps", note=note)
    for better, than in _pairs(runs):
        ours, theirs = (runs.recipe.variants[name].model or name for name in (better, than))
        a, b = found.get(ours, {}), found.get(theirs, {}) if ours != theirs else {}
        gaps = {seed: steps - b[seed] for seed, steps in a.items() if seed in b}
        yield from differences_of_runs(runs.title(better), runs.title(than), SOON, gaps, "steps")


def _steps(runs: Runs, name: str) -> dict[int, float]:
    """By seed, of trainings that followed validations with a loss for every attribute."""
    found = {}
    for seed, validations in _followed(runs, name).items():
        if curve := [(row["step"], _mean_of(each)) for row in validations if (each := _losses(row))]:
            lowest = min(loss for _, loss in curve)
            found[seed] = float(next(step for step, loss in curve if loss <= NEAR * lowest))
    return found


def _last_weights(runs: Runs) -> Iterator[Row]:
    """The attributes' median weight λ after the last validation that weights followed, in percent of an equal one: how
    much of the attributes' loss is left by then."""
    note = "λ over the attributes after the last validation; 100 % is a weight of 1"
    for name in (name for name, variant in runs.measured.items() if trains(variant)):
        medians = {
            seed: 100 * float(np.median(list(weights.values())))
            for seed, validations in _followed(runs, name).items()
            if validations and (weights := _weights(validations[-1]))
        }
        if medians:
            of_all = summarise(list(medians.values()))
            yield Row(runs.title(name), WEIGHT, of_all.mean, of_all.std, seeds=tuple(medians), note=note)


def _followed(runs: Runs, name: str) -> dict[int, list[dict[str, Any]]]:
    """The validations that weights and thresholds followed, by seed."""
    return {seed: one.get("validations") or [] for seed in runs.seeds(name) if (one := runs.record(name, seed))}


def _by_attribute(told: Mapping[str, float]) -> dict[str, float]:
    """{"attributes/Young": 0.4, …} → {"Young": 0.4, …}."""
    return {attribute: value for name, value in told.items() if (attribute := name.partition("/")[2])}


def _mean_of(told: Mapping[str, float]) -> float:
    return float(np.mean(list(told.values())))


def _losses(validation: Mapping[str, Any]) -> dict[str, float]:
    return _by_attribute(validation["losses"])


def _weights(validation: Mapping[str, Any]) -> dict[str, float]:
    return _by_attribute(validation["weights"])


def _taus(validation: Mapping[str, Any]) -> dict[str, float]:
    told, names = validation.get("thresholds", {}).values(), list(_losses(validation))
    return {name: tau for each in told if names for name, tau in zip(names, each, strict=True)}


_FIGURES: dict[str, Callable[[Mapping[str, Any]], dict[str, float]]] = {
    "validation loss": _losses,
    "weight λ": _weights,
    "threshold τ": _taus,
}


def _by_iteration(runs: Runs) -> list[Section]:
    """Figs. 5 to 7: loss, weight and threshold of two attributes and the mean over all, with dynamic and with equal
    weights; means over seeds."""
    kept = {told: _followed(runs, name) for told, name in _DRAWN.items() if name in runs.measured}
    made = []
    for what, read in _FIGURES.items():
        blocks = []
        for shown in (*_SHOWN, "mean"):
            curves = {told: curve for told, of in kept.items() if (curve := _curve(list(of.values()), read, shown))}
            caption = f"{what.capitalize()}: {'the mean over attributes' if shown == 'mean' else shown}."
            blocks += [Curves(curves, "iteration", what, caption)] if curves else []
        made += [Section(f"{what.capitalize()} by iteration", blocks)] if blocks else []
    return made


def _curve(
    of_seeds: Sequence[Sequence[Mapping[str, Any]]], read: Callable[[Mapping[str, Any]], dict[str, float]], shown: str
) -> Curve | None:
    """What is read of each validation, the mean over seeds as far as all of them go."""
    length = min(map(len, of_seeds), default=0)
    values = [[read(row) for row in run[:length]] for run in of_seeds]
    if not length or not all(each for run in values for each in run):
        return None
    told = [[_mean_of(each) if shown == "mean" else each[shown] for each in run] for run in values]
    return mean_curve([([row["step"] for row in run[:length]], one) for run, one in zip(of_seeds, told, strict=True)])


# ----------------------------------------------------------------------------------------------------------- landmarks


def _points(runs: Runs) -> Iterator[Row]:
    """How far the landmarks are, on the test faces, from those of the model that labelled the training faces: whether
    the branch that is to help was learnt."""
    for name in runs.measured:
        label = ", ".join(model for table in runs.stage(name).data.tables for model in table.labels)
        for results in runs.whole(name, runs.side(name)).values():
            note = f"against the points of {label}, in distances between the eyes"
            made = rows_of(runs.title(name), results, note=note, wanted="mean error")
            yield from runs.told((replace(row, metric=POINTS) for row in made), name)


# ------------------------------------------------------------------------------------------------------------- Table 3


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
