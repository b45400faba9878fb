"""Correlation of heads' weights: numbers by hand, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.explain.weights import correlation_by_chance, head_weights, weight_correlation


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


@pytest.mark.parametrize("classes, expected", [(2, 0.1135), (5, 0.1841)])
def test_random_weights_correlate_by_chance(classes: int, expected: float) -> None:
    """Over 100 features: of two classes' one direction with x and y, the mean of the larger of two |r|, each about
    half-normal of 1/√99: 2/√π · 0.1005 = 0.1134. Five classes have more chances."""
    found = [weight_correlation(weights(i, 10, 100), weights(1000 + i, classes, 100)) for i in range(300)]
    assert np.mean(found) == pytest.approx(expected, abs=0.005)
    chance = correlation_by_chance(weights(1, 10, 100), weights(2, classes, 100))
    assert chance.shape == (1000, 5)
    assert chance.mean(0) == pytest.approx([expected] * 5, abs=0.015)


def test_what_is_shared_is_rarely_matched_by_chance_and_what_is_not_often() -> None:
    landmarks, side = weights(3, 4, 100), weights(4, 2, 100)
    side[0] += 0.5 * landmarks[0]
    chance, found = correlation_by_chance(landmarks, side), weight_correlation(landmarks, side)
    assert (chance[:, 0] >= found[0]).mean() < 0.01
    unrelated = [
        (correlation_by_chance(landmarks, other, 50) >= weight_correlation(landmarks, other)).mean()
        for other in (weights(seed, 2, 100) for seed in range(10, 40))
    ]
    assert 0.35 < np.mean(unrelated) < 0.65  # a p value is uniform then


def test_chance_keeps_what_shuffling_does_not_change() -> None:
    """Two features have two orders, in which a correlation is 1 or −1."""
    chance = correlation_by_chance(weights(0, 2, 2), weights(1, 2, 2), 20)
    np.testing.assert_allclose(chance, 1)


def test_a_heads_weights_are_those_of_the_network() -> None:
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {"landmarks": 10, "smile": 2}})
    found = head_weights(network, "smile")
    assert found.shape == (2, network.shared_dim)
    np.testing.assert_array_equal(found, network.heads["smile"].weight.detach().numpy())
    with pytest.raises(PolyfaceError, match=r"no task 'smiles' \(it has landmarks, smile\)"):
        head_weights(network, "smiles")
