"""What a reproduction's page says of attributes: each one by itself, and how weights and thresholds went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from polyface.metrics.attributes import AttributesResult
from polyface.metrics.sections import Table, Text
from polyface.report.page import Block, Figure, Figures, Section
from polyface.report.plots import plot_grid
from polyface.report.published import Published
from polyface.reproduce.jobs import trains
from polyface.reproduce.tables import Runs


def attribute_sections(runs: Runs, published: Sequence[Published]) -> list[Section]:
    """What there is to show of the variants whose main task is attributes; nothing where there are none."""
    found: dict[str, list[AttributesResult]] = {}
    for name in runs.recipe.variants:
        results = list(runs.results(name).values())
        parts = any(metric.part for result in results for metric in result.metrics)
        if parts and trains(runs.recipe.variants[name]):
            found[name] = cast(list[AttributesResult], results)
    sections: list[Section] = []
    for shown in _by_faces(found):
        titles = ", ".join(shown)
        sections.append(EachAttribute(f"Each attribute: {titles}", shown, published))
    for name in found:
        if any("thresholds" in epoch for epoch in runs.history(name)):
            sections.append(_followed(f"Weights and thresholds: {name} (first seed)", runs.history(name)))
    return sections


def _by_faces(found: Mapping[str, list[AttributesResult]]) -> list[dict[str, list[AttributesResult]]]:
    """Variants that were evaluated on the same faces, together."""
    groups: dict[str, dict[str, list[AttributesResult]]] = {}
    for name, results in found.items():
        groups.setdefault(results[0].key, {})[name] = results
    return list(groups.values())


@dataclass(frozen=True)
class EachAttribute:
    """Accuracy of every attribute, mean over seeds, beside the published systems; then what accuracy hides."""

    title: str
    results: Mapping[str, Sequence[AttributesResult]]
    published: Sequence[Published] = ()

    def blocks(self) -> Sequence[Block]:
        """One table of accuracies, and one of balanced accuracy, F1 and average precision of the last variant."""
        first = next(iter(self.results.values()))[0]
        prefix = "LFWA " if next(iter(self.results)).startswith("LFWA ") else ""
        papers = {(p.row, p.metric): p.value for p in self.published}
        systems = list(dict.fromkeys(row.rpartition(": ")[0] for row, _ in papers))
        systems = [one for one in systems if one.startswith("LFWA ") == bool(prefix)]
        header = ["attribute", ">have it", ">majority", *(f">{name}" for name in self.results)]
        header += [f">{one.removeprefix(prefix)} (published)" for one in systems]
        body = [
            [
                attribute,
                f"{one.positive_rate:.1f}",
                f"{one.floor:.2f}",
                *(_mean(results, attribute, "accuracy") for results in self.results.values()),
                *(_figure(papers.get((f"{system}: {attribute}", "accuracy"))) for system in systems),
            ]
            for attribute, one in first.per_attribute.items()
        ]
        caption = "Accuracy in percent, mean over seeds. Published figures are of other faces: see their notes above."
        last = list(self.results)[-1]
        hidden = [
            [attribute, *(_mean(self.results[last], attribute, f) for f in ("balanced_accuracy", "f1"))]
            + [_mean(self.results[last], attribute, "average_precision")]
            for attribute in first.per_attribute
        ]
        columns = ["attribute", ">balanced accuracy", ">F1", ">average precision"]
        return [Table(header, body, caption), Table(columns, hidden, f"{last}, in percent, mean over seeds.")]


def _mean(results: Sequence[AttributesResult], attribute: str, figure: str) -> str:
    return _figure(float(np.mean([getattr(result.per_attribute[attribute], figure) for result in results])))


def _figure(value: float | None) -> str:
    return "" if value is None else "–" if np.isnan(value) else f"{value:.2f}"


@dataclass(frozen=True)
class _Pictures:
    title: str
    figures: Sequence[Figure]

    def blocks(self) -> Sequence[Block]:
        return [Text("A line an attribute, a column an epoch."), Figures(self.figures, wide=True)]


def _followed(title: str, history: Sequence[Mapping[str, Any]]) -> _Pictures:
    """Each attribute's mean weight in every epoch, and its threshold at the end of it (Mao et al. 2020, Figs. 5–7)."""
    epochs = [str(row["epoch"]) for row in history]
    weights = {
        name.partition("/")[2]: [row["weights"].get(name, np.nan) for row in history]
        for name in history[-1]["weights"]
        if "/" in name
    }
    figures = []
    if weights:
        picture = plot_grid(weights, epochs, x_label="epoch", value="weight", log=True)
        figures.append(Figure(picture, "weight of each attribute over training", "Weights, mean over each epoch."))
    for task in history[-1]["thresholds"]:
        names = list(weights) or [str(i) for i in range(len(history[-1]["thresholds"][task]))]
        curves = np.array([row["thresholds"][task] for row in history]).T
        picture = plot_grid(dict(zip(names, curves.tolist(), strict=True)), epochs, x_label="epoch", value="threshold")
        figures.append(Figure(picture, "threshold of each attribute over training", "Thresholds."))
    return _Pictures(title, figures)
