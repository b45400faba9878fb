"""What finished and stopped runs left, when it is damaged, and when what it was made from changes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyface.data.synthetic import records
from polyface.data.writing import write_table
from polyface.errors import PolyfaceError
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner

Train = Callable[..., stages.StageResult]


@pytest.fixture(scope="module")
def module_train(toy, tmp_path_factory) -> Train:
    """``module_train(out)``: a small recipe of one epoch and five steps, on the faces of `out/faces.parquet`."""

    def run(out: Path, data: Path | None = None, **options: Any) -> stages.StageResult:
        changes = {
            "optimisation": {"epochs": 1},
            "data": {"tables": [{"name": "faces.parquet"}], "batch": 16},
            "evaluation": {"main": "landmarks"},
        }
        recipe = recipes.load(toy(changes))
        defaults = {"accelerator": "cpu", "logger": "none", "checkpoint_steps": 2}
        return stages.run(recipe, out / "run", data or out, stages.RunOptions(**defaults | options))["one"]

    return run


def faces(out: Path, seed: int = 0, rows: int = 100) -> None:
    write_table(records(rows, 48, seed), out / "faces.parquet")


@pytest.fixture(scope="module")
def finished_once(module_train, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    faces(out)
    module_train(out)
    return out


@pytest.fixture(scope="module")
def stopped_once(module_train, tmp_path_factory) -> Path:
    """A run that ended without warning after two of five steps."""
    out = tmp_path_factory.mktemp("stopped")
    faces(out)
    original = Learner.training_step

    def gone(self: Learner, *args: Any) -> Any:
        if self.batches_done == 2:
            raise InterruptedError
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "training_step", gone)
        with pytest.raises(InterruptedError):
            module_train(out)
    return out


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_once, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Learner, "training_step", refuse)


def refused(train: Train, *given: Any, expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        train(*given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def edited(out: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = out / "run/one/history.json"
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))


# ------------------------------------------------------------------------------------------------ records


def test_a_record_says_what_the_stage_was_made_from(finished: Path, module_train: Train, no_training: None) -> None:
    tree = json.loads((finished / "run/one/history.json").read_text())
    (table,) = tree["data"]
    assert (table["table"], table["faces"]) == ("faces.parquet", 100)
    assert len(module_train(finished).history) == 1


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", "", "null", '{"settings": {}, "history": 3, "seconds": 1}', "\x00", '{"settings": []}']
)
def test_a_damaged_record_is_named(finished: Path, module_train: Train, no_training: None, text: str) -> None:
    (finished / "run/one/history.json").write_text(text)
    refused(module_train, finished, expected=r"run/one/history.json: .*--fresh")


@pytest.mark.parametrize(
    "place, change",
    [
        ("history.0.train", {"history": [{"epoch": 1, "train": [1]}]}),
        ("history.0.weights.smile", {"history": [{"epoch": 1, "weights": {"smile": "x"}}]}),
        ("history.0.epoch", {"history": [{}]}),
        ("validations.0", {"validations": [3]}),
        ("stopping", {"stopping": 3}),
        ("precision", {"precision": 16}),
    ],
)
def test_a_record_that_is_damaged_further_down_is_named(
    finished: Path, module_train: Train, no_training: None, place: str, change: dict[str, Any]
) -> None:
    edited(finished, lambda tree: tree.update(change))
    refused(module_train, finished, expected=rf"run/one/history.json: .*{place}.*--fresh")


def test_numbers_that_are_none_are_read(finished: Path, module_train: Train, no_training: None) -> None:
    """A loss that was NaN is written so, and is no damage."""
    edited(finished, lambda tree: tree["history"][0].update(validation={"landmarks": float("nan")}))
    assert module_train(finished).history[0]["validation"]["landmarks"] != 0


def test_a_record_without_its_model_is_no_finished_run(finished: Path, module_train: Train, no_training: None) -> None:
    shutil.rmtree(finished / "run/one/model")
    assert (module_train(finished).bundle / "model.safetensors").exists()  # from the checkpoint


def test_a_run_on_other_faces_is_not_taken_for_this_one(finished: Path, module_train: Train, no_training: None) -> None:
    faces(finished, seed=1)
    refused(module_train, finished, expected="was finished, and the data faces.parquet changed since: pass --fresh")


def test_the_same_faces_written_again_are_the_same(finished: Path, module_train: Train, no_training: None) -> None:
    before = os.stat(finished / "faces.parquet").st_mtime_ns
    faces(finished)
    assert os.stat(finished / "faces.parquet").st_mtime_ns != before
    module_train(finished)
    (finished / "elsewhere").mkdir()
    (finished / "faces.parquet").rename(finished / "elsewhere/faces.parquet")
    module_train(finished, finished / "elsewhere")


def test_a_run_whose_faces_are_gone_is_used_with_a_warning(
    finished: Path, module_train: Train, no_training: None, caplog: pytest.LogCaptureFixture
) -> None:
    (finished / "faces.parquet").unlink()
    with caplog.at_level(logging.WARNING):
        module_train(finished)
    assert "one: taken as it was finished; its data is not here to compare (faces.parquet: no such" in caplog.text


def test_runs_of_older_versions_do_not_say_what_they_were_made_from(
    finished: Path, module_train: Train, no_training: None
) -> None:
    edited(finished, lambda tree: (tree.pop("data"), tree.pop("models")))
    faces(finished, seed=1)
    assert len(module_train(finished).history) == 1


def test_a_fresh_run_that_is_stopped_does_not_pass_for_the_old_one(finished: Path, module_train: Train) -> None:
    def gone(*args: Any) -> None:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "training_step", gone)
        for fresh in (True, False):
            with pytest.raises(InterruptedError):
                module_train(finished, fresh=fresh)


def test_a_stage_whose_start_was_trained_anew_is_trained_anew(toy, tmp_path: Path) -> None:
    tree = json.loads(toy({"optimisation": {"epochs": 1}}).read_text())
    first = tree["stages"][0]
    tree["stages"].append(first | {"name": "two", "init": {"source": "one"}})
    path = tmp_path / "two.yaml"
    path.write_text(json.dumps(tree))
    options = stages.RunOptions(accelerator="cpu", logger="none")
    stages.run(recipes.load(path), tmp_path / "run", None, options)
    shutil.rmtree(tmp_path / "run/one")
    with pytest.raises(PolyfaceError, match="two: was finished, and the weights of one changed since"):
        stages.run(recipes.load(path, ["one.optimisation.lr=0.1"]), tmp_path / "run", None, options)


# ------------------------------------------------------------------------------------------------ checkpoints


def checkpoint(out: Path) -> Path:
    return out / "run/one/last.ckpt"


HEAD = "network.heads.landmarks.weight"


def weights(state: dict[str, Any]) -> torch.Tensor:
    return state["state_dict"][HEAD]  # type: ignore[no-any-return]


def saved(out: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    state = torch.load(checkpoint(out), weights_only=True)
    edit(state)
    torch.save(state, checkpoint(out))


def test_a_checkpoint_that_is_whole_is_gone_on_from(stopped: Path, module_train: Train) -> None:
    saved(stopped, lambda state: None)
    assert len(module_train(stopped).history) == 1


@pytest.mark.parametrize("key", [*Learner.KEPT, "state_dict", "optimizer_states", "lr_schedulers"])
def test_a_checkpoint_that_lacks_a_part_is_named(
    stopped: Path, module_train: Train, no_training: None, key: str
) -> None:
    whole = checkpoint(stopped).read_bytes()
    edits = (lambda held: held.pop(key), lambda held: held.update({key: (0,)}))
    for edit in edits[key == "course" :]:  # which older ones lack
        checkpoint(stopped).write_bytes(whole)
        saved(stopped, lambda state, edit=edit: edit(state["polyface"] if key in Learner.KEPT else state))
        refused(module_train, stopped, expected=f"last.ckpt: not a readable checkpoint .{key} is missing.*--fresh")


@pytest.mark.parametrize(
    "edit, expected",
    [
        (lambda state: state["state_dict"].pop("network.heads.landmarks.weight"), "network.heads.landmarks.weight"),
        (lambda state: state["state_dict"].update(more=torch.zeros(1)), "more"),
        (lambda state: state["state_dict"].update({"network.heads.smile.bias": torch.zeros(3)}), "heads.smile.bias"),
        (lambda state: weights(state)[:1].fill_(float("nan")), "network.heads.landmarks.weight is not finite"),
        (lambda state: state["state_dict"].update({HEAD: weights(state).int()}), "network.heads.landmarks.weight"),
        (lambda state: state["polyface"].update(stage="x"), "JSONDecodeError"),
        (lambda state: state["polyface"].update(weight_sums={"smile": 1}), "TypeError"),
        (lambda state: state["optimizer_states"].clear(), "optimizer_states"),
        (lambda state: state["optimizer_states"][0]["param_groups"].clear(), "Error"),
        (lambda state: state["polyface"]["random"].update(cpu=torch.zeros(3, dtype=torch.uint8)), "Error"),
    ],
)
def test_a_checkpoint_of_another_state_is_named(
    stopped: Path, module_train: Train, no_training: None, edit: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    saved(stopped, edit)
    refused(module_train, stopped, expected=f"last.ckpt: not a readable checkpoint .*{expected}.*--fresh")


def test_no_bit_of_a_checkpoint_changes_unseen(stopped: Path, module_train: Train, no_training: None) -> None:
    """One bit in the middle of each of its largest parts, and of the parts that say where the run stands."""
    whole = checkpoint(stopped).read_bytes()
    with zipfile.ZipFile(checkpoint(stopped)) as archive:
        parts = sorted(archive.infolist(), key=lambda part: -part.file_size)
    for part in [*parts[:3], *(one for one in parts if one.filename.endswith("data.pkl"))]:
        names = int.from_bytes(whole[part.header_offset + 26 :][:2], "little")
        padding = int.from_bytes(whole[part.header_offset + 28 :][:2], "little")
        damaged = bytearray(whole)
        damaged[part.header_offset + 30 + names + padding + part.file_size // 2] ^= 0x10
        checkpoint(stopped).write_bytes(damaged)
        refused(module_train, stopped, expected="last.ckpt: not a readable checkpoint")


def test_another_number_of_processes_is_refused_by_name(stopped: Path, module_train: Train, no_training: None) -> None:
    saved(stopped, lambda state: state["polyface"].update(processes=2))
    refused(module_train, stopped, expected="made by 2 processes, and here are 1.*as many --devices")


def test_older_checkpoints_are_told_by_their_epochs(stopped: Path, module_train: Train, no_training: None) -> None:
    """They do not say how many processes they are of: two of them finish an epoch in fewer batches."""
    saved(stopped, lambda state: (state["polyface"].pop("processes"), state["polyface"].update(history=[{"epoch": 1}])))
    refused(module_train, stopped, expected="made by another number of processes")


def test_older_checkpoints_are_gone_on_from(stopped: Path, module_train: Train) -> None:
    saved(stopped, lambda state: state["polyface"].pop("processes"))
    assert len(module_train(stopped).history) == 1


# ------------------------------------------------------------------------------------------------ two at once


def test_the_second_of_two_trainings_in_one_folder_says_so(stopped: Path, module_train: Train) -> None:
    hold = (
        f"from polyface.files import lock\nwith lock({str(stopped / 'run/one')!r}):\n    print(flush=True)\n    input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        refused(module_train, stopped, expected="run/one: another process is at work on it")
        other.communicate(b"\n")
    assert len(module_train(stopped).history) == 1
