"""Whatever a key of a recipe holds: it is trained, or refused in one line, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polyface.errors import PolyfaceError
from polyface.registry import check_options
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.training.learners import multitask
from polyface.training.start import build_network

TREE: dict[str, Any] = {
    "name": "odd",
    "seed": 0,
    "stages": [
        {
            "name": "one",
            "learner": "multitask",
            "data": {
                "tables": [{"name": "synthetic", "ratio": 1.0, "faces": 10, "options": {"n": 60, "size": 48}}],
                "boxes": {"source": "table"},
                "crop": {"size": 40, "channels": 1, "scale": 1.2, "shift_y": 0.0, "margin": 1.5, "oversample": 1.25},
                "augment": {"rotate": 1.0, "mirror": 0.5, "erase": 0.1, "erase_size": 0.2},
                "batch": 8,
                "balance": [],
                "limit": 60,
                "sizes": [],
            },
            "network": {
                "trunk": {"name": "tcdcn", "plan": "tcdcn", "filters": "shared"},
                "parts": {},
                "heads": {},
                "normalise": {"mean": 127.5, "std": 128.0},
            },
            "tasks": {
                "landmarks": {"kind": "landmarks", "points": 5, "loss": "l1"},
                "smile": {"kind": "classification", "column": "smile", "where": {"modality": "photo"}},
            },
            "weighting": {"name": "dmm", "options": {}, "terms": []},
            "optimisation": {
                "optimiser": "adamw", "lr": 0.001, "body_lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "epochs": 1,
                "schedule": "steps", "milestones": [0.5], "warmup": 0.1, "ema": 0.9, "clip": 1.0, "accumulate": 1,
                "precision": "32-true", "validate_every": 1, "validate_steps": 1,
            },
            "init": [],
            "evaluation": {
                "main": "landmarks", "select": "best", "translations": 1, "spread": 0.03, "mirror": False,
                "protocol": {"name": "per-task"},
            },
            "stopping": {"main": ["landmarks"], "window": 2, "threshold": 1.0},
        }
    ],
    "sizes": {"small": {"one.data.batch": 8}},
    "variants": {"v": {"stages": ["one"], "set": {"one.data.batch": 8}, "keep": ["smile"], "seeds": 1, "average": []}},
    "comparisons": [{"better": "v", "than": "v"}],
}  # fmt: skip
ODD: list[Any] = [-1, 0, 1e300, 10**30, True, None, "x", "", "nan", [], {}, ["x"], {"x": 1}]


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all keys and entries of a tree."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*above, key)
        yield from places(value, (*above, key))


@pytest.fixture
def faults(tmp_path: Path) -> Callable[..., list[str]]:
    """``faults(use, every)``: what of every key, with one of so many odd values, ends in anything but one line when it
    is used (`use(recipe)`)."""

    def tried(use: Callable[[recipes.Recipe], Any], every: int) -> list[str]:
        found, file = [], tmp_path / "odd.yaml"
        for number, place in enumerate(places(TREE)):
            for odd in ODD[number % every :: every]:
                tree = copy.deepcopy(TREE)
                node: Any = tree
                for key in place[:-1]:
                    node = node[key]
                node[place[-1]] = odd
                file.write_text(json.dumps(tree))
                try:
                    use(recipes.load(file))
                except PolyfaceError as error:
                    if "\n" in str(error) or len(str(error)) > 1000:
                        found.append(f"{place} {odd!r}: {error}")
                except Exception as error:
                    found.append(f"{place} {odd!r}: {type(error).__name__}: {error}")
        return found

    return tried


def test_the_tree_itself_is_sound(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(json.dumps(TREE))
    built(recipes.load(file))


def built(recipe: recipes.Recipe) -> None:
    """All that is made before a face is read."""
    for name in recipe.variants:
        recipe.variant(name)
    stage = recipe.measured
    tasks = stages.named_tasks(stage)
    network = build_network(stage, tasks, recipe.seed, {})
    stages.build_weighting(stage, network.shared_dim, tasks)


@pytest.mark.parametrize("every", [len(ODD), pytest.param(1, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])])
def test_no_odd_value_ends_in_a_traceback(faults, every: int) -> None:
    assert faults(built, every) == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_no_odd_value_ends_in_a_traceback_in_training(faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, up to the end of the first step."""

    def fit(trainer: Any, learner: Learner, saver: Any, seed: int) -> None:
        learner.configure_optimizers()
        learner.training_step(next(iter(learner.train_dataloader())), 0)

    monkeypatch.setattr(multitask, "fit", fit)
    options = stages.RunOptions(accelerator="cpu", logger="none", fresh=True)
    assert faults(lambda recipe: stages.run(recipe, tmp_path / "run", None, options), 3) == []


@pytest.mark.parametrize(
    "change, expected",
    [
        ("one.data.crop.channels=2", "data.crop.channels: input should be 1 or 3"),
        ("one.data.crop.margin=.inf", "data.crop.margin=.inf: .inf is not a finite number"),
        ("one.data.crop.margin=inf", "data.crop.margin: input should be a finite number"),
        ("one.optimisation.lr=nan", "optimisation.lr: input should be a finite number"),
        ("one.optimisation.precision=bf16mixed", "no precision is called 'bf16mixed'; did you mean 'bf16-mixed'"),
        ("seed=-1", "seed: input should be greater than or equal to 0"),
        ("seed=4294967296", "seed: input should be less than or equal to 4294967295"),
        ("stages=[]", "stages: list should have at least 1 item"),
        ("one.data.tables.0.ratio=-1", "data.tables.0.ratio: input should be greater than 0"),
    ],
)
def test_an_odd_value_is_told_by_its_key(tmp_path: Path, change: str, expected: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(json.dumps(TREE))
    with pytest.raises(PolyfaceError, match=expected):
        recipes.load(file, [change])


def test_lightnings_precisions_are_all_known(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(json.dumps(TREE))
    for precision in ("auto", "32-true", "64-true", "16-mixed", "bf16-mixed", "bf16-true", "'32'"):
        assert recipes.load(file, [f"one.optimisation.precision={precision}"]).measured.optimisation.precision


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"devices": 0}, "devices is 0; expected at least 1"),
        ({"devices": -1}, "devices is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 10**9}, "threads is 1000000000; expected at least 1, at most 1024"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
        ({"strategy": "dpp"}, "strategy 'dpp' cannot be used; did you mean 'ddp'"),
        ({"accelerator": "nope"}, "device 'nope' cannot be used; known: auto, cpu"),
        ({"logger": "nope"}, "logger 'nope' cannot be used; did you mean 'none'"),
    ],
)
def test_odd_options_of_a_run_are_named(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        stages.RunOptions(**options)


def test_a_seed_that_no_generator_takes(toy) -> None:
    for seed in (-1, 2**32):
        with pytest.raises(PolyfaceError, match=f"seed is {seed}; expected 0 … 4294967295"):
            recipes.load(toy()).at(seed)


def part(
    number: float, whole: int = 1, words: tuple[str, ...] = (), maybe: float | None = None, own: Learner | None = None
) -> None: ...


def test_options_are_of_the_type_that_a_part_declares() -> None:
    """Of any part, since its signature says it; what no one declares, or pydantic does not know, is not looked at."""
    for good in (
        {"number": 1},
        {"number": 1.5, "whole": 3, "words": ["a"]},
        {"words": ("a",), "maybe": None, "own": 3},
    ):
        check_options(part, good, "x")
    for bad in ({"number": "1"}, {"number": True}, {"whole": 1.5}, {"words": "a"}, {"words": [1]}, {"maybe": [1.0]}):
        (name,) = bad
        with pytest.raises(PolyfaceError, match=f"x: {name} is .*; input should be"):
            check_options(part, bad, "x")
