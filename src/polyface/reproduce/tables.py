"""The rows of results that finished jobs give, and their tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polyface.errors import PolyfaceError
from polyface.explain.weights import correlation_by_chance, head_weights, weight_correlation
from polyface.metrics.groups import within
from polyface.metrics.resampling import Bools, summarise
from polyface.metrics.result import Result, Row, differences, relative_differences, rows
from polyface.models.bundle import load_bundle
from polyface.report.published import Published
from polyface.report.results import markdown_table, read_results, write_results
from polyface.reproduce.jobs import Job, chosen, folder, trains
from polyface.reproduce.runs import Runs, by_prefix
from polyface.schema import landmark_groups
from polyface.training.recipe import ComparisonSpec, Recipe

CORRELATION = "weight correlation"
_AFTER_TITLE = (": ", " minus ", ", ")
_GROUPED = "pose"  # the column by whose words the figures of faces are told apart


def rows_of(runs: Runs, only: Sequence[str] = ()) -> list[Row]:
    """All rows that the finished jobs give: each variant's figures, and the differences that the recipe asks for. only:
    wildcards of the variants that it is about, and of the first ones of differences."""
    made: list[Row] = []
    asked = _titles(runs, chosen(runs.recipe, only))
    for name, variant in runs.measured.items():
        if runs.title(name) not in asked:
            continue
        title, of_variant = runs.title(name), []
        about: dict[str, Any] = {"splits": variant.splits, "note": variant.note}
        for prefix, found in runs.whole(name, by_prefix(runs.results(name))).items():
            of_variant += rows(title, found, prefix=variant.prefix + prefix, **about)
            of_variant += _per_group(runs, name, prefix, found)
        for prefix, found in runs.whole(name, runs.side(name)).items():
            whole = rows(title, found, prefix=variant.prefix + prefix, **about)
            of_variant += [row for row in whole if row.row == title]
        of_variant += _validation_time(runs, name)
        made += runs.told(of_variant, name)
    for pair in runs.recipe.comparisons:
        if runs.title(pair.better) in asked:
            made += runs.told(_compared(runs, pair), pair.better, pair.than)
    return made + _correlations(runs, [name for name in runs.recipe.variants if runs.title(name) in asked])


def _titles(runs: Runs, names: Iterable[str]) -> set[str]:
    return set(map(runs.title, names))


def _compared(runs: Runs, pair: ComparisonSpec) -> list[Row]:
    """The differences of two variants, of all that both have; of groups of faces that of the main figure."""
    first, second = (runs.whole(name, by_prefix(runs.results(name))) for name in (pair.better, pair.than))
    names, variant = (runs.title(pair.better), runs.title(pair.than)), runs.recipe.variants[pair.better]
    made = []
    for prefix in (prefix for prefix in first if prefix in second):
        a, b, told = first[prefix], second[prefix], variant.prefix + prefix
        made += differences(*names, a, b, prefix=told, splits=variant.splits)
        made += [replace(row, metric=told + row.metric) for row in relative_differences(*names, a, b)]
        for group, faces in _groups(runs, pair.better, prefix, a).items():
            ours, theirs = ({seed: within(one, faces) for seed, one in side.items()} for side in (a, b))
            main = next(iter(ours.values())).metrics[0].name
            of_group = differences(*names, ours, theirs, prefix=told, wanted=main)[:1]
            made += [replace(row, row=f"{row.row}: {group}") for row in of_group]
    return made


def _validation_time(runs: Runs, name: str) -> list[Row]:
    """How much of its training time a variant spent on the validations that weights and thresholds follow."""
    chosen = runs.stage(name).optimisation
    if not (chosen.validate_steps or chosen.validate_times) or not trains(runs.recipe.variants[name]):
        return []
    records = {seed: record for seed in runs.seeds(name) if (record := runs.record(name, seed))}
    shares = [100 * record["validation_seconds"] / record["seconds"] for record in records.values()]
    if not shares:
        return []
    figure = summarise(shares)
    often = f"every {steps} steps" if (steps := chosen.validate_steps) else f"{chosen.validate_times} times an epoch"
    note = f"time in validation: share of the training time, a validation {often}"
    return [Row(name, "time in validation", figure.mean, figure.std, None, tuple(records), note=note)]


def _per_group(runs: Runs, name: str, prefix: str, found: Mapping[int, Result]) -> list[Row]:
    """Figures of groups of faces."""
    title, prefixed = runs.title(name), runs.recipe.variants[name].prefix + prefix
    return [
        row
        for group, faces in _groups(runs, name, prefix, found).items()
        for row in rows(f"{title}: {group}", {s: within(r, faces) for s, r in found.items()}, prefix=prefixed)
    ]


def _groups(runs: Runs, name: str, prefix: str, found: Mapping[int, Result]) -> dict[str, Bools]:
    """Faces by the words of a column, where the test faces have it: {"pose left": [faces]}."""
    _, cases = runs.protocol(name)
    one_division = runs.recipe.variants[name].folds == 1  # else each fold has groups of its own
    if (
        not one_division
        or any(one.over != "faces" for one in found.values())
        or _GROUPED not in cases.faces.table.columns
    ):
        return {}
    return {f"{_GROUPED} {word}": faces for word, faces in cases.groups(prefix, _GROUPED).items()}


def _correlations(runs: Runs, names: Iterable[str]) -> list[Row]:
    """Fig. 5(b): correlation of head weights between each landmark and each side task, mean over seeds; beside it what
    heads that share nothing have, and how often these have as much."""
    made: list[Row] = []
    for name in names:
        variant = runs.recipe.variants[name]
        if not variant.correlation:
            continue
        stage = runs.stage(name)
        heads: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        models = {s: folder(runs.out, Job(name, s)) / stage.name / "model" for s in range(variant.seeds)}
        models = {seed: model for seed, model in models.items() if model.exists()}
        for model in models.values():
            network = load_bundle(model, quiet=True).network
            points = head_weights(network, stage.evaluation.main)
            for side in network.heads:
                if side != stage.evaluation.main:
                    heads.setdefault(side, []).append((points, head_weights(network, side)))
        for side, pairs in heads.items():
            found = np.stack([weight_correlation(*pair) for pair in pairs])
            chance = np.mean([correlation_by_chance(*pair, seed=i) for i, pair in enumerate(pairs)], axis=0)
            as_much = (1 + (chance >= found.mean(0)).sum(0)) / (1 + len(chance))
            for place, point in enumerate(landmark_groups(found.shape[1])):
                measured = summarise(found[:, place].tolist())
                about = Row(f"{name}: {point} ~ {side}", CORRELATION, measured.mean, seeds=tuple(models), unit="")
                made.append(replace(about, std=measured.std))
                made.append(replace(about, metric=f"{CORRELATION} by chance", mean=float(chance[:, place].mean())))
                made.append(replace(about, metric=f"{CORRELATION} p", mean=float(as_much[place])))
    return made


def collect(
    runs: Runs,
    results: Path,
    command: str,
    about: str,
    published: Sequence[Published] = (),
    extra: Sequence[Row] = (),
    only: Sequence[str] = (),
) -> list[Row]:
    """Write the rows of all finished jobs into a results file, beside the published figures of their names. extra: rows
    of the paper's own. only: wildcards of the variants whose rows are written; those of others stay as the file has
    them."""
    papers = {(figure.row, figure.metric): figure.value for figure in published}
    if only:
        titles, asked = _titles(runs, runs.recipe.variants), _titles(runs, chosen(runs.recipe, only))
        extra = [row for row in extra if _title_of(row, titles) in asked]
    rows = [replace(row, published=papers.get(row.key, row.published)) for row in [*rows_of(runs, only), *extra]]
    without = runs.recipe.variants.keys() - runs.measured.keys()
    if not rows and not any(map(runs.seeds, without)):
        raise PolyfaceError(
            f"{runs.out}: no finished run to collect; one of several folds is finished with all of them"
        )
    write_results(results, rows, command=command, data=about)
    return rows


def _title_of(row: Row, titles: Collection[str]) -> str | None:
    """The title of the variant that a row is of; of a difference, that of the first one."""
    found = (title for title in titles if f"{row.row}: ".startswith(tuple(title + end for end in _AFTER_TITLE)))
    return max(found, key=len, default=None)


def sources(recipe: Recipe) -> list[str]:
    """The data sets that a recipe reads."""
    return sorted({source.name for stage in recipe.stages for source in stage.data.tables})


def printed(recipe: Recipe, results: Path) -> str:
    """The variants' figures in a results file, and their differences, as tables."""
    found = read_results(results)
    parts = [markdown_table(found, rows=kind, published=False) for kind in kinds(recipe, found.rows)]
    return "\n\n".join(parts)


def kinds(recipe: Recipe, rows: Sequence[Row]) -> list[list[str]]:
    """Names of the rows that are variants, and of those that are differences between variants."""
    title = {name: variant.row or name for name, variant in recipe.variants.items()}
    names = [name for name in dict.fromkeys(title.values()) if any(row.row == name for row in rows)]
    compared = list(dict.fromkeys(f"{title[pair.better]} minus {title[pair.than]}" for pair in recipe.comparisons))
    return [kind for kind in (names, [name for name in compared if any(row.row == name for row in rows)]) if kind]
