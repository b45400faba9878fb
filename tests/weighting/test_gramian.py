"""Inner products of task gradients: by hand, by differences, by autograd, errors and the warning."""

from __future__ import annotations

import warnings

import pytest
import torch
from toy import AT_GRADIENTS, TASKS, Toy, batch, patchy

from polyface.errors import PolyfaceError
from polyface.weighting import Context, build, gramian


def test_features_by_hand() -> None:
    """Two faces of two features. ∂L_1/∂Z = [[1, 2], [0, 0]], ∂L_2/∂Z = [[3, 0], [0, 4]]."""
    z = torch.zeros(2, 2, requires_grad=True)
    losses = [z[0, 0] + 2 * z[0, 1], 3 * z[0, 0] + 4 * z[1, 1]]
    found = gramian(losses, Context(shared=z), "features")
    assert found.tolist() == [[5, 3], [3, 25]]
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float64, "cpu", False)


def test_features_are_taken_face_by_face() -> None:
    """Two tasks that pull the mean face the same way, but no face at once, have nothing in common at the features."""
    toy = Toy("mgda")
    given = batch(0, faces=4)
    given.labelled = {
        task: torch.tensor([i == 0, i == 0, i == 1, i == 1]) | (i == 2) for i, task in enumerate(given.labelled)
    }
    losses, context = toy.losses(given)
    found = gramian(list(losses.values()), context, "features")
    assert found[0, 1] == 0
    assert found[0, 2] != 0
    assert gramian(list(losses.values()), context, "shared")[0, 1] != 0


def test_shared_is_the_jacobian_times_itself() -> None:
    """J by central differences, one shared parameter after the other."""
    toy, given = Toy("mgda"), patchy(1)
    losses, context = toy.losses(given)
    found = gramian(list(losses.values()), context, "shared")
    columns, step = [], 1e-5
    with torch.no_grad():
        for parameter in toy.trunk.parameters():
            for entry in parameter.view(-1):  # a view: changing it changes the network
                kept, moved = entry.item(), []
                for at in (kept + step, kept - step):
                    entry.fill_(at)
                    moved.append(torch.stack(list(toy.losses(given)[0].values())))
                entry.fill_(kept)
                columns.append((moved[0] - moved[1]) / (2 * step))
    jacobian = torch.stack(columns, 1)
    torch.testing.assert_close(found, jacobian @ jacobian.T, rtol=1e-6, atol=1e-9)


def test_features_against_autograd() -> None:
    toy, given = Toy("mgda"), patchy(1)
    losses, context = toy.losses(given)
    rows = [torch.autograd.grad(loss, context.shared, retain_graph=True)[0].flatten() for loss in losses.values()]
    expected = torch.tensor([[float(a @ b) for b in rows] for a in rows], dtype=torch.float64)
    torch.testing.assert_close(gramian(list(losses.values()), context, "features"), expected, rtol=1e-12, atol=0)


def test_the_bound_of_the_features() -> None:
    """Behind one linear layer, Z = X Wᵀ, parameters see XᵀX-weighted products; with XXᵀ = I both levels agree."""
    torch.manual_seed(1)
    faces = torch.eye(3, dtype=torch.float64)
    layer = torch.nn.Linear(3, 4, bias=False).double()
    z = layer(faces)
    losses = [(torch.randn(3, 4, dtype=torch.float64) * z).sum() for _ in TASKS]
    context = Context(shared=z, parameters=list(layer.parameters()))
    torch.testing.assert_close(gramian(losses, context, "features"), gramian(losses, context, "shared"))


def test_half_precision_keeps_small_gradients() -> None:
    """Per-face gradients of 10⁻⁸ are 0 in float16, and their squares are 0 even in single precision's normal range."""
    z = torch.zeros(4, 8, dtype=torch.float16, requires_grad=True)
    losses = [(z.float() * 1e-8).sum(), (z.float() * -2e-8).sum()]
    found = gramian(losses, Context(shared=z), "features")
    expected = 32e-16 * torch.tensor([[1.0, -2.0], [-2.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


def test_a_task_may_read_some_of_the_parameters_only() -> None:
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    frozen = torch.ones(2)
    losses = [(2 * a).sum(), (a * frozen).sum() + (3 * b).sum()]
    found = gramian(losses, Context(parameters=[a, frozen, b]), "shared")
    assert found.tolist() == [[8, 4], [4, 20]]


@pytest.mark.parametrize(
    "level, context, said",
    [
        ("features", Context(), "shared="),
        ("features", Context(shared=torch.ones(2, 2)), "the tasks share nothing that learns"),
        ("features", Context(shared=torch.ones(2, 2, requires_grad=True)), "does not depend on the shared features"),
        ("shared", Context(), "parameters="),
        ("shared", Context(parameters=[torch.ones(2)]), "parameters="),
        (
            "shared",
            Context(parameters=[torch.ones(2, requires_grad=True)]),
            f"the loss of '{TASKS[0]}' does not depend on the parameters that tasks share",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*the trunk is frozen")
@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_errors_say_what_is_missing(name: str, level: str, context: Context, said: str) -> None:
    losses = {task: torch.ones((), requires_grad=True) * 2 for task in TASKS}
    with pytest.raises(PolyfaceError) as caught:
        build(name, TASKS, level=level).combine(losses, context)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_features_that_cannot_conflict_are_said_once(name: str) -> None:
    toy, given = Toy(name), batch(0, faces=6)
    given.labelled = {task: torch.arange(6) % 3 == i for i, task in enumerate(TASKS)}
    with pytest.warns(UserWarning, match="level='shared'"):
        toy(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy(given)


@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_no_warning_where_it_would_be_wrong(name: str) -> None:
    """At the parameters, with faces of several labels, and with a single task."""
    apart = batch(0, faces=6)
    apart.labelled = {task: torch.arange(6) % 3 == i for i, task in enumerate(TASKS)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Toy(name, level="shared")(apart)
        Toy(name)(batch(0))
        Toy(name)(batch(0).without("pose", "smile"))
        Toy(name, tasks=["pose"])(batch(0, tasks=["pose"]))
