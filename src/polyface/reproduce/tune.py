"""A search for the settings of a recipe: trials by TPE, each trained in a process of its own, kept in one study.

The study is an SQLite file, which a stopped command goes on with. A trial's folder is named by its settings, so that
one that was killed goes on from its last checkpoint when it is tried again. Only validation faces are ever looked at.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyface.data.table import Progress
from polyface.errors import PolyfaceError, short
from polyface.files import lock
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.training import stages
from polyface.training.processes import asked_to_stop, end_with_parent
from polyface.training.recipe import Recipe, VariantSpec
from polyface.training.space import ChoicesSpec
from polyface.training.stages import RunOptions, pool_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NEEDS = "polyface tune needs optuna, `pip install polyface[tune]`"
_NAME, _AGAIN, _ERROR = "tune", "again", "error"
_RETRIES = 2  # of a trial that is killed
_LOOK = 0.2  # seconds between looks at the processes that run


@dataclass(frozen=True)
class Trial:
    """A trial of a study. value: the mean of the tasks' main figures on the validation faces; None where it has none.
    state: complete, pruned, fail or running; why: what stopped it."""

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: str
    why: str = ""


def tune(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    options: RunOptions,
    trials: int = 20,
    workers: int = 1,
    progress: Progress | None = None,
    earlier: Mapping[str, Path] | None = None,
) -> list[Trial]:
    """Search the recipe's `space` until so many trials are finished, `workers` at a time; all of the study, the best
    first. A trial whose process is killed is tried again, and one that cannot be trained counts as failed; the study
    goes on.

    earlier: bundles that `init` may name beside the recipe's own stages.

    Raises:
        PolyfaceError: optuna is not there, no space, a key of it that the recipe does not have, another command is at
            work in `out`, or no trial could be trained.
    """
    if importlib.util.find_spec("optuna") is None:
        raise PolyfaceError(NEEDS)
    if not recipe.space:
        raise PolyfaceError(f"recipe {recipe.name} has no space to search: add the key, or give --space FILE")
    for end in (0, 1):  # what is wrong with a key is told before anything is trained
        stage = with_settings(recipe, {key: spec.ends[end] for key, spec in recipe.space.items()}).measured
        if stage.data.validate_on == "test":
            raise PolyfaceError(f"stage {stage.name}: data.validate_on is test: no setting is chosen on test faces")
    with lock(out / "study"), asked_to_stop():
        study = _study(out, recipe.seed)
        for left in _in(study, "RUNNING"):  # by a command that is no more
            _try_again(study, left)
        running: dict[int, BaseProcess] = {}
        try:
            while True:
                while len(running) < workers and _counted(study) + len(running) < trials:
                    number, process = _start(study, recipe, data, out, options, earlier)
                    running[number] = process
                if not running:
                    break
                _reap(study, running)
                if progress:
                    progress(_counted(study), trials, f"trials · {_told(study)}")
                time.sleep(_LOOK)
        finally:
            for process in running.values():  # it is saved where it stands, and tried again by the next command
                process.terminate()
            for process in running.values():
                process.join()
    found = finished_trials(out, recipe.seed)
    if not any(trial.state == "complete" for trial in found):
        raise PolyfaceError(f"no trial could be trained to its end; the last one: {found[-1].why or found[-1].state}")
    return found


def finished_trials(out: Path, seed: int = 0) -> list[Trial]:
    """All trials of a study, the best first, then those without a value in their order."""
    made = [_trial(one) for one in _study(out, seed).get_trials(deepcopy=False) if _AGAIN not in one.user_attrs]
    return sorted(made, key=lambda one: (one.state != "complete", -(one.value or 0.0), one.number))


def with_settings(recipe: Recipe, settings: Mapping[str, Any], seed: int | None = None) -> Recipe:
    """The recipe with a trial's settings: its stages alone."""
    names = [stage.name for stage in recipe.stages]
    variant = VariantSpec(stages=names, set=dict(settings))
    return recipe.model_copy(update={"variants": {"trial": variant}}).variant("trial", seed, "space")


def objective(recipe: Recipe, bundle: Path, data: Path | None) -> float:
    """The mean over all tasks of their main figure on the validation faces of the last stage; of a figure that is
    better when it is lower, such as an error, minus it."""
    stage, found = recipe.measured, load_bundle(bundle, quiet=True)
    pool = pool_of(stage, data, found.tasks, stage.data.validate_on)
    answers = predict(found.network, found.tasks, pool, cached=stage.network.cached)
    figures = []
    for name, task in found.tasks.items():
        result = task.evaluate(answers[name], pool.table)
        metric = result.metrics[0]
        figures.append(result.figure(metric) if metric.higher_is_better else -result.figure(metric))
    return float(np.mean(figures))


# ------------------------------------------------------------------------------------------------ one trial


def _start(
    study: Study,
    recipe: Recipe,
    data: Path | None,
    out: Path,
    options: RunOptions,
    earlier: Mapping[str, Path] | None,
) -> tuple[int, BaseProcess]:
    trial = study.ask(_distributions(recipe))
    quiet = replace(options, progress=None, logger="none", threads=options.threads or 1)
    given = (trial.number, trial._trial_id, _settings(trial.params), recipe, data, out, quiet, earlier)
    process = get_context("spawn").Process(target=_work, args=given, name=f"trial {trial.number}")
    process.start()
    return trial.number, process


def _work(
    number: int,
    key: int,
    settings: dict[str, Any],
    recipe: Recipe,
    data: Path | None,
    out: Path,
    options: RunOptions,
    earlier: Mapping[str, Path] | None,
) -> None:
    """Train and judge one trial, and tell the study; a process of its own."""
    import optuna

    end_with_parent()
    study = _study(out, recipe.seed)
    trial, own = optuna.trial.Trial(study, key), with_settings(recipe, settings)
    last = own.stages[-1].name

    def after_epoch(stage: str, row: Mapping[str, Any]) -> None:
        if stage == last and "validation" in row:
            trial.report(-float(np.mean(list(row["validation"].values()))), int(row["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

    try:
        # a process of a command that was killed may be at its end still
        with lock(_folder(out, settings), wait=30):
            run = stages.run(own, _folder(out, settings), data, replace(options, after_epoch=after_epoch), earlier)
            value = objective(own, run[last].bundle, data)
        if not np.isfinite(value):
            raise PolyfaceError("a figure is not defined on the validation faces")
        study.tell(number, value)
    except optuna.TrialPruned:
        study.tell(number, state=optuna.trial.TrialState.PRUNED)
    except Exception as error:  # whatever it is: the others go on
        trial.set_user_attr(_ERROR, short(error))
        study.tell(number, state=optuna.trial.TrialState.FAIL)


def _reap(study: Study, running: dict[int, BaseProcess]) -> None:
    """Take out the processes that have ended; a trial that its process has told nothing of was killed."""
    for number, process in [*running.items()]:
        if not process.is_alive():
            process.join()
            del running[number]
            trial = study.get_trials(deepcopy=False)[number]
            if trial.state.name == "RUNNING":
                _try_again(study, trial, f"its process was killed (exit status {process.exitcode})")


def _try_again(study: Study, trial: FrozenTrial, why: str = "") -> None:
    """Let another trial take over one that did not come to its end, at most `_RETRIES` times where it was killed.
    why: empty where the whole command was stopped."""
    from optuna.trial import TrialState

    times = int(trial.user_attrs.get("retries", 0)) + bool(why)
    if times > _RETRIES:
        study._storage.set_trial_user_attr(trial._trial_id, _ERROR, why)
    else:
        study._storage.set_trial_user_attr(trial._trial_id, _AGAIN, True)
        study.enqueue_trial(trial.params, user_attrs={"retries": times})
    study.tell(trial.number, state=TrialState.FAIL)


def _folder(out: Path, settings: Mapping[str, Any]) -> Path:
    told = json.dumps(settings, sort_keys=True)
    return out / "trials" / hashlib.sha256(told.encode()).hexdigest()[:12]


# ------------------------------------------------------------------------------------------------ the study


def _study(out: Path, seed: int) -> Study:
    """The study of a folder, made where there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    engine = {"connect_args": {"timeout": 60}}  # seconds that a process waits for another's write
    return optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{(out / 'study.db').absolute()}", engine_kwargs=engine),
        study_name=_NAME,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
        load_if_exists=True,
    )


def _distributions(recipe: Recipe) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, spec in recipe.space.items():
        if isinstance(spec, ChoicesSpec):
            found[key] = CategoricalDistribution([json.dumps(choice) for choice in spec.choices])  # lists among them
        else:
            kind: Any = (
                IntDistribution if isinstance(spec.low, int) and isinstance(spec.high, int) else FloatDistribution
            )
            found[key] = kind(spec.low, spec.high, log=spec.log)
    return found


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in params.items()}


def _in(study: Study, state: str) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == state]


def _counted(study: Study) -> int:
    """Trials that are finished, however they ended; those that others took over are no trials of their own."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.is_finished() and _AGAIN not in trial.user_attrs for trial in trials)


def _told(study: Study) -> str:
    values = [trial.value for trial in _in(study, "COMPLETE") if trial.value is not None]
    return f"best {max(values):.2f}" if values else "none is finished"


def _trial(found: FrozenTrial) -> Trial:
    value = found.value if found.state.name == "COMPLETE" else None
    why = str(found.user_attrs.get(_ERROR, ""))
    return Trial(found.number, _settings(found.params), value, found.state.name.lower(), why)
