"""With any weighting, a training goes on bit for bit in a new process, and two processes learn what one does."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import STEPS, adam
from toy import VARIANTS, Toy, Training, Variant, batch, differences, label, optimiser, stream

SCRIPT = Path(__file__).with_name("processes.py")
CLOSE = 1e-9  # float64: only the order of sums differs


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes: subprocess.Popen[str]) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=200)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """label → the state after 2N steps in one go, and after N steps, a file, a new process and N more."""
    folder = tmp_path_factory.mktemp("resumed")
    saved, straight = {}, {}
    for variant in VARIANTS:
        training = adam(variant)
        for i, (given, validation) in enumerate(stream(0, 2 * STEPS)):
            if i == STEPS:
                saved[label(variant)] = copy.deepcopy(training.state())
            training.step(given, validation)
        straight[label(variant)] = training.state()
    torch.save(saved, folder / "saved.pt")
    finish(start("resume", folder))
    after = torch.load(folder / "resumed.pt", weights_only=True)
    return {name: (straight[name], after[name]) for name in straight}


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_new_process_goes_on_bit_for_bit(variant: Variant, resumed: dict[str, tuple[Any, Any]]) -> None:
    straight, after = resumed[label(variant)]
    assert len(after["history"]) == 2 * STEPS
    assert differences(straight, after) == {}


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_checkpoint_is_a_copy(variant: Variant) -> None:
    """Neither going on after saving nor training a network loaded from it changes what is in it."""
    training = adam(variant)
    steps = list(stream(0, 8))
    for given, validation in steps[:4]:
        training.step(given, validation)
    saved = training.toy.weighting.get_extra_state()
    text = repr(saved)
    training.step(*steps[4])
    assert repr(saved) == text
    other = Toy(variant[0], **variant[1])
    other.weighting.set_extra_state(saved)
    again = Training(other, optimiser(other))
    for given, validation in steps[4:]:
        again.step(given, validation)
    assert repr(saved) == text


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_evaluation_looks_without_touching(variant: Variant) -> None:
    training = adam(variant)
    for given, validation in stream(0, 4):
        training.step(given, validation)
    toy, weighting = training.toy, training.toy.weighting
    before, own = repr(weighting.get_extra_state()), toy.own()
    weighting.eval()
    seen = [weighting.combine(*toy.losses(batch(8))).weights for _ in range(2)]
    assert seen[0] == seen[1]
    assert repr(weighting.get_extra_state()) == before
    assert differences(own, toy.own()) == {}
    weighting.train()
    assert weighting.combine(*toy.losses(batch(8))).weights == seen[0]
    assert repr(weighting.get_extra_state()) != before


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_state_is_plain_numbers(variant: Variant) -> None:
    training = adam(variant)
    for given, validation in stream(0, 4):
        training.step(given, validation)
    state = training.toy.weighting.get_extra_state()
    for value in state.values():
        assert type(value) in (int, float, list)
        assert not isinstance(value, list) or all(type(entry) in (int, float) for entry in value)
    file = io.BytesIO()
    torch.save(training.state(), file)
    file.seek(0)
    torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    finish(*(start("ddp", folder, str(rank)) for rank in (0, 1)))
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["labels", "hard"])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_two_processes_learn_what_one_does(variant: Variant, name: str, two_processes: list[dict[str, Any]]) -> None:
    """On halves of every batch, with different counts of labels: the same weights at every step, parameters and state.
    Steps without any label, with those of a single task, or with a loss that is not finite leave the processes in step.
    """
    for found in two_processes:
        assert (key := f"{label(variant)} {name}") in found, f"not reached: {list(found)[-1]} broke the processes apart"
        assert not isinstance(found[key], str), found[key]
        assert {path: by for path, by in found[key].items() if by > CLOSE} == {}
