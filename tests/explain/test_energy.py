"""Energy of weights: numbers by hand, what it must not depend on, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.explain.energy import (
    RANDOM,
    SIDE,
    blocks,
    common_heads,
    dims_for,
    directions,
    effective_number,
    held_by,
    kept_dims,
    mask_dims,
    overlap,
    rank_dims,
    relative,
    removal_orders,
    share_of,
    side_energy,
    task_energy,
    without,
)

HAND = np.array([[1.0, -2.0], [0.0, 0.5], [3.0, 4.0]])
"""Three dimensions, two outputs: columns of length √10 and √20.25 = 4.5."""


def drawn(seed: int, width: int = 6, outputs: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((width, outputs))


def test_by_hand() -> None:
    assert task_energy(HAND).tolist() == [3, 0.5, 7]
    assert task_energy(HAND, p=2).tolist() == [5, 0.25, 25]
    scaled = task_energy(HAND, normalise=True)
    assert scaled == pytest.approx([1 / 10**0.5 + 2 / 4.5, 0.5 / 4.5, 3 / 10**0.5 + 4 / 4.5])
    assert task_energy(HAND, p=2, normalise=True).sum() == pytest.approx(2)  # each column has length 1
    assert rank_dims([3, 0.5, 7, 3]).tolist() == [2, 0, 3, 1]  # of equal ones the first


@given(
    st.integers(0, 99), st.sampled_from([-9.0, -0.3, 0.0, 1e-3, 7.0]), st.sampled_from([0.5, 1.0, 2.0]), st.booleans()
)
def test_what_energy_depends_on(seed: int, scale: float, p: float, normalise: bool) -> None:
    weight = drawn(seed)
    energy = task_energy(weight, p, normalise)
    order = np.random.default_rng(seed).permutation(3)
    assert (energy >= 0).all()
    np.testing.assert_allclose(task_energy(weight[:, order], p, normalise), energy)
    np.testing.assert_allclose(task_energy(weight[::-1], p, normalise), energy[::-1])
    factor = abs(scale) ** p if not normalise else float(scale != 0)
    np.testing.assert_allclose(task_energy(scale * weight, p, normalise), factor * energy, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    "weight, p, line",
    [
        (np.zeros(3), 1, r"finite matrix \[dimensions, outputs\], found \[3\]"),
        (np.zeros((3, 0)), 1, r"found \[3, 0\]"),
        (np.full((2, 2), np.nan), 1, "finite matrix"),
        (HAND, 0, "p is 0: the power of the weights must be above 0"),
        (HAND, float("nan"), "p is nan"),
    ],
)
def test_no_matrix_and_no_power_are_refused(weight: np.ndarray, p: float, line: str) -> None:
    with pytest.raises(PolyfaceError, match=line):
        task_energy(weight, p)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_ranks_are_a_permutation_of_falling_energy(energy: list[float]) -> None:
    ranked = rank_dims(energy)
    assert sorted(ranked.tolist()) == list(range(len(energy)))
    assert (np.diff(np.array(energy)[ranked]) <= 0).all()


@given(st.integers(0, 99), st.sets(st.integers(0, 5), max_size=5))
def test_a_mask_leaves_other_dimensions_as_they_are(seed: int, dims: set[int]) -> None:
    x = drawn(seed, 4, 6)
    before = x.copy()
    masked = mask_dims(x, sorted(dims))
    others = [dim for dim in range(6) if dim not in dims]
    assert (masked[:, others] == before[:, others]).all()
    assert (masked[:, sorted(dims)] == 0).all()
    assert (x == before).all()


def test_what_cannot_be_taken_out_is_refused() -> None:
    assert (mask_dims(HAND, []) == HAND).all()
    with pytest.raises(PolyfaceError, match="all 2 dimensions would be taken out: leave at least one"):
        mask_dims(HAND, [1, 0, 1])
    for dim in (2, -1):
        with pytest.raises(PolyfaceError, match=f"dimension {dim} of 2 cannot be taken out"):
            mask_dims(HAND, [dim])
    with pytest.raises(PolyfaceError, match="all 2 dimensions"):
        without(HAND, np.array([1, 0]), 0.75)  # 1.5 of 2 are 2
    with pytest.raises(PolyfaceError, match="1.5 is no share of the dimensions"):
        share_of(1.5, 4)


def test_how_concentrated_energy_is() -> None:
    even, one, none = np.ones(8), np.eye(8)[3], np.zeros(8)
    assert (effective_number(even), effective_number(one)) == (8, 1)
    assert effective_number([3, 1]) == pytest.approx(16 / 10)
    assert (held_by(even), held_by(one)) == (0.25, 1)
    assert held_by([6, 1, 1, 0], top=0.5) == pytest.approx(7 / 8)
    assert [dims_for(even, share) for share in (0.5, 0.9)] == [4, 8]
    assert [dims_for([6, 1, 1, 0], share) for share in (0.5, 0.8, 0.9)] == [1, 2, 3]
    assert np.isnan([effective_number(none), held_by(none)]).all()
    assert relative(none).tolist() == none.tolist()


def test_overlap_of_sets() -> None:
    assert overlap([1, 2, 3, 4], [4, 3, 9, 8]) == 0.5
    with pytest.raises(PolyfaceError, match="sets of 2 and of 1 dimensions: expected two of one size"):
        overlap([1, 2], [1])
    generator = np.random.default_rng(0)
    sets = [[generator.permutation(40)[:10] for _ in range(2)] for _ in range(800)]
    assert np.mean([overlap(a, b) for a, b in sets]) == pytest.approx(10 / 40, abs=0.015)


ENERGIES: dict[str, Any] = {"identity": [4.0, 3, 2, 1, 0, 0], "pose": [0, 0, 0, 0, 30, 10], "light": [0, 0, 0, 2, 1, 1]}


def test_every_side_task_counts_as_much() -> None:
    assert side_energy(ENERGIES, "identity").tolist() == [0, 0, 0, 0.5, 1, 0.5]
    louder = ENERGIES | {"light": (7 * np.array(ENERGIES["light"])).tolist()}
    np.testing.assert_allclose(side_energy(louder, "identity"), side_energy(ENERGIES, "identity"))


def test_dimensions_in_the_order_of_the_tasks_that_use_them() -> None:
    """Half of six in two side tasks: two each, rounded half up. Both have dimension 4; pose has 3/4 of its energy there
    and light 1/4."""
    found = {task: dims.tolist() for task, dims in blocks(ENERGIES, "identity").items()}
    assert found == {"pose": [4, 5], "light": [3], "identity": [0, 1, 2]}
    assert list(found) == ["pose", "light", "identity"]
    silent = {"identity": np.arange(4.0), "pose": np.zeros(4)}
    assert {task: dims.tolist() for task, dims in blocks(silent, "identity").items()} == {
        "pose": [],
        "identity": [3, 2, 1, 0],
    }


def test_orders_in_which_dimensions_are_taken_out() -> None:
    orders = removal_orders(ENERGIES, "identity", draws=3)
    assert list(orders) == [SIDE, "identity", "least identity", RANDOM]
    assert all(sorted(order.tolist()) == list(range(6)) for each in orders.values() for order in each)
    assert orders[SIDE][0].tolist() == [4, 3, 5, 0, 1, 2]
    assert orders["identity"][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert orders["least identity"][0].tolist() == [5, 4, 3, 2, 1, 0]
    assert len({tuple(order.tolist()) for order in orders[RANDOM]}) == 3
    again = removal_orders(ENERGIES, "identity", draws=3)[RANDOM]
    assert all((a == b).all() for a, b in zip(orders[RANDOM], again, strict=True))
    assert removal_orders(ENERGIES, "identity", draws=1, seed=1)[RANDOM][0].tolist() != again[0].tolist()
    with pytest.raises(PolyfaceError, match="'pose' is the only task"):
        removal_orders({"pose": np.ones(3)}, "pose")
    with pytest.raises(PolyfaceError, match="main names 'identiy'; did you mean 'identity'"):
        removal_orders(ENERGIES, "identiy")


def test_dimensions_that_are_looked_at_by_themselves() -> None:
    kept = kept_dims(removal_orders(ENERGIES, "identity"), "identity")
    assert list(kept) == [
        "all", "without 25% side-task", "without 50% side-task", "without 50% random", "top 25% identity",
    ]  # fmt: skip
    assert [len(dims) for dims in kept.values()] == [6, 4, 3, 3, 2]
    assert sorted(kept["without 25% side-task"].tolist()) == [0, 1, 2, 5]
    assert kept["top 25% identity"].tolist() == [0, 1]


def test_masked_vectors_are_compared_by_their_angle() -> None:
    x = np.array([[3.0, 4, 9], [6, 8, 1], [0, 0, 5]])
    found = directions(mask_dims(x, [2]))
    assert found.tolist() == [[0.6, 0.8, 0], [0.6, 0.8, 0], [0, 0, 0]]
    np.testing.assert_array_equal(directions(x), directions(mask_dims(x, [])))


# ------------------------------------------------------------------------------------------------ of networks


def network(heads: dict[str, Any], **more: Any) -> networks.FaceNetwork:
    part = {"kind": "pool", "reads": ["trunk.conv4"]}
    return networks.build({"trunk": {"name": "tcdcn"}, "parts": {"a": part, "b": part}, "heads": heads} | more)


ON = {"a": {"reads": ["a"], "outputs": 3}, "b": {"reads": ["b"], "outputs": 2}}


def test_heads_are_compared_that_read_what_the_main_one_reads() -> None:
    torch.manual_seed(0)
    heads = {"smile": 2, "identity": ON["a"], "pose": ON["a"], "age": {"a": [0, 2], "b": [1]}, "more": ON["a"], "b": 4}
    made = network(heads, cosine=["identity"])
    found = common_heads(made)
    assert (found.main, list(found.heads)) == ("identity", ["identity", "pose", "more"])  # the largest group
    assert found.left_out == {
        "smile": "reads trunk",
        "age": "the outputs of 'age' come from a, b, not from one linear layer",
        "b": "reads trunk",
    }
    assert common_heads(made, prefer=["pose"]).main == "pose"
    assert list(common_heads(made, "smile").heads) == ["smile", "b"]
    energies = found.energies()
    weight = made.heads["pose"].get_parameter("weight").detach().double().abs()
    np.testing.assert_allclose(energies["pose"], weight.sum(0).numpy())
    directions = torch.nn.functional.normalize(made.heads["identity"].get_parameter("weight").detach().double())
    np.testing.assert_allclose(energies["identity"], directions.abs().sum(0).numpy())  # cosines: of any length


def test_networks_whose_heads_share_no_vector_are_told_so() -> None:
    with pytest.raises(PolyfaceError, match="'x' reads a, which no other linear head does .others: y .b.."):
        common_heads(network({"x": ON["a"], "y": ON["b"]}))
    with pytest.raises(PolyfaceError, match="no linear head"):
        common_heads(network({"x": {"a": [0], "b": [1]}}))
    with pytest.raises(PolyfaceError, match="the outputs of 'x' come from a, b, not from one linear"):
        common_heads(network({"x": {"a": [0], "b": [1]}, "y": 2, "z": 2}), "x")
    with pytest.raises(PolyfaceError, match="main names 'v'"):
        common_heads(network({"x": ON["a"], "y": ON["b"]}), "v")


def test_a_linear_part_that_is_a_tasks_output_is_its_layer() -> None:
    """And the merged outputs of several are no one layer's (the pose-directed network)."""
    torch.manual_seed(0)
    linear = {"kind": "linear", "reads": ["trunk"], "width": 4}
    parts = {"joint": linear} | {
        name: linear | {"rows": {"task": "pose", "classes": [place]}} for place, name in enumerate(("left", "right"))
    }
    given: dict[str, Any] = {"outputs": 4, "layer": "none"}
    heads = {"identity": given | {"reads": ["joint"]}, "grouped": given | {"of": ["left", "right"], "merge": "rows"}}
    made = networks.build({"trunk": {"name": "tcdcn"}, "parts": parts, "heads": heads | {"pose": 2}}).eval()
    found = common_heads(made)
    assert list(found.heads) == ["identity", "pose"]
    assert found.left_out == {"grouped": "the outputs of 'grouped' come from left, right, not from one linear layer"}
    output = made(torch.rand(3, 1, 40, 40) * 255)
    for name, head in found.heads.items():
        np.testing.assert_allclose(
            head(output.shared.detach().numpy()), output.outputs[name].detach().numpy(), atol=1e-5
        )
