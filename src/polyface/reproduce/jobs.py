"""Jobs: a row of a recipe's table at a seed, trained once, whose answers are kept for whatever judges them."""

from __future__ import annotations

import fnmatch
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from polyface.data.table import Progress
from polyface.errors import PolyfaceError, short
from polyface.files import atomic_path, lock
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import TTA, Degradation, predict
from polyface.networks.heads import EMBEDDED
from polyface.tasks import Task
from polyface.training import stages
from polyface.training.processes import asked_to_stop, end_with_parent
from polyface.training.recipe import MOST_SEEDS, Recipe, VariantSpec, slug
from polyface.training.records import HISTORY, inputs_of, read_record, weights_of
from polyface.training.specs import StageSpec, same_settings
from polyface.training.stages import pool_of
from polyface.training.trainer import begun_otherwise

Answers = dict[str, dict[str, np.ndarray]]
"""{task: {key: array over the faces of a part}}: {"landmarks": {"points": [N, P, 2]}, …}."""


@dataclass(frozen=True)
class Job:
    """One training and measuring run: a variant at a seed."""

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


def chosen(recipe: Recipe, only: Sequence[str] = ()) -> list[str]:
    """The variants that match one of the wildcards; all where there are none."""
    found = [name for name in recipe.variants if not only or any(fnmatch.fnmatchcase(name, o) for o in only)]
    if not recipe.variants:
        raise PolyfaceError(f"recipe {recipe.name} has no variants, the rows of a table; train it: polyface train")
    if not found:
        raise PolyfaceError(f"no variant matches {', '.join(only)}; there are: {', '.join(recipe.variants)}")
    return found


def jobs(recipe: Recipe, only: Sequence[str] = (), seeds: int | None = None) -> list[Job]:
    """What there is to run, by seed so that a stopped reproduction has whole rows of the first seeds."""
    names = chosen(recipe, only)
    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise PolyfaceError(f"--seeds is {seeds}; expected 1 … {MOST_SEEDS}")
    for name in names:
        recipe.variant(name)  # what is wrong with any of them is told before the first is trained
    found = [Job(name, seed) for name in names for seed in range(seeds or recipe.variants[name].seeds)]
    return sorted(found, key=lambda job: (_depth(recipe, job.variant), job.seed))


def _depth(recipe: Recipe, name: str) -> int:
    """How many variants, one after the other, must be finished before this one."""
    return max((1 + _depth(recipe, other) for other in recipe.variants[name].needs), default=0)


def hours(recipe: Recipe, todo: Sequence[Job]) -> float:
    """Estimated hours of one core."""
    return sum(recipe.variants[job.variant].minutes for job in todo) / 60


# ------------------------------------------------------------------------------------------------ where jobs are kept


def folder(out: Path, job: Job) -> Path:
    return out / slug(job.variant) / f"seed{job.seed}"


def answers_path(out: Path, job: Job, part: str = "test") -> Path:
    """Where a job's answers on the faces of a part (test, val) are kept."""
    return folder(out, job) / f"{part}.npz"


def stored(out: Path, job: Job, part: str = "test") -> Answers:
    """The answers that a finished job gave on the faces of a part."""
    found: Answers = {}
    with _opened(answers_path(out, job, part)) as file:
        for name in file.files:
            task, slash, key = name.rpartition("/")
            if slash:
                found.setdefault(task, {})[key] = file[name]
    return found


def _store(
    path: Path, answers: Mapping[str, Mapping[str, Any]], missed: int, source: dict[str, Any] | None = None
) -> None:
    """Keep all that is an array; words follow from probabilities. missed: faces cropped without a detected box.
    source: what the answers are of (`_source`), where that is known."""
    arrays: dict[str, Any] = {
        f"{task}/{key}": value
        for task, answer in answers.items()
        for key, value in answer.items()
        if isinstance(value, np.ndarray)
    }
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **arrays, missed=np.asarray(missed), source=np.asarray(json.dumps(source)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of answers."""
    try:
        with np.load(path) as file:
            yield file
    except (BadZipFile, EOFError, KeyError, ValueError, zlib.error) as error:
        raise PolyfaceError(f"{path}: not readable answers ({short(error)}); delete it, and run again") from error


def _source(recipe: Recipe, out: Path, job: Job, part: str, data: Path | None) -> dict[str, Any]:
    """What answers of a job are made from: its network's weights, its faces, and how it looks at them; of a mean, what
    the answers are that it is of. Without the faces, where they are not here."""
    variant, own = recipe.variants[job.variant], recipe.variant(job.variant, job.seed)
    stage = own.measured
    told: dict[str, Any] = {"part": part}
    if variant.average:
        told["of"] = [_source(recipe, out, Job(name, job.seed), part, data) for name in variant.average]
    elif variant.predictor != "detector":
        place = folder(out, Job(variant.model or job.variant, job.seed))
        told["weights"] = weights_of(place / stage.name / "model")
    view = stage.evaluation
    told["views"] = [view.translations, view.spread, view.mirror]
    told["degraded"] = [view.covered, view.pixels]
    told["crop"], told["boxes"] = stage.data.crop.model_dump(), stage.data.boxes.model_dump()
    told["tasks"] = stage.tasks
    told["tables"] = [table.model_dump(exclude={"ratio", "faces"}) for table in stage.data.tables]
    faces = inputs_of(stage, data, {}).data
    told["faces"] = faces and [one.fingerprint for one in faces]
    return told


def trains(variant: VariantSpec) -> bool:
    """Whether a variant has a network of its own."""
    return variant.predictor == "network" and not variant.model and not variant.average


def record(out: Path, job: Job, stage: str) -> dict[str, Any] | None:
    """What a finished training left of a stage: settings, history (an epoch each) and seconds."""
    kept = read_record(folder(out, job) / stage)
    return None if kept is None else kept.model_dump()


def trained(recipe: Recipe, out: Path, job: Job, data: Path | None = None) -> bool:
    """Whether all stages of a job were trained with the settings that they have now, and on the data that is there."""
    return all(_current(recipe, out, job, data).values())


def _current(recipe: Recipe, out: Path, job: Job, data: Path | None) -> dict[str, bool | None]:
    """Whether each stage of a job was trained with the settings, data and starts that it has now; None: not to its end.
    Data that is not here is taken to be what it was."""
    place, found = folder(out, job), dict[str, bool | None]()
    earlier, own = _earlier(recipe, out, job), recipe.variant(job.variant, job.seed).stages
    for stage in own if trains(recipe.variants[job.variant]) else own[-1:]:
        kept = read_record(place / stage.name)
        found[stage.name] = None
        if kept is not None:
            same = same_settings(stage, job.seed, kept.settings)
            found[stage.name] = same and not inputs_of(stage, data, earlier).changed(kept)
        earlier[stage.name] = place / stage.name / "model"
    return found


def _earlier(recipe: Recipe, out: Path, job: Job) -> dict[str, Path]:
    """The bundles that a job starts from, by the names of their stages."""
    return {
        stage: folder(out, start) / stage / "model"
        for start in _starts(recipe, job)
        for stage in recipe.variants[start.variant].stages
    }


def _starts(recipe: Recipe, job: Job) -> list[Job]:
    """The jobs that one starts from: of the same seed, or where the recipe has fewer of them, in turn."""
    return [Job(name, job.seed % recipe.variants[name].seeds) for name in recipe.variants[job.variant].start]


def started(
    recipe: Recipe, name: str, data: Path | None, out: Path, options: stages.RunOptions, seed: int = 0
) -> dict[str, Path]:
    """The bundles that a variant starts from at a seed, by the names of their stages; they are trained if they are not
    yet."""
    job = Job(name, seed)
    run_jobs(recipe, before(recipe, job), data, out, options, parts=())
    return _earlier(recipe, out, job)


def before(recipe: Recipe, job: Job) -> list[Job]:
    """The jobs that one starts from, each after those that it starts from itself."""
    return list(dict.fromkeys(one for start in _starts(recipe, job) for one in (*before(recipe, start), start)))


def _set_aside(recipe: Recipe, out: Path, job: Job, data: Path | None) -> None:
    """Move what a job's training with other settings or on other data left, finished or not, the answers of its network
    among it, to `stale/<number>`, where nothing reads it."""
    place, current = folder(out, job), _current(recipe, out, job, data)
    changed = [place / name for name, same in current.items() if same is False]
    for stage in recipe.variant(job.variant, job.seed).stages:
        path = place / stage.name
        if current.get(stage.name, True) is None and path.exists():
            with lock(path):  # or a run that goes on elsewhere would lose its place
                changed += [path] if begun_otherwise(path, stage, job.seed) else []
    if left := [*place.glob("*.npz"), *changed]:
        aside = next(one for number in count(1) if not (one := place / "stale" / str(number)).exists())
        aside.mkdir(parents=True)
        for path in left:
            path.rename(aside / path.name)


def answered(recipe: Recipe, out: Path, job: Job, part: str, data: Path | None = None) -> bool:
    """Whether a job's answers on the faces of a part are kept, and are of the network and the faces that there are.

    Those of older versions do not say what they are of: they must be no older than the network.
    """
    path, variant = answers_path(out, job, part), recipe.variants[job.variant]
    if not path.exists():
        return False
    sources = [answers_path(out, Job(name, job.seed), part) for name in variant.average]
    if measured := variant.model:
        sources.append(folder(out, Job(measured, job.seed)) / recipe.variant(measured).stages[-1].name / HISTORY)
    if not all(source.exists() and path.stat().st_mtime >= source.stat().st_mtime for source in sources):
        return False
    with _opened(path) as file:
        kept = json.loads(str(file["source"])) if "source" in file.files else None
    return _same(kept, json.loads(json.dumps(_source(recipe, out, job, part, data))))


def _same(kept: Any, now: Any) -> bool:
    """Whether two sources are one, as far as both are known."""
    if isinstance(kept, dict) and isinstance(now, dict):
        return all(_same(kept.get(key), value) for key, value in now.items())
    if isinstance(kept, list) and isinstance(now, list):
        return len(kept) == len(now) and all(map(_same, kept, now))
    return kept is None or now is None or bool(kept == now)


def finished(recipe: Recipe, out: Path, job: Job, parts: Sequence[str] = ("test",), data: Path | None = None) -> bool:
    """Whether a job has nothing left to do: trained as the recipe says now, its answers on these parts kept."""
    if not recipe.has_row(job.variant):
        return trained(recipe, out, job, data)
    if not all(answered(recipe, out, job, part, data) for part in parts):
        return False
    variant = recipe.variants[job.variant]
    if variant.average:
        return all(finished(recipe, out, Job(name, job.seed), parts, data) for name in variant.average)
    return variant.predictor == "detector" or trained(recipe, out, Job(variant.model or job.variant, job.seed), data)


# ------------------------------------------------------------------------------------------------ running jobs


def run_job(
    recipe: Recipe,
    job: Job,
    data: Path | None,
    out: Path,
    options: stages.RunOptions,
    parts: Sequence[str] = ("test",),
) -> None:
    """Train a variant at a seed (resuming), then keep the answers of all its tasks on the faces of `parts`."""
    own = recipe.variant(job.variant, job.seed)
    if not recipe.has_row(job.variant):
        _network(recipe, own, job, data, out, options)
        return
    stage = own.measured
    if recipe.variants[job.variant].predictor == "detector":
        for part in parts:
            pool = pool_of(stage, data, {}, part)
            if pool.detector_points is None:
                raise PolyfaceError(
                    f"variant '{job.variant}': data.boxes.source must be detector or points to take its points"
                )
            answers = {stage.evaluation.main: {"points": pool.detector_points}}
            source = _source(recipe, out, job, part, data)
            _store(answers_path(out, job, part), answers, pool.missed, source)
        return
    if averaged := recipe.variants[job.variant].average:
        for part in parts:
            others = [Job(name, job.seed) for name in averaged]
            source = _source(recipe, out, job, part, data)
            _average(stages.stage_tasks(stage, data, every=True), others, job, out, part, source)
        return
    bundle = load_bundle(_network(recipe, own, job, data, out, options), quiet=True)
    tasks, chosen = _tasks(stage, bundle, data), stage.evaluation
    tta = TTA(chosen.translations, chosen.spread, chosen.mirror)
    degradation = Degradation(chosen.covered, chosen.pixels) if chosen.covered or chosen.pixels else None
    for part in parts:
        if answered(recipe, out, job, part, data):
            continue
        source = _source(recipe, out, job, part, data)
        pool = pool_of(stage, data, {}, part)
        found = predict(bundle.network, tasks, pool, tta=tta, cached=stage.network.cached, degradation=degradation)
        _store(answers_path(out, job, part), found, pool.missed, source)


def _average(
    tasks: Mapping[str, Task], others: Sequence[Job], job: Job, out: Path, part: str, source: dict[str, Any]
) -> None:
    """Keep the mean of other jobs' answers; what follows from their numbers follows from the mean.

    Embeddings of two networks have no axes in common, so it is their squared distances that are averaged: the
    embeddings are laid end to end, over √jobs.
    """
    if lacking := [other for other in others if not answers_path(out, other, part).exists()]:
        raise PolyfaceError(f"variant '{job.variant}' averages '{lacking[0].variant}': run that one first")
    given = [stored(out, other, part) for other in others]
    no_tasks = (name for name in given[0] if name not in tasks and all(name in one for one in given))
    answers: dict[str, dict[str, Any]] = {}
    for name in [*tasks, *(name for name in no_tasks if set(given[0][name]) <= set(EMBEDDED))]:
        mean = {}
        for key in (key for key, value in given[0][name].items() if np.issubdtype(value.dtype, np.floating)):
            each = [one[name][key] for one in given]
            mean[key] = np.hstack(each) / np.float32(len(each) ** 0.5) if key in EMBEDDED else np.mean(each, axis=0)
        answers[name] = tasks[name].conclude(mean) if name in tasks else mean
    _store(answers_path(out, job, part), answers, missed=0, source=source)


def _tasks(stage: StageSpec, bundle: Bundle, data: Path | None) -> dict[str, Task]:
    """A bundle's tasks, with the thresholds it found only where the stage lets them move."""
    tasks, moved = stages.stage_tasks(stage, data, every=True), stage.moved
    return {name: bundle.tasks[name] if name in moved else task for name, task in tasks.items()}


def _network(recipe: Recipe, own: Recipe, job: Job, data: Path | None, out: Path, options: stages.RunOptions) -> Path:
    """The bundle that a job measures: another variant's, one that is trained already, or one trained now."""
    variant, place, last = recipe.variants[job.variant], folder(out, job), own.stages[-1].name
    if variant.model:
        source = folder(out, Job(variant.model, job.seed)) / last / "model"
        if not source.exists():
            raise PolyfaceError(f"variant '{job.variant}' measures '{variant.model}': run that one first")
        return source
    if trained(recipe, out, job, data):
        return place / last / "model"
    _set_aside(recipe, out, job, data)
    earlier = _earlier(recipe, out, job)
    if variant.predictor == "start":
        return stages.untrained(own, place, data, earlier)
    return stages.run(own, place, data, options, earlier)[last].bundle


def run_jobs(
    recipe: Recipe,
    todo: Sequence[Job],
    data: Path | None,
    out: Path,
    options: stages.RunOptions,
    workers: int = 1,
    progress: Progress | None = None,
    parts: Sequence[str] = ("test",),
    failed: dict[Job, Exception] | None = None,
) -> None:
    """Run what is not finished, in `workers` processes; a stopped reproduction goes on where it was.

    failed: takes the jobs that could not be finished and why, and the others go on; without it the first one raises.
    """
    left = [job for job in todo if not finished(recipe, out, job, parts, data)]
    done = len(todo) - len(left)
    depths = sorted({_depth(recipe, job.variant) for job in left})
    attempt = partial(_tried, recipe, data=data, out=out, parts=parts)
    for wave in ([job for job in left if _depth(recipe, job.variant) == depth] for depth in depths):
        for job, error in _each(wave, attempt, options, workers):
            done += 1
            if error is not None:
                if failed is None:
                    raise error
                failed[job] = error
            if progress:
                progress(done, len(todo), f"runs · {job}" + ("" if error is None else f" failed: {error}"))


def _each(
    wave: Sequence[Job], attempt: Callable[..., Exception | None], options: stages.RunOptions, workers: int
) -> Iterator[tuple[Job, Exception | None]]:
    """The jobs of a wave as they end, with what stopped those that failed."""
    if workers <= 1:
        for job in wave:
            yield job, attempt(job, options=options)
        return
    quiet = replace(options, progress=None, threads=options.threads or 1)
    spawn, others = get_context("spawn"), active_children()
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool, asked_to_stop():
        futures = {pool.submit(attempt, job, options=quiet): job for job in wave}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            _stop(futures, others)
            raise PolyfaceError(
                "one of the processes that run was killed, or took more memory than there is, and the others were "
                "stopped; the same command goes on, with fewer --workers in less memory"
            ) from None
        except BaseException:  # the caller raised, or this process was asked to stop
            _stop(futures, others)
            raise


def _stop(futures: Iterable[Future[Any]], others: Sequence[BaseProcess]) -> None:
    """Let the processes that run stop where they can be resumed. others: children that are none of them."""
    for future in futures:
        future.cancel()
    for process in active_children():
        if process not in others:
            process.terminate()


def _tried(*given: Any, **more: Any) -> Exception | None:
    """Run a job (`run_job`); what stopped it is the caller's to raise, or to tell and go on."""
    try:
        run_job(*given, **more)
    except Exception as error:
        return error
    except KeyboardInterrupt:
        if parent_process() is None:
            raise
        os._exit(130)  # a worker that was asked to stop takes no other job
    return None
