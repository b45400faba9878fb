"""A run killed anywhere and resumed ends bit for bit as one that was never killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

DROPOUT = {
    "network": {
        "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "shared": 16, "dropout": 0.5}
    }
}
VARIANTS: dict[str, dict[str, Any]] = {
    "momentum and stopping": {
        "optimisation": {"schedule": "steps"},
        "stopping": {"main": ["landmarks"], "window": 1, "threshold": -1e9, "every": 5},
    },
    "dropout, running mean, best epoch": DROPOUT
    | {
        "optimisation": {"optimiser": "adamw", "ema": 0.9, "warmup": 0.2},
        "evaluation": {"select": "best"},
    },
    "two micro-batches a step": DROPOUT
    | {
        "data": {"batch": 16},
        "optimisation": {"optimiser": "rmsprop", "lr": 0.001, "accumulate": 2, "clip": 0.1, "ema": 0.9, "epochs": 2},
    },
}
# Where to kill, and every how many steps the run is saved. 15 steps of 5 an epoch in the first two variants, 20
# micro-batches of 10 an epoch in the last.
KILLS: list[tuple[dict[str, Any], int]] = [
    ({"where": "step", "at": 0}, 1),
    ({"where": "optimiser", "at": 0}, 1),
    ({"where": "step", "at": 7}, 1),
    ({"where": "optimiser", "at": 9}, 4),
    ({"where": "epoch", "at": 0}, 1),
    ({"where": "epoch", "at": 1}, 4),
    ({"where": "save", "at": 0}, 2),
    ({"where": "save", "at": 2}, 2),
    ({"where": "saved", "at": 4}, 1),
    ({"where": "step", "at": 14}, 2),
    ({"where": "bundle", "at": 0}, 2),
]


def weights(out: Path) -> bytes:
    return (out / "one" / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_resumed_is_bit_identical(toy, trainings, tmp_path, variant) -> None:
    recipe = toy(VARIANTS[variant])
    runs: list[dict[str, Any]] = [{"recipe": recipe, "out": tmp_path / "whole"}]
    kills = KILLS if variant.startswith("dropout") else KILLS[1::3]
    for number, (kill, every) in enumerate(kills):
        run = {"recipe": recipe, "out": tmp_path / str(number), "options": {"checkpoint_steps": every}}
        runs += [run | {"kill": kill}, run]
    twice = {"recipe": recipe, "out": tmp_path / "twice", "options": {"checkpoint_steps": 2}}
    runs += [twice | {"kill": {"where": where, "at": 3}} for where in ("step", "optimiser", "saved")] + [twice]
    results = trainings(runs)

    whole = results[0]["history"]
    expected = weights(tmp_path / "whole")
    for number, (kill, every) in enumerate(kills):
        assert weights(tmp_path / str(number)) == expected, (kill, every)
        assert results[2 * number + 2]["history"] == whole, (kill, every)
    assert weights(tmp_path / "twice") == expected
    assert results[-1]["history"] == whole
    if variant == "momentum and stopping":  # the comparison is about something: a task did stop on the way
        assert whole["one"][-1]["stopped"] == {"smile": 2}


def test_another_seed_gives_other_weights_and_no_kill_the_same(toy, trainings, tmp_path) -> None:
    """What bit-identity is worth: two whole runs agree, a run with another seed or without dropout does not."""
    runs = [
        {"recipe": toy(DROPOUT | {"optimisation": {"epochs": 1}}), "out": tmp_path / "a"},
        {"recipe": toy(DROPOUT | {"optimisation": {"epochs": 1}}), "out": tmp_path / "b"},
        {"recipe": toy(DROPOUT | {"optimisation": {"epochs": 1}}, seed=4), "out": tmp_path / "c"},
    ]
    trainings(runs)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    ours, other = (load_file(tmp_path / x / "one/model/model.safetensors") for x in ("a", "c"))
    assert not torch.equal(ours["heads.landmarks.weight"], other["heads.landmarks.weight"])


def test_ctrl_c_saves_between_steps_and_resumes_bit_identically(toy, trainings, tmp_path) -> None:
    recipe = toy(DROPOUT | {"optimisation": {"accumulate": 2, "epochs": 2}})
    run = {"recipe": recipe, "out": tmp_path / "stopped"}
    results = trainings(
        [
            {"recipe": recipe, "out": tmp_path / "whole"},
            run | {"kill": {"where": "step", "at": 4, "signal": "INT"}},
            run,
        ]
    )
    assert results[1] == {"exit": 0, "interrupted": True}
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert results[2]["history"] == results[0]["history"]


def test_ctrl_c_keeps_what_was_learnt(toy, trainings, tmp_path) -> None:
    recipe = toy()
    trainings([{"recipe": recipe, "out": tmp_path, "kill": {"where": "optimiser", "at": 6, "signal": "INT"}}])
    saved = torch.load(tmp_path / "one" / "last.ckpt", weights_only=True)
    assert saved["polyface"]["batches_done"] == 7
    assert not (tmp_path / "one" / "model").exists()
