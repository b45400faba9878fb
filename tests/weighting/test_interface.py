"""What holds for every weighting: the registry, options, errors, what comes back, a single task."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from typing import Any

import pytest
import torch
from toy import FEATURES, NAMES, TASKS, VARIANTS, Toy, Training, Variant, batch, label, optimiser, options_of

import polyface.weighting
from polyface.errors import PolyfaceError
from polyface.weighting import WEIGHTINGS, Combined, Context, Uniform, Weighting, build

PAPERS = "yin-liu ming naive-dynamic dmm dwa aw fixed uniform"
MODERN = (
    "uncertainty rlw gls stch famo imtl-l imtl-g imtl gradnorm mgda pcgrad cagrad gradvac nash aligned fairgrad upgrad"
)


def refused(name: str, tasks: list[str] = TASKS, **options: Any) -> str:
    """The one line with which `build` refuses."""
    with pytest.raises(PolyfaceError) as caught:
        build(name, tasks, **{"features": FEATURES} | options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_all_methods_are_there() -> None:
    assert set(WEIGHTINGS.names()) == {*PAPERS.split(), *MODERN.split()}


def test_every_method_is_registered() -> None:
    """Whatever class there is in the package is in the registry, or the base of one that is."""
    for module in pkgutil.iter_modules(polyface.weighting.__path__):
        importlib.import_module(f"polyface.weighting.{module.name}")
    found, waiting = set(), [Weighting]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found |= {c for c in subclasses if c.__module__.startswith("polyface.weighting")}
    bases = {base for method in map(WEIGHTINGS.get, WEIGHTINGS.names()) for base in method.__mro__[1:]}  # type: ignore[attr-defined]
    assert found - bases <= set(map(WEIGHTINGS.get, WEIGHTINGS.names()))
    assert len(set(map(WEIGHTINGS.get, WEIGHTINGS.names()))) == len(WEIGHTINGS.names())


@pytest.mark.parametrize("name", NAMES)
def test_methods_say_where_they_come_from(name: str) -> None:
    text = inspect.getdoc(WEIGHTINGS.get(name)) or ""
    assert len(text) > 100 or name == "uniform"
    assert any(str(year) in text for year in range(2012, 2027)), "year of the paper"
    text = "".join(inspect.getdoc(c) or "" for c in WEIGHTINGS.get(name).__mro__)  # type: ignore[attr-defined]
    assert [option for option in options_of(name) - {"lr"} if option not in text] == []


def test_another_package_adds_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "halves", "somewhere:Halves"

        @staticmethod
        def load() -> type[Weighting]:
            return Halves

    class Halves(Uniform):
        """Half of everything."""

        def weigh(self, step: Any) -> Any:
            weights, own = super().weigh(step)
            return weights / 2, own

    monkeypatch.setattr("polyface.registry.entry_points", lambda group: [Point] if "weightings" in group else [])
    weighting = build("halves", ["a"])
    assert weighting.combine({"a": torch.tensor(3.0)}).loss.item() == 1.5
    assert "did you mean 'halves'" in refused("halvse")


@pytest.mark.parametrize("name", NAMES)
def test_build_refuses_what_it_does_not_know(name: str) -> None:
    assert "unknown option 'nonsense'" in refused(name, nonsense=1)
    for option in options_of(name):
        misspelt = option + "s" if option != "weights" else "wieghts"
        assert f"did you mean '{option}'" in refused(name, **{misspelt: 1})
    assert "once" in refused(name, ["a", "a"])
    refused(name, [])


def test_build_gives_hints() -> None:
    assert "did you mean 'pcgrad'" in refused("pcgard")
    assert "known: " in refused("zzzzzz")


WRONG: list[Any] = [
    "high",
    -1,
    math.nan,
    math.inf,
    [1],
    {"pose": "much"},
    {"poes": 1.0},
    {"pose": -2},
    {"pose": math.nan},
]


@pytest.mark.parametrize("name, option", [(name, option) for name in NAMES for option in sorted(options_of(name))])
def test_wrong_values_are_refused_in_one_line(name: str, option: str) -> None:
    """Numbers below 0 or that are none, words, lists, numbers for tasks that do not exist: all with a PolyfaceError."""
    annotation = str(inspect.signature(WEIGHTINGS.get(name)).parameters[option].annotation)
    if annotation == "bool":
        return  # anything is true or false
    for bad in WRONG if "None" in annotation else [*WRONG, None]:
        if option != "seed" or bad != -1:
            refused(name, **{option: bad})


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_what_comes_back(variant: Variant) -> None:
    toy = Toy(variant[0], **variant[1])
    assert toy.weighting.tasks == TASKS
    losses, context = toy.losses(batch(0))
    combined = toy.weighting.combine(dict(reversed(losses.items())), context)  # in whatever order
    assert isinstance(combined, Combined)
    assert list(combined.weights) == TASKS
    assert all(type(weight) is float and math.isfinite(weight) for weight in combined.weights.values())
    assert combined.loss.shape == combined.total.shape == ()
    assert combined.loss.item() == pytest.approx(sum(combined.weights[t] * loss.item() for t, loss in losses.items()))
    own = list(toy.weighting.parameters())
    assert (combined.own_loss is not None) == bool(own)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in own)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_errors_of_a_call(variant: Variant) -> None:
    toy = Toy(variant[0], **variant[1])
    losses, context = toy.losses(batch(0))
    with pytest.raises(PolyfaceError, match="did you mean 'pose'"):
        toy.weighting.combine({"poes": losses["pose"]}, context)
    with pytest.raises(PolyfaceError, match="no loss"):
        toy.weighting.combine({}, context)


# The weight of a task that is alone, with a loss of 4 and a gradient of length 2; 1 where not named.
ALONE = {
    "uncertainty": 0.5,
    "nash": 0.5,  # α·4 = 1/α
    "cagrad": 1.4,  # 1 + c
    "fairgrad": 4 ** (-2 / 3),  # 4 w = w^{-1/2}
}


@pytest.mark.parametrize("name", NAMES)
def test_a_single_task(name: str) -> None:
    weighting = build(name, ["only"], features=2).double()
    shared = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    losses = {"only": 4 + 2 * shared[:, 0].sum()}
    context = Context(shared=shared)
    found = weighting.combine(losses, context)
    assert found.weights["only"] == pytest.approx(ALONE.get(name, 1.0))
    found.total.backward()
    toy = Toy(name, tasks=["pose"])
    training = Training(toy, optimiser(toy), epoch=1)
    for i in range(4):
        training.step(batch(i, tasks=["pose"]), batch(9 + i, tasks=["pose"]))
    assert all(math.isfinite(weights["pose"]) for weights in training.history)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_losses_without_a_graph_or_on_their_own(variant: Variant) -> None:
    """Looking at weights needs no gradient, unless the method looks at gradients."""
    toy = Toy(variant[0], **variant[1])
    if "level" in options_of(variant[0]):
        return
    with torch.no_grad():
        losses, context = toy.losses(batch(0))
        quiet = toy.weighting.combine(losses, context)
    assert all(math.isfinite(weight) for weight in quiet.weights.values())
    assert not quiet.loss.requires_grad


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_training_works(variant: Variant) -> None:
    """On one small batch over and over, the sum of the losses falls by a third, whichever way they are weighed."""
    toy, given = Toy(variant[0], **variant[1]), batch(0)
    training = Training(toy, optimiser(toy, torch.optim.Adam, lr=0.05), epoch=10)
    before = sum(loss.item() for loss in toy.losses(given)[0].values())
    for _ in range(30):
        training.step(given, given)
    assert sum(loss.item() for loss in toy.losses(given)[0].values()) < 2 / 3 * before
