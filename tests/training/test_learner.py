"""The learner: masks, stopping, validation, running mean, accumulation and checkpoints, in small trainings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyface.data.loader import FaceLoader, RawBatch, assemble
from polyface.data.store import open_source
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.training.progress import AllEpochs, learning_rate
from polyface.training.recipe import Recipe
from polyface.training.specs import OptimisationSpec
from polyface.training.terms import LossTerms

SMALL = {"data": {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16}}
NORMALISED = {
    "network": {
        "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "shared": 16, "dropout": 0.5}
    }
}
OPTIMISERS = ["sgd", "adamw", "rmsprop"]


@pytest.fixture
def recipe(toy) -> Callable[..., Recipe]:
    """``recipe(changes)``: five batches of 16 an epoch, ten faces to validate."""
    return lambda changes=None: recipes.load(toy(SMALL | (changes or {}) | {"data": SMALL["data"]}))


@pytest.fixture
def learner(recipe) -> Callable[..., Learner]:
    """``learner(changes)``: ready to take steps, without a trainer."""

    def make(changes: dict[str, Any] | None = None) -> Learner:
        chosen = recipe(changes)
        stage = chosen.stages[0]
        tasks = stages.stage_tasks(stage, every=True)
        pools = {part: stages.stage_pool(stage, part, None, tasks) for part in ("train", "val")}
        loaders = {
            part: FaceLoader(pool, 16, seed=3, stage="one", shuffle=part == "train") for part, pool in pools.items()
        }
        network = stages.build_network(stage, tasks, 3, {})
        weighting = stages.build_weighting(stage)
        return Learner(stage, 3, network, tasks, weighting, loaders["train"], loaders["val"])

    return make


def fit(recipe: Recipe, out: Path, **options: Any) -> stages.StageResult:
    defaults = {"accelerator": "cpu", "logger": "none"}
    return stages.run(recipe, out, None, stages.RunOptions(**defaults | options))["one"]


def first_batch(learner: Learner) -> RawBatch:
    return next(iter(learner.train_dataloader()))


def without_labels(raw: RawBatch, task: str) -> RawBatch:
    return replace(raw, labelled=raw.labelled | {task: torch.zeros_like(raw.labelled[task])})


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def gradients(learner: Learner, raw: RawBatch) -> dict[str, Tensor]:
    learner.zero_grad()
    learner.training_step(raw, 0).backward()
    return {name: p.grad.clone() for name, p in learner.network.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------------------------------------------- masks


def test_loss_is_the_mean_over_labelled_faces_of_each_term(learner) -> None:
    ours = learner()
    raw = first_batch(ours)
    seen = raw.labelled["smile"][:, 0]
    assert 0 < seen.sum() < 16  # photos alone are labelled
    batch = assemble(raw, ours.crop, ours.tasks, ours.spec.data.augment)
    with torch.no_grad():
        output = ours.network(batch.images)
        points = output.outputs["landmarks"].view(16, 5, 2) - batch.targets["landmarks"]
        by_hand = (points.square().sum(-1) / 2).mean(0).sum()
        by_hand += torch.nn.functional.cross_entropy(output.outputs["smile"][seen], batch.targets["smile"][seen])
        torch.testing.assert_close(ours.training_step(raw, 0), by_hand)


def test_an_absent_task_has_no_loss_no_gradient_and_no_nan(learner) -> None:
    ours = learner()
    raw = without_labels(first_batch(ours), "smile")
    absent = gradients(ours, raw)
    assert all(value.isfinite().all() for value in absent.values())
    assert (absent["heads.smile.weight"] == 0).all()
    assert (absent["heads.smile.bias"] == 0).all()
    alone = learner(
        {"tasks": {"smile": {"where": {"modality": "photo"}}}, "weighting": {"options": {"weights": {"smile": 0}}}}
    )
    only_points = gradients(alone, first_batch(alone))
    for name in absent:
        if not name.startswith("heads.smile"):
            torch.testing.assert_close(absent[name], only_points[name])
    assert ours.loss_counts.tolist() == [16.0] * 5 + [0.0]


@pytest.mark.parametrize("kind", ["l2", "l1", "wing"])
def test_unlabelled_points_poison_nothing(learner, kind: str) -> None:
    """NaN in the values where there is no label, as a table gives it: every gradient stays finite."""
    ours = learner({"tasks": {"landmarks": {"loss": kind}}})
    raw = first_batch(ours)
    values, labelled = raw.values["landmarks"].clone(), raw.labelled["landmarks"].clone()
    values[:4], labelled[:4] = math.nan, False
    values[4, 2], labelled[4, 2] = math.nan, False
    values[5, 0], labelled[5, 0] = math.nan, False  # one eye: where mirrored it changes places
    holes = replace(raw, values=raw.values | {"landmarks": values}, labelled=raw.labelled | {"landmarks": labelled})
    found = gradients(ours, holes)
    assert all(value.isfinite().all() for value in found.values())
    assert found["heads.landmarks.weight"].abs().sum() > 0
    assert sorted(ours.loss_counts[:5].tolist()) == [11.0, 11.0, 12.0, 12.0, 12.0]


def test_no_label_of_any_task_is_a_step_of_zero(learner) -> None:
    ours = learner()
    raw = without_labels(without_labels(first_batch(ours), "smile"), "landmarks")
    assert all((value == 0).all() for value in gradients(ours, raw).values())


# ------------------------------------------------------------------------------------------------- failures


def test_a_loss_that_is_not_finite_names_task_and_rows(recipe, tmp_path, monkeypatch) -> None:
    from polyface.tasks.classification import ClassificationTask

    plain = ClassificationTask.loss

    def broken(self: Any, output: Tensor, target: Tensor) -> Tensor:
        return plain(self, output, target).masked_fill((target == 1)[:, None], math.nan)

    monkeypatch.setattr(ClassificationTask, "loss", broken)
    chosen = recipe({"data": SMALL["data"]})
    with pytest.raises(PolyfaceError, match="stage one, step 0: the loss of smile is not finite") as caught:
        fit(chosen, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "landmarks" not in message
    pool = stages.stage_pool(chosen.stages[0], "train", None, stages.stage_tasks(chosen.stages[0]))
    assert pool is not None
    named = [int(part.split()[0]) for part in message.split("at rows ")[1].split(": lower")[0].split(", ")]
    smiles, modality = pool.table.words("smile"), pool.table.words("modality")
    assert named
    assert all(smiles[row] == "yes" and modality[row] == "photo" for row in named)
    assert all(pool.table.path(row) in message for row in named)


def test_a_diverging_run_says_what_to_do(recipe, tmp_path) -> None:
    with pytest.raises(PolyfaceError, match="landmarks.*not finite.*lower optimisation.lr"):
        fit(recipe({"optimisation": {"lr": 1e30, "schedule": "constant"}}), tmp_path)


# ------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_stopped_task_is_frozen_to_the_bit(recipe, tmp_path, monkeypatch, optimiser: str) -> None:
    """With momentum and weight decay, that would go on moving a head whose gradient is merely zero."""
    states: list[tuple[bool, dict[str, Tensor]]] = []
    after = Learner.on_train_batch_end

    def record(self: Learner, *args: Any) -> None:
        after(self, *args)
        states.append((bool(self.extras["stopping"].stopped), snapshot(self.network)))

    monkeypatch.setattr(Learner, "on_train_batch_end", record)
    changes = {
        "stopping": {"main": ["landmarks"], "window": 1, "threshold": -1e9, "every": 5},
        "optimisation": {"optimiser": optimiser, "weight_decay": 0.1, "epochs": 4, "lr": 0.003, "clip": 1.0},
    }
    result = fit(recipe(changes), tmp_path)
    assert result.history[-1]["stopped"] == {"smile": 2}
    running = [state for stopped, state in states if not stopped]
    frozen = [state for stopped, state in states if stopped]
    assert len(running) == 9
    assert len(frozen) == 11
    for a, b in itertools.pairwise(running):
        assert not torch.equal(a["heads.smile.weight"], b["heads.smile.weight"])
    for a, b in itertools.pairwise(frozen):
        assert torch.equal(a["heads.smile.weight"], b["heads.smile.weight"])
        assert torch.equal(a["heads.smile.bias"], b["heads.smile.bias"])
    for a, b in itertools.pairwise(frozen):  # the last step's rate is all but 0
        assert not torch.equal(a["heads.landmarks.weight"], b["heads.landmarks.weight"])
        assert not torch.equal(a["trunk.fc.weight"], b["trunk.fc.weight"])
    saved = load_bundle(result.bundle, quiet=True).network.state_dict()
    assert torch.equal(saved["heads.smile.weight"], frozen[0]["heads.smile.weight"])


def test_a_stopped_task_moves_the_trunk_by_exactly_nothing(learner) -> None:
    changes = {"stopping": {"main": ["landmarks"], "every": 1}}
    stopped, absent = learner(changes), learner(changes)
    stopped.extras["stopping"].stopped["smile"] = 1
    raw = first_batch(stopped)
    ours = gradients(stopped, raw)
    assert torch.equal(ours["heads.smile.weight"], torch.zeros_like(ours["heads.smile.weight"]))
    alone = gradients(absent, without_labels(raw, "smile"))
    assert same(ours, alone)
    both = gradients(learner(changes), raw)
    assert not torch.equal(both["trunk.fc.weight"], ours["trunk.fc.weight"])
    assert torch.equal(both["heads.landmarks.weight"], ours["heads.landmarks.weight"])


# ----------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize("changes", [{}, NORMALISED, NORMALISED | {"optimisation": {"ema": 0.5}}])
def test_validation_changes_nothing(recipe, tmp_path, monkeypatch, changes) -> None:
    """Neither weights, nor running statistics, nor modes, nor the state of the random generator; and it repeats."""
    original, calls = Learner.validation_totals, []

    def watched(self: Learner, network: Any) -> Any:
        if self._validated and self._validated[0] == self.batches_done:
            return original(self, network)
        before, random = snapshot(self), torch.get_rng_state()
        modes = {name: module.training for name, module in self.named_modules()}
        found = original(self, network)
        assert same(snapshot(self), before)
        assert torch.equal(torch.get_rng_state(), random)
        assert {name: module.training for name, module in self.named_modules()} == modes
        assert modes["network"] is True
        assert original(self, network) is found  # not computed again for the same step
        self._validated = None
        assert torch.equal(original(self, network), found)
        calls.append(found)
        return found

    monkeypatch.setattr(Learner, "validation_totals", watched)
    result = fit(recipe(changes), tmp_path)
    terms = {"landmarks": slice(0, 5), "smile": slice(5, 6)}
    assert [row["validation"] for row in result.history] == [LossTerms.means(totals, terms) for totals in calls]
    assert len(calls) == 3
    faces = calls[0][1].tolist()
    assert faces[:5] == [10] * 5
    assert 0 < faces[5] < 10


def test_validation_loss_by_hand(recipe, tmp_path) -> None:
    """The last epoch's figures from the saved network, one face at a time."""
    chosen = recipe(NORMALISED)
    result = fit(chosen, tmp_path)
    bundle = load_bundle(result.bundle, quiet=True)
    tasks = stages.stage_tasks(chosen.stages[0])
    pool = stages.stage_pool(chosen.stages[0], "val", None, tasks)
    assert pool is not None
    each: dict[str, list[Tensor]] = {name: [] for name in tasks}
    with torch.inference_mode():
        for raw in FaceLoader(pool, 1, shuffle=False):
            batch = assemble(raw, pool.crop, tasks, None)
            output = bundle.network(batch.images).outputs
            for name, task in tasks.items():
                if batch.labelled[name].any():
                    each[name].append(task.loss(output[name], batch.targets[name])[0])
    expected = {name: float(torch.stack(values).mean(0).sum()) for name, values in each.items()}
    assert result.history[-1]["validation"] == pytest.approx(expected, rel=1e-4)


def test_validating_every_second_epoch_and_at_the_end(recipe, tmp_path) -> None:
    result = fit(recipe({"optimisation": {"validate_every": 2}}), tmp_path)
    assert ["validation" in row for row in result.history] == [False, True, True]


def test_best_epoch_is_kept(recipe, tmp_path, monkeypatch) -> None:
    """With a rate that grows worse the last epoch is not the best; the saved network is the best epoch's."""
    original, states = Learner.end_epoch, []

    def record(self: Learner, epoch: int) -> None:
        original(self, epoch)
        states.append(snapshot(self.evaluated))

    monkeypatch.setattr(Learner, "end_epoch", record)
    changes = {
        "optimisation": {"lr": 0.1, "epochs": 8, "schedule": "constant", "clip": 1.0},
        "evaluation": {"select": "best"},
    }
    result = fit(recipe(changes), tmp_path)
    errors = [row["validation"]["landmarks"] for row in result.history]
    best = errors.index(min(errors))
    assert best < 7, "choose settings for which the last epoch is not the best"
    assert same(load_bundle(result.bundle, quiet=True).network.state_dict(), states[best])
    assert not same(states[best], states[-1])


# --------------------------------------------------------------------------------- running mean, accumulation


@pytest.mark.parametrize("accumulate", [1, 2])
def test_running_mean_of_weights_by_hand(recipe, tmp_path, monkeypatch, accumulate: int) -> None:
    """mean ← d·mean + (1 − d)·weights after every step, d = min(0.9, (1 + t)/(10 + t)); statistics are copied."""
    original, states = Learner.on_train_batch_end, []

    def record(self: Learner, *args: Any) -> None:
        if not states:
            states.append(snapshot(self.extras["running-mean"].network))
        original(self, *args)
        states.append(snapshot(self.network))

    monkeypatch.setattr(Learner, "on_train_batch_end", record)
    result = fit(recipe(NORMALISED | {"optimisation": {"ema": 0.9, "accumulate": accumulate, "lr": 0.01}}), tmp_path)
    mean, steps = states[0], states[1:]
    taken = [state for i, state in enumerate(steps, 1) if i % accumulate == 0 or i == len(steps)]
    for t, state in enumerate(taken, 1):
        d = min(0.9, (1 + t) / (10 + t))
        mean = {k: d * mean[k] + (1 - d) * v if v.is_floating_point() else v for k, v in state.items()}
    saved = load_bundle(result.bundle, quiet=True).network.state_dict()
    statistics = [name for name in saved if "running" in name or "tracked" in name]
    assert statistics
    for name, value in saved.items():
        expected = steps[-1][name] if name in statistics else mean[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(saved["heads.landmarks.weight"], steps[-1]["heads.landmarks.weight"])


def test_the_schedule_ends_with_the_last_step_however_many_batches_a_step_takes(recipe, tmp_path) -> None:
    """Four epochs of five batches, two batches a step: 2, 5, 7 and 10 of ten steps are done when an epoch ends."""
    optimisation = {"lr": 0.01, "epochs": 4, "schedule": "cosine", "accumulate": 2}
    history = fit(recipe({"optimisation": optimisation}), tmp_path).history
    by_hand = [0.01 * (1 + math.cos(math.pi * done / 10)) / 2 for done in (2, 5, 7, 10)]
    assert [row["lr"] for row in history] == pytest.approx(by_hand)


def test_accumulated_micro_batches_are_each_normalised_by_their_own_counts(
    recipe, learner, tmp_path, monkeypatch
) -> None:
    """The first step of plain SGD is −lr times the mean of the two micro-batches' own gradients."""
    changes = {
        "optimisation": {
            "optimiser": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "lr": 0.1,
            "schedule": "constant",
            "accumulate": 2,
        }
    }
    ours = learner(changes)
    batches = iter(ours.train_dataloader())
    raws = [next(batches), next(batches)]
    counts = [int(raw.labelled["smile"].sum()) for raw in raws]
    assert counts[0] != counts[1]
    before = snapshot(ours.network)
    micro = [gradients(ours, raw) for raw in raws]
    expected = {name: before[name] - 0.1 * (micro[0][name] + micro[1][name]) / 2 for name in micro[0]}
    states: list[dict[str, Tensor]] = []
    original = Learner.on_train_batch_end

    def record(self: Learner, *args: Any) -> None:
        states.append(snapshot(self.network))
        original(self, *args)

    monkeypatch.setattr(Learner, "on_train_batch_end", record)
    fit(recipe(changes), tmp_path)
    assert same(states[0], before)
    for name, value in expected.items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------- order, rate, files


@given(st.integers(1, 6), st.data())
def test_all_epochs_begin_anywhere(epochs: int, data: st.DataObject) -> None:
    class Numbered:
        epoch, first = 0, 0

        def __len__(self) -> int:
            return 4

        def __iter__(self):
            first, self.first = self.first, 0
            yield from ((self.epoch, i) for i in range(first, 4))

    start = data.draw(st.integers(0, 4 * epochs))
    whole = [(epoch, i) for epoch in range(epochs) for i in range(4)]
    part = AllEpochs(Numbered(), epochs, start)  # type: ignore[arg-type]
    assert list(part) == whole[start:]
    assert len(part) == len(whole) - start


def rate(done: float, **optimisation: Any) -> float:
    class Stage:
        pass

    stage = Stage()
    stage.optimisation = OptimisationSpec(**optimisation)  # type: ignore[attr-defined]
    return learning_rate(stage, done)  # type: ignore[arg-type]


def test_learning_rates_by_hand() -> None:
    assert [rate(x, schedule="constant") for x in (0, 0.5, 1)] == [1, 1, 1]
    assert [rate(x, schedule="cosine") for x in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [rate(x, schedule="cosine", warmup=0.2) for x in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx(
        [1e-3, 0.5, 1, 0.5, 0]
    )
    steps = {"schedule": "steps", "milestones": [0.5, 0.75]}
    assert [rate(x, **steps) for x in (0, 0.49, 0.5, 0.8)] == pytest.approx([1, 1, 0.1, 0.01])


@given(st.floats(0, 1), st.sampled_from(["constant", "cosine", "steps"]), st.floats(0, 0.9))
def test_learning_rate_is_never_negative_nor_above_its_maximum(done: float, schedule: str, warmup: float) -> None:
    assert 0 <= rate(done, schedule=schedule, warmup=warmup) <= 1


def test_biases_and_norms_do_not_decay(learner) -> None:
    ours = learner(NORMALISED)
    optimiser = ours.configure_optimizers()["optimizer"]
    decayed = {id(p) for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in ours.network.named_parameters() if id(p) in decayed}
    assert names == {name for name, p in ours.network.named_parameters() if p.ndim > 1}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(ours.network.parameters()))


def only_primitives(value: Any) -> bool:
    if isinstance(value, dict):
        return all(only_primitives(k) and only_primitives(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(only_primitives, value))
    return value is None or type(value) in (bool, int, float, str, Tensor)


def test_checkpoint_holds_tensors_and_primitives_alone(recipe, tmp_path) -> None:
    changes = NORMALISED | {
        "optimisation": {"optimiser": "adamw", "ema": 0.9},
        "stopping": {"main": ["landmarks"], "window": 1, "every": 5},
        "evaluation": {"select": "best"},
    }
    fit(recipe(changes), tmp_path)
    saved = torch.load(tmp_path / "one" / "last.ckpt", weights_only=True)
    assert only_primitives({k: list(v.items()) if k == "state_dict" else v for k, v in saved.items()})
    assert saved["polyface"]["batches_done"] == 15
    assert "extras.stopping.criterion._extra_state" in saved["state_dict"]
    assert any(name.startswith("extras.running-mean.network.") for name in saved["state_dict"])


def test_a_finished_stage_is_not_trained_again(recipe, tmp_path, monkeypatch) -> None:
    chosen = recipe()
    first = fit(chosen, tmp_path)

    def refuse(*args: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", refuse)
        again = fit(chosen, tmp_path)
        assert (again.bundle, again.history) == (first.bundle, first.history)
        with pytest.raises(AssertionError, match="trained again"):
            fit(chosen, tmp_path, fresh=True)
    assert fit(chosen, tmp_path, fresh=True).history == first.history


@pytest.mark.parametrize("unlabelled", ["train", "val"])
def test_a_side_task_needs_labels_where_it_is_learnt_and_nowhere_else(toy, tmp_path, unlabelled: str) -> None:
    """People of the training part are not in the others: their identities are learnt, and never validated."""
    found = open_source("synthetic", None, {"n": 200, "size": 48, "seed": 1})
    splits, points = found.words("split"), found.points("landmarks_5")

    def record(row: int) -> Record:
        who = None if splits[row] == unlabelled else "ab"[row % 2]
        known = {"landmarks_5": points[row], "split": splits[row], "identity": who}
        return Record(found.image(row), f"row {row}", f"{row}.png", known)

    write_table(map(record, range(200)), tmp_path / "faces.parquet")
    changes = {"data": {"tables": [{"name": str(tmp_path / "faces.parquet")}]}, "optimisation": {"epochs": 1}}
    who = '{"kind": "classification", "column": "identity", "vocabulary": ["a", "b"]}'
    chosen = recipes.load(toy(changes), [f"one.tasks.who={who}", "one.tasks.smile=null"])
    options = stages.RunOptions(accelerator="cpu", logger="none")
    if unlabelled == "train":
        with pytest.raises(PolyfaceError, match="stage one, task 'who': no face with split 'train' is labelled"):
            stages.run(chosen, tmp_path / "out", None, options)
    else:
        (row,) = stages.run(chosen, tmp_path / "out", None, options)["one"].history
        assert set(row["train"]) == {"landmarks", "who"}
        assert set(row["validation"]) == {"landmarks"}
