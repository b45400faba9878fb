"""`precision: auto`: bfloat16 where the device has units for it, and what was chosen is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from polyface.models.bundle import load_bundle
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.precision import precision


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``device(amx=True)``: torch then says that this machine has that, and nothing else."""

    def has(amx: bool = False, avx512: bool = False, cuda: bool | None = None, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    "machine, accelerator, chosen",
    [
        ({}, "cpu", "32-true"),  # AVX2 alone
        ({"amx": True}, "cpu", "bf16-mixed"),
        ({"avx512": True}, "cpu", "bf16-mixed"),
        ({"amx": True}, "auto", "bf16-mixed"),
        ({"cuda": True}, "auto", "bf16-mixed"),
        ({"cuda": True}, "cuda", "bf16-mixed"),
        ({"cuda": True}, "cpu", "32-true"),  # the graphics card is not asked
        ({"cuda": False, "amx": True}, "auto", "32-true"),  # one that would only emulate it
        ({"mps": True, "amx": True}, "auto", "32-true"),
        ({"mps": True}, "mps", "32-true"),
    ],
)
def test_auto_takes_bfloat16_where_there_are_units(
    device: Callable[..., None], machine: dict[str, bool], accelerator: str, chosen: str
) -> None:
    device(**machine)
    assert precision("auto", accelerator) == chosen


def test_a_named_precision_is_taken_as_it_is(device: Callable[..., None]) -> None:
    device()
    assert precision("bf16-mixed", "cpu") == "bf16-mixed"
    device(amx=True)
    assert precision("32-true", "cpu") == "32-true"


@pytest.mark.parametrize("amx, chosen", [(False, "32-true"), (True, "bf16-mixed")])
def test_what_was_chosen_is_in_the_history_and_the_bundle(
    toy: Callable[..., Path], device: Callable[..., None], tmp_path: Path, amx: bool, chosen: str
) -> None:
    device(amx=amx)
    recipe = recipes.load(toy({"optimisation": {"epochs": 1, "precision": "auto"}}))
    options = stages.RunOptions(accelerator="cpu", logger="none")
    result = stages.run(recipe, tmp_path, None, options)["one"]
    assert json.loads((tmp_path / "one" / "history.json").read_text())["precision"] == chosen
    assert load_bundle(result.bundle).about["precision"] == chosen
    assert stages.run(recipe, tmp_path, None, options)["one"].history == result.history  # finished, and taken as it is
