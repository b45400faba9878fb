"""`polyface compare-weightings`: one recipe trained under many weightings, with equal budgets.

The comparison is itself a recipe whose variants are its rows: the recipe's stages with the last stage's weighting
exchanged. So its runs are trained, resumed, stored and evaluated as those of a paper's table are.

Screening trains every row for a few seeds; finals train the best of them, chosen by the *validation* figure of the main
task, and the baselines for more seeds. The test faces choose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyface import protocols
from polyface.data.table import Progress
from polyface.errors import PolyfaceError, nearest
from polyface.reproduce.jobs import Job, before, finished, run_jobs, trains
from polyface.reproduce.runs import Faces, Runs
from polyface.training import stages
from polyface.training.recipe import MOST_SEEDS, Recipe, VariantSpec, slug
from polyface.training.specs import StageSpec
from polyface.training.texts import read_yaml_file
from polyface.weighting import WEIGHTINGS

UNIFORM, AS_IS, ALONE = "uniform", "as in the recipe", "main task alone"
BASELINES = (UNIFORM, AS_IS, ALONE)
EARLIER = "earlier stages"
LEVELS = ("features", "shared")
PARTS = ("test", "val")


@dataclass(frozen=True)
class Budget:
    """How much is trained. Screening: every row for `seeds` seeds, with `changes` ({stage.key.key: value}, such as
    fewer epochs) if there are any. Finals: the `finals` best, `always` and the baselines, as the recipe says, for
    `final_seeds` seeds."""

    seeds: int = 1
    finals: int = 0
    final_seeds: int = 5
    always: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def row_name(asked: str) -> str:
    """The row of a weighting as it is asked for: mgda → "mgda", mgda:shared → "mgda (shared)"."""
    name, colon, level = asked.partition(":")
    if colon and level not in LEVELS:
        raise PolyfaceError(f"weighting '{asked}': unknown level '{level}'; {nearest(level, LEVELS)}")
    return f"{name} (shared)" if level == "shared" else name


def default_weightings() -> list[str]:
    """Every registered weighting; fixed weights are the recipe's own or a plain sum."""
    return [name for name in WEIGHTINGS.names() if name != "fixed"]


def read_options(path: Path | None) -> dict[str, dict[str, Any]]:
    """Options of weightings from a YAML file {weighting: {option: value}}."""
    if path is None:
        return {}
    tree = read_yaml_file(path)
    if not isinstance(tree, dict) or not all(isinstance(options, dict) for options in tree.values()):
        raise PolyfaceError(f"{path}: expected {{weighting: {{option: value}}}}")
    return tree


def comparison(
    recipe: Recipe,
    variant: str | None = None,
    weightings: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe whose variants are the rows of a comparison; default weightings: all that are registered.

    The last stage's weighting is exchanged; earlier stages, and the variants that this one starts from, are made once a
    seed for all rows. Every weighting is built once here, so that a wrong name or option is an error before anything is
    trained.
    """
    base = _base(recipe, variant)
    last, names = base.measured, [stage.name for stage in base.stages[:-1]]
    rows = _baselines(last) | _exchanged(last, weightings or default_weightings(), options or {})
    first = _earlier(recipe, variant, names)
    changes, start = changes or {}, list(first)
    for spec in first.values():
        spec.set = {key: value for key, value in changes.items() if key.split(".")[0] in ("*", *spec.stages)}
    own = {key: value for key, value in changes.items() if key.split(".")[0] not in names}
    minutes = recipe.variants[variant].minutes if variant else 0.0
    variants = {
        row: VariantSpec(stages=[last.name], set={**set_, **own}, start=start, seeds=1, minutes=minutes, note=note)
        for row, (set_, note) in rows.items()
    }
    variants[ALONE].keep = [last.main]
    made = base.model_copy(update={"variants": variants | first})
    for row in rows:
        stages.build_weighting(made.variant(row).measured, features=1)
    return made


def _earlier(recipe: Recipe, variant: str | None, names: Sequence[str]) -> dict[str, VariantSpec]:
    """What is made before the rows, in order: the variants that one starts from, trained or taken as they are for as
    many seeds as in the recipe; then what is left of the stages of these names."""
    first: dict[str, VariantSpec] = {}
    for name in _starts(recipe, variant):
        given = recipe.variants[name]
        first[f"{EARLIER}: {name}"] = VariantSpec(
            stages=given.stages, start=list(first), predictor=given.predictor, seeds=given.seeds
        )
    made = {stage for spec in first.values() for stage in spec.stages}
    if left := [name for name in names if name not in made]:
        first[EARLIER] = VariantSpec(stages=left, start=list(first), seeds=MOST_SEEDS)
    return first


def _starts(recipe: Recipe, variant: str | None) -> list[str]:
    """The variants that one starts from, each after those that it starts from itself."""
    return [job.variant for job in before(recipe, Job(variant, 0))] if variant else []


def _base(recipe: Recipe, variant: str | None) -> Recipe:
    """The stages that are trained: the recipe's own, or a variant's after those of all that it starts from."""
    base = recipe.variant(variant) if variant else recipe.model_copy(update={"variants": {}, "comparisons": []})
    hint = ""
    if variant:
        if not trains(recipe.variants[variant]):
            raise PolyfaceError(f"variant '{variant}' trains no network of its own: nothing to weigh")
        earlier = [stage for start in _starts(recipe, variant) for stage in recipe.variant(start).stages]
        names = [stage.name for stage in (*earlier, *base.stages)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise PolyfaceError(f"variant '{variant}' starts from two networks of a stage '{twice[0]}': not compared")
        base = base.model_copy(update={"stages": [*earlier, *base.stages]})
    elif recipe.variants:
        hint = f"; choose a --variant: {', '.join(recipe.variants)}"
    last = base.measured
    if last.evaluation.protocol["name"] != protocols.DEFAULT:
        raise PolyfaceError(
            f"recipe {recipe.name}: stage {last.name} is evaluated by a protocol, not by its tasks: compare rows of "
            "`polyface reproduce` instead"
        )
    if len(last.tasks) < 2:
        raise PolyfaceError(f"recipe {recipe.name}: stage {last.name} trains one task, nothing to weigh{hint}")
    return base


def _baselines(last: StageSpec) -> dict[str, tuple[dict[str, Any], str]]:
    """{row: (what it sets, its note)} of the rows that every comparison has."""
    return {
        AS_IS: ({}, ""),
        ALONE: ({f"{last.name}.weighting": {"name": "fixed"}, f"{last.name}.stopping": None}, ""),
        UNIFORM: (_weighed(last, UNIFORM, {}), ""),
    }


def _weighed(stage: StageSpec, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a row: another weighting of the same terms."""
    return {f"{stage.name}.weighting.name": name, f"{stage.name}.weighting.options": dict(options)}


def _exchanged(
    last: StageSpec, asked: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[dict[str, Any], str]]:
    """{row: (what it sets, its note)} of the weightings asked for; options of `mgda` hold for `mgda:shared` too."""
    known = {word for one in asked for word in (one, one.partition(":")[0])}
    if unused := [name for name in options if name not in known]:
        raise PolyfaceError(f"--options: '{unused[0]}' is not compared; {nearest(unused[0], known)}")
    rows = {}
    for one in asked:
        name, _, level = one.partition(":")
        chosen = {**options.get(name, {}), **options.get(one, {}), **({"level": level} if level == "shared" else {})}
        note = ", ".join(f"{option} {value}" for option, value in chosen.items())
        if one not in BASELINES:
            rows[row_name(one)] = (_weighed(last, name, chosen), note)
    return rows


def validation(runs: Runs, row: str, seeds: Sequence[int]) -> float | None:
    """A row's first figure on the validation faces, which selects: its mean over seeds, with its sign turned if higher
    is better, so that the smallest is the best. None unless all seeds are finished and it is defined."""
    found = runs.main(row, "val")
    if not seeds or any(seed not in found for seed in seeds):
        return None
    metric = found[seeds[0]].metrics[0]
    figure = float(np.mean([found[seed].figure(metric) for seed in seeds]))
    return (-figure if metric.higher_is_better else figure) if np.isfinite(figure) else None


def ranked(runs: Runs, rows: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Rows from best to worst by the validation faces; one that is not finished or has no finite figure is left out."""
    found = {row: figure for row in rows if (figure := validation(runs, row, seeds)) is not None}
    return sorted(found, key=lambda row: found[row])


class Comparison:
    """A comparison in a folder: its rows, its two phases, what is finished of them.

    Without changes for the screening, both phases share their runs, in `finals/`; with them, the screening's are in
    `screening/`.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path | None,
        out: Path,
        budget: Budget,
        *,
        variant: str | None = None,
        weightings: Sequence[str] = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        wanted = [*(weightings or default_weightings()), *(name for name in budget.always if name not in BASELINES)]
        self.recipe, self.data, self.budget, self.variant = recipe, data, budget, variant
        self.place = out / f"{slug(recipe.place)}-weightings" / (slug(variant) if variant else "")
        faces = Faces(data)
        full = comparison(recipe, variant, wanted, options)
        self.full = Runs(full, data, self.place / "finals", PARTS, faces)
        self.short = self.full
        if budget.changes:
            short = comparison(recipe, variant, wanted, options, budget.changes)
            self.short = Runs(short, data, self.place / "screening", PARTS, faces)
        self.failed: dict[Job, Exception] = {}

    @property
    def rows(self) -> list[str]:
        return [row for row in self.full.recipe.variants if not row.startswith(EARLIER)]

    @property
    def screened(self) -> bool:
        """Whether the screening's training is shorter than the recipe's, so that its figures are another table."""
        return self.short is not self.full

    def finalists(self) -> list[str]:
        """The best rows by the validation faces of the screening, what is always asked for, and the baselines."""
        if not self.budget.finals:
            return []
        best = ranked(self.short, [row for row in self.rows if row not in BASELINES], range(self.budget.seeds))
        return list(dict.fromkeys([*best[: self.budget.finals], *self._certain()]))

    def _certain(self) -> list[str]:
        """The rows that are in the finals whatever the screening finds."""
        return list(dict.fromkeys([*map(row_name, self.budget.always), *BASELINES]))

    def jobs(self, final: bool) -> list[Job]:
        """The runs of a phase, by seed."""
        rows, seeds = (self.finalists(), self.budget.final_seeds) if final else (self.rows, self.budget.seeds)
        return [Job(row, seed) for seed in range(seeds) for row in rows]

    def left(self, final: bool) -> list[Job]:
        """The runs of a phase that are not finished."""
        runs = self.full if final else self.short
        return [job for job in self.jobs(final) if not finished(runs.recipe, runs.out, job, PARTS, self.data)]

    def minutes(self, runs: Runs) -> float | None:
        """Minutes a run: measured where one is finished, in this phase or by the other's epochs; else the recipe's."""
        epochs = runs.stage(AS_IS).optimisation.epochs
        for one in (runs, self.full, self.short):
            records = [one.record(row, seed) for row in self.rows for seed in one.seeds(row)]
            if seconds := [float(record["seconds"]) for record in records if record]:
                return float(np.mean(seconds)) / 60 * epochs / one.stage(AS_IS).optimisation.epochs
        said = self.full.recipe.variants[AS_IS].minutes * epochs / self.full.stage(AS_IS).optimisation.epochs
        return said or None

    def hours(self) -> float | None:
        """Estimated hours of one core for what is left of both phases; None where nothing says how long a run takes."""
        screening = self.left(final=False)
        if not screening or not self.budget.finals:
            finals = len(self.left(final=True))
        else:  # who the finalists are is not known yet, but how many
            finals = self.budget.final_seeds * (self.budget.finals + len(self._certain()))
            if not self.screened:  # seeds of the screening count in the finals
                finals -= self.budget.seeds * (self.budget.finals + len(self._certain()))
        times = [(len(screening), self.minutes(self.short)), (max(finals, 0), self.minutes(self.full))]
        if any(count and minutes is None for count, minutes in times):
            return None
        return sum(count * (minutes or 0) for count, minutes in times) / 60

    def estimate(self, workers: int) -> str:
        """What is left and about how long it takes, in words."""
        short, finals, hours = len(self.left(final=False)), self.budget.finals, self.hours()
        text = f"{len(self.rows)} rows, {len(self.jobs(final=False))} runs of the screening, {short} of them left"
        if finals:
            rows = len(self.finalists()) if not short else f"up to {finals + len(self._certain())}"
            text += f"; then {rows} rows for {self.budget.final_seeds} seeds"
        if hours is None:
            return f"{text}; how long it takes is told after the first run"
        times = [(name, self.minutes(runs)) for name, runs in (("screening", self.short), ("final", self.full))]
        each = ", ".join(f"{minutes:.1f} min a {name} run" for name, minutes in times if minutes)
        if any(row.endswith("(shared)") for row in self.rows):
            each += f"; at level shared up to {len(self.full.recipe.measured.tasks)} times as long"
        return f"{text}: about {hours / workers:.1f} hours here ({each})"

    def run(
        self,
        options: stages.RunOptions,
        workers: int = 1,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Train what is not finished of the screening, then of the finals. A run that fails does not stop the others.

        tell: called with an estimate after the first run of each phase, which is what it is measured on.
        """
        self.failed.clear()
        for final, runs in ((False, self.short), (True, self.full)):
            todo = self.jobs(final)
            first = list(dict.fromkeys(one for job in todo for one in before(runs.recipe, job)))
            run_jobs(runs.recipe, first, self.data, runs.out, options, workers, progress, ())
            told: list[str] = []

            def report(done: int, total: int, what: str, told: list[str] = told) -> None:
                if not told:
                    told.append(self.estimate(workers))
                    tell(told[0])
                if progress:
                    progress(done, total, what)

            run_jobs(runs.recipe, todo, self.data, runs.out, options, workers, report, PARTS, self.failed)
