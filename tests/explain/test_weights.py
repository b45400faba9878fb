"""Correlation of heads' weights: numbers by hand, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.explain.weights import head_weights, weight_correlation


def test_by_hand() -> None:
    """Two classes are ± s, s = (1, 0, −1, 0), when what they share is taken off. x of the first point is 1 + s: its
    correlation with s is 1, though its cosine is 1/√3."""
    common, s = np.array([5.0, -2, 3, 9]), np.array([1.0, 0, -1, 0])
    side = np.stack([common + s, common - s])
    landmarks = np.array([1 + s, [4.0, 4, 4, 4], [2.0, 5, 2, 5], [3.0, 1, 1, 1]])
    found = weight_correlation(landmarks, side)
    assert found.shape == (2,)
    assert found[0] == pytest.approx(1)
    # (3, 1, 1, 1) without its mean is (1.5, −.5, −.5, −.5), of length √3; its product with s is 2, s has length √2
    assert found[1] == pytest.approx(2 / (3**0.5 * 2**0.5))


def weights(seed: int, outputs: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((outputs, width))


@given(st.integers(0, 999), st.integers(2, 5), st.integers(1, 4))
def test_it_is_the_largest_absolute_pearson_correlation(seed: int, classes: int, points: int) -> None:
    landmarks, side = weights(seed, 2 * points), weights(seed + 1, classes)
    free = side - side.mean(0)
    expected = [
        max(abs(np.corrcoef(row, one)[0, 1]) for row in landmarks[2 * p : 2 * p + 2] for one in free)
        for p in range(points)
    ]
    np.testing.assert_allclose(weight_correlation(landmarks, side), expected)


@given(st.integers(0, 999), st.floats(-50, 50), st.floats(0.1, 10))
def test_what_changes_no_answer_of_a_softmax_and_no_correlation_changes_nothing(
    seed: int, level: float, scale: float
) -> None:
    landmarks, side = weights(seed, 4), weights(seed + 1, 3)
    plain = weight_correlation(landmarks, side)
    np.testing.assert_allclose(weight_correlation(landmarks, side + weights(seed + 2, 1)), plain, atol=1e-9)
    np.testing.assert_allclose(weight_correlation(scale * landmarks + level, side), plain, atol=1e-9)
    np.testing.assert_allclose(weight_correlation(landmarks, scale * side + level), plain, atol=1e-9)
    np.testing.assert_allclose(weight_correlation(-landmarks, side), plain, atol=1e-9)


def test_weights_without_any_variation_share_nothing() -> None:
    assert weight_correlation(np.ones((2, 4)), weights(0, 2, 4)).tolist() == [0]
    assert weight_correlation(weights(0, 2, 4), np.ones((3, 4))).tolist() == [0]


def test_a_heads_weights_are_those_of_the_network() -> None:
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {"landmarks": 10, "smile": 2}})
    found = head_weights(network, "smile")
    assert found.shape == (2, network.shared_dim)
    np.testing.assert_array_equal(found, network.heads["smile"].weight.detach().numpy())
    with pytest.raises(PolyfaceError, match=r"no task 'smiles' \(it has landmarks, smile\)"):
        head_weights(network, "smiles")
