"""What side tasks leave of identity's features, and what the learned weights follow: rows and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import spearmanr

from polyface.explain.energy import SIDE, CommonHeads, common_heads, removal_orders
from polyface.explain.reduced import results_without
from polyface.metrics.resampling import summarise
from polyface.metrics.result import Result, Row, differences
from polyface.metrics.result import rows as rows_of
from polyface.models.bundle import load_bundle
from polyface.report.energy import energy_section
from polyface.report.page import Section
from polyface.reproduce.jobs import Job, folder
from polyface.reproduce.runs import Runs, by_prefix

DYNAMIC, FEATURES = "PIE m-CNN dynamic", "features"
SIDES = {"pose": "PIE m-CNN +pose", "illumination": "PIE m-CNN +illumination", "expression": "PIE m-CNN +expression"}
SHARES = (0.25, 0.5)
REDUCED = {DYNAMIC: "", "PIE m-CNN fixed, budget 1": ", budget 1"}
"""The networks of whose features dimensions are taken out, and what the names of their rows end in: the paper's, and
one that learns its side tasks."""


def rows(runs: Runs) -> list[Row]:
    """Rank-1 by the features x without a share of their dimensions, and the learned weights beside what they may
    follow; of the variants that a recipe has."""
    known = runs.recipe.variants
    reduced = [row for name, end in REDUCED.items() if name in known for row in _reduced(runs, name, end)]
    return reduced + (list(_weights(runs)) if DYNAMIC in known else [])


def _reduced(runs: Runs, network: str, end: str) -> Iterator[Row]:
    """Features without those dimensions that side tasks, identity or nobody in particular use most (Fig. 5c)."""
    asked = dict(runs.stage(network).evaluation.protocol) | {"embedding": FEATURES, "tasks": []}
    found: dict[str, dict[int, Mapping[str, Result]]] = {}
    for seed in runs.seeds(network):
        orders = removal_orders(_heads(runs, network, seed).energies(), "identity", draws=1, seed=seed)
        x = runs.answers(network, seed)[FEATURES]["embedding"]
        chosen, cases = runs.protocol(network, seed, settings=asked)
        for share in SHARES:
            for kind in (SIDE, "identity", "random"):
                name = f"without {100 * share:.0f}% {kind} dimensions{end}"
                found.setdefault(name, {})[seed] = results_without(x, orders[kind][0], share, chosen, cases)
    results = {name: runs.whole(network, by_prefix(one)).get("", {}) for name, one in found.items()}
    for name, by_run in results.items():
        if by_run:
            yield from rows_of(name, by_run, note=f"of the features x of {network}")
    for percent in (f"{100 * share:.0f}%" for share in SHARES):
        side = f"without {percent} {SIDE} dimensions{end}"
        for other in (f"without {percent} {kind} dimensions{end}" for kind in ("identity", "random")):
            if results.get(side) and results.get(other):
                yield from differences(side, other, results[side], results[other])


def sections(runs: Runs) -> list[Section]:
    """Which dimensions of x the tasks of the dynamic network use, by its first finished seed."""
    seed = min(runs.seeds(DYNAMIC), default=None) if DYNAMIC in runs.recipe.variants else None
    if seed is None:
        return []
    heads = _heads(runs, DYNAMIC, seed)
    return [energy_section(heads, heads.energies())]


def _heads(runs: Runs, network: str, seed: int) -> CommonHeads:
    place = folder(runs.out, Job(network, seed)) / runs.stage(network).name / "model"
    return common_heads(load_bundle(place, quiet=True).network, "identity")


def _weights(runs: Runs) -> Iterator[Row]:
    """The weights at the end of training, and how their order agrees with that of the side tasks' accuracy by a
    network of their own, and with what each side task alone brings to rank-1 (Spearman's ρ, of three tasks)."""
    seeds = runs.seeds(DYNAMIC)
    last = [history[-1]["weights"] for seed in seeds if (history := runs.history(DYNAMIC, seed))]
    if not last:
        return
    for task in SIDES:
        weight = summarise([one[task] for one in last])
        yield Row(f"{DYNAMIC}: {task}", "weight", weight.mean, weight.std, seeds=tuple(seeds), unit="")
    final = [float(np.mean([one[task] for one in last])) for task in SIDES]
    followed = {
        "single-task accuracy": [_mean(runs, f"PIE {task} alone", task) for task in SIDES],
        "gain in rank-1": [_mean(runs, row, "rank-1") for row in SIDES.values()],  # s-CNN's is the same for all
    }
    for about, values in followed.items():
        if None not in values:
            agreement = float(spearmanr(final, values).statistic)
            note = "of three side tasks, their means over runs"
            yield Row(DYNAMIC, f"weights against {about}", agreement, seeds=tuple(seeds), unit="", note=note)


def _mean(runs: Runs, name: str, metric: str) -> float | None:
    """A figure of a variant, its mean over runs; None where there is none yet."""
    found = runs.whole(name, by_prefix(runs.results(name))).get("", {}) if name in runs.recipe.variants else {}
    figures = [one.figure(asked) for one in found.values() for asked in one.metrics if asked.name == metric]
    return float(np.mean(figures)) if figures else None
