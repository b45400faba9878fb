"""What goes wrong around a training: full disks, damaged or foreign checkpoints, missing data. One line each."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from polyface.errors import PolyfaceError
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner


@pytest.fixture
def train(toy, tmp_path) -> Callable[..., stages.StageResult]:
    """``train(changes)``: the small recipe into tmp_path/run; two epochs of five steps, saved after every second."""

    def run(changes: dict[str, Any] | None = None, seed: int = 3, **options: Any) -> stages.StageResult:
        recipe = recipes.load(toy({"optimisation": {"epochs": 2}} | (changes or {}), seed))
        defaults = {"accelerator": "cpu", "logger": "none", "checkpoint_steps": 2}
        return stages.run(recipe, tmp_path / "run", None, stages.RunOptions(**defaults | options))["one"]

    return run


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return tmp_path / "run" / "one" / "last.ckpt"


@pytest.fixture
def half_done(train, checkpoint, monkeypatch) -> Path:
    """A run that ended without warning after four of ten steps; its checkpoint."""
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(4))
        with pytest.raises(Gone):
            train()
    assert checkpoint.exists()
    return checkpoint


class Gone(Exception):
    """Stands for whatever ends a process."""


def stopping_at(step: int) -> Callable[..., Any]:
    original = Learner.training_step

    def training_step(self: Learner, *args: Any) -> Any:
        if self.batches_done == step:
            raise Gone
        return original(self, *args)

    return training_step


def one_line(caught: pytest.ExceptionInfo[PolyfaceError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# ------------------------------------------------------------------------------------------------ full disk


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """``small_files(n)``: from now on the system lets this process write no file beyond n bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_after(size: int) -> Callable[..., None]:
    """A `save_checkpoint` that meets a full disk after so many bytes."""

    def save(self: Any, path: Path, *args: Any, **kwargs: Any) -> None:
        Path(path).write_bytes(bytes(size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return save


def test_full_disk_while_saving_keeps_the_old_checkpoint(train, half_done, monkeypatch) -> None:
    before = half_done.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("lightning.pytorch.Trainer.save_checkpoint", full_after(5000))
        expected = "the disk is full; the previous checkpoint is whole.*free some space"
        with pytest.raises(PolyfaceError, match=expected) as caught:
            train()
    assert str(half_done) in one_line(caught)
    assert half_done.read_bytes() == before
    assert torch.load(half_done, weights_only=True)["polyface"]["batches_done"] == 4
    assert [path.name for path in half_done.parent.iterdir()] == ["last.ckpt"]

    result = train()  # with room again, the run goes on and ends as if nothing had been
    resumed = (result.bundle / "model.safetensors").read_bytes()
    whole = train(fresh=True)
    assert resumed == (whole.bundle / "model.safetensors").read_bytes()


def test_a_write_that_the_system_refuses_keeps_the_old_checkpoint(train, half_done, small_files) -> None:
    """Nothing is replaced here: the system itself refuses to write more than half of the checkpoint."""
    before = half_done.read_bytes()
    small_files(len(before) // 2)
    with pytest.raises(PolyfaceError, match="could not save .*; the previous checkpoint is whole") as caught:
        train()
    one_line(caught)
    small_files(10 * len(before))
    assert half_done.read_bytes() == before
    assert [path.name for path in half_done.parent.iterdir()] == ["last.ckpt"]
    assert len(train().history) == 2


def test_full_disk_at_the_first_save_says_there_is_none(train, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("lightning.pytorch.Trainer.save_checkpoint", full_after(10))
    with pytest.raises(PolyfaceError, match="the disk is full; there was none before") as caught:
        train()
    one_line(caught)
    assert list(checkpoint.parent.glob("*.ckpt*")) == list(checkpoint.parent.glob(".*ckpt*")) == []


def test_other_errors_of_the_disk_are_named(train, monkeypatch) -> None:
    def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "last.ckpt")

    monkeypatch.setattr("lightning.pytorch.Trainer.save_checkpoint", denied)
    with pytest.raises(PolyfaceError, match="could not save .*Permission denied") as caught:
        train()
    one_line(caught)


def test_full_disk_while_writing_the_model(train, checkpoint, monkeypatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("polyface.models.bundle.save_file", full)
        with pytest.raises(PolyfaceError, match="could not write the model .the disk is full") as caught:
            train()
    one_line(caught)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["last.ckpt"]
    assert train().bundle.exists()  # nothing is trained again for it


# -------------------------------------------------------------------------------------- damaged checkpoints


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"",
        lambda whole: b"not a checkpoint",
        lambda whole: whole[:1000] + bytes(1000) + whole[2000:],
    ],
    ids=["half", "one byte short", "empty", "text", "hole"],
)
def test_damaged_checkpoint_says_what_to_do(train, half_done, damage) -> None:
    whole = half_done.read_bytes()
    half_done.write_bytes(damage(whole))
    with pytest.raises(PolyfaceError, match="last.ckpt: not a readable checkpoint.*--fresh") as caught:
        train()
    one_line(caught)
    half_done.write_bytes(whole)
    assert len(train().history) == 2


def test_foreign_checkpoint_is_refused(train, half_done) -> None:
    torch.save({"state_dict": {}}, half_done)
    with pytest.raises(PolyfaceError, match="not a readable checkpoint.*--fresh") as caught:
        train()
    one_line(caught)


def test_checkpoint_that_would_run_code_is_refused(train, half_done, tmp_path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"polyface": Trap()}, half_done)
    with pytest.raises(PolyfaceError, match="not a readable checkpoint"):
        train()
    assert not (tmp_path / "sprung").exists()


def test_fresh_starts_over_whatever_lies_there(train, half_done) -> None:
    half_done.write_bytes(b"not a checkpoint")
    assert len(train(fresh=True).history) == 2


# ------------------------------------------------------------------------------------------ other settings


@pytest.mark.parametrize(
    "changes, seed, what",
    [
        ({"optimisation": {"epochs": 2, "lr": 0.5}}, 3, "settings"),
        ({"optimisation": {"epochs": 3}}, 3, "settings"),
        ({"optimisation": {"epochs": 1}}, 3, "settings"),
        ({"data": {"batch": 80}}, 3, "settings"),
        ({"network": {"trunk": {"name": "tcdcn", "filters": "unshared"}}}, 3, "settings"),
        ({"tasks": {"glasses": {"kind": "classification", "column": "glasses"}}}, 3, "settings"),
        ({}, 4, "seed"),
    ],
)
def test_resuming_with_other_settings_is_refused(train, half_done, changes, seed, what) -> None:
    before = half_done.read_bytes()
    with pytest.raises(PolyfaceError, match=f"stage one: the checkpoint was made with other {what}.*--fresh") as caught:
        train(changes, seed)
    one_line(caught)
    assert half_done.read_bytes() == before


def test_resuming_on_other_data_is_refused(train, half_done, monkeypatch) -> None:
    """The same recipe, but the table it names has changed."""
    from polyface.data.table import FaceTable

    opened = FaceTable.open

    def changed(*paths: Any) -> FaceTable:
        table = opened(*paths)
        table.fingerprint += "changed"
        return table

    monkeypatch.setattr(FaceTable, "open", changed)
    with pytest.raises(PolyfaceError, match="other data") as caught:
        train()
    one_line(caught)


def test_a_finished_stage_with_other_settings_is_not_passed_off_as_done(train) -> None:
    train()
    with pytest.raises(PolyfaceError, match="other settings.*--fresh"):
        train({"optimisation": {"epochs": 3}})


# ---------------------------------------------------------------------------------- data and settings at all


def test_missing_data_set_says_what_was_expected_where(toy, tmp_path) -> None:
    recipe = recipes.load(toy({"data": {"tables": [{"name": "mtfl"}]}}))
    (tmp_path / "data").mkdir()
    missing = re.escape(str(tmp_path / "data" / "mtfl"))
    for data, expected in ((None, "no data folder"), (tmp_path / "data", f"{missing} is missing")):
        with pytest.raises(PolyfaceError, match=f"'mtfl': {expected}.*--data") as caught:
            stages.run(recipe, tmp_path / "run", data, stages.RunOptions(accelerator="cpu", logger="none"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"data": {"tables": [{"name": "mtlf"}]}}, "'mtlf'.*mtfl"),
        ({"data": {"tables": [{"name": "gone.parquet"}]}}, "gone.parquet: no such face table"),
        ({"data": {"crop": {"size": 48, "channels": 1}}}, "takes 1×40² pixels but data.crop gives 1×48²"),
        ({"data": {"batch": 500}}, "160 training faces do not fill one batch of 500"),
        ({"data": {"tables": [{"name": "synthetic", "options": {"n": 200, "size": 48, "seed": 1}, "ratio": 0.001}]}},
         "0 training faces"),
        ({"data": {"tables": [{"name": "synthetic", "options": {"n": 20, "size": 48}, "where": {"age": "3"}}]}},
         "'age' holds numbers, of which .* is no range"),
        ({"tasks": {"smile": {"where": {"modality": "sketch"}}}}, "'smile'.*labelled"),
        ({"network": {"heads": {"smile": {}}}}, "network.heads.smile must name each of the task's . terms once"),
        ({"weighting": {"name": "fix"}}, "'fix'.*'fixed'"),
        ({"weighting": {"options": {"weights": {"smiles": 1}}}}, "'smiles'.*'smile'"),
        ({"weighting": {"options": {"wieghts": {}}}}, "weighting.options.*wieghts"),
        ({"init": {"source": "earlier"}}, "stage one: init.source: no model 'earlier'.*or name one of .*imagenet"),
        ({"init": {"source": "./earlier"}}, "init.source: earlier: not a model bundle"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_named(train, changes, expected) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        train(changes)
    one_line(caught)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_lose_the_result_are_refused(train, strategy) -> None:
    with pytest.raises(PolyfaceError, match=f"'{strategy}'.*use 'ddp'"):
        train(devices=2, strategy=strategy)


def test_unknown_logger_is_named(train) -> None:
    with pytest.raises(PolyfaceError, match="logger 'wandb' cannot be used; known: csv"):
        train(logger="wandb")
