"""Which of several embeddings faces are compared by, and how: at length 1, or as they are by their product."""

from __future__ import annotations

import numpy as np
import pytest
from lists import HAND, figures, listed, on_circle, results

from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import pair_distances, squared_distances
from polyface.protocols.base import Embedded, embedded, embedding_name


def test_products_of_unit_vectors_are_their_squared_distances() -> None:
    a, b = on_circle(0, 40, 100), on_circle(190, 270, 285)
    for found in (pair_distances, squared_distances):
        np.testing.assert_allclose(found(a, b, inner=True), found(a, b), atol=1e-6)


def test_shorter_vectors_are_less_alike_and_are_not_made_longer() -> None:
    """By hand: [½, 0] and [1, 0] have the product ½, so 2 − 2·½ = 1; at right angles 2; itself, at length 1, 0."""
    vectors = np.array([[0.5, 0.0], [1.0, 0.0], [0.0, 0.8]])
    faces, zero, one, both = Embedded(vectors, inner=True), np.array([0]), np.array([1]), np.array([1, 2])
    np.testing.assert_allclose(faces.pairs(np.array([0, 1, 1]), np.array([1, 2, 1])), [1, 2, 0])
    np.testing.assert_allclose(faces.between(zero, both), [[1, 2]])
    np.testing.assert_allclose(faces.pairs(zero, one), faces.pairs(one, zero))
    with pytest.raises(PolyfaceError, match="not of length 1"):
        Embedded(vectors).pairs(zero, one)


def test_protocols_compare_the_embedding_that_they_are_told_to(six: FaceTable) -> None:
    """The order of products is not that of angles: of two embeddings of the same directions, the inner one lets bob's
    long photo come before ann's own short one."""
    directions = on_circle(0, 10, 60, 20, 180, 185)
    lengths = np.array([1, 0.2, 1, 1, 1, 1], np.float32)[:, None]
    answers = HAND | {"angles": {"embedding": directions}, "stochastic": {"inner": directions * lengths}}
    search = {"searches": {"": {"probes": {"modality": "caricature"}, "gallery": {"modality": "photo"}}}}
    rank = {
        name: figures(results("gallery-probe", answers, six, embedding=name, **search)[""])["rank-1"]
        for name in ("angles", "stochastic", "verification")
    }
    assert rank == pytest.approx({"angles": 100.0, "stochastic": 200 / 3, "verification": 200 / 3}, abs=0.01)
    found = listed(answers, six, embedding="stochastic", folds=3)[""].distances.reshape(3, 3)
    expected = 2 - 2 * (directions * lengths)[::2] @ (directions * lengths)[1::2].T
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_unknown_name_among_several_is_told(six: FaceTable) -> None:
    answers = {"angles": {"embedding": on_circle(0)}, "stochastic": {"inner": on_circle(0)}}
    with pytest.raises(PolyfaceError, match="no 'hard' among the embeddings angles, stochastic: name one"):
        embedding_name(answers, "hard")
    with pytest.raises(PolyfaceError, match="there are embeddings of angles, stochastic: name one by the protocol"):
        embedding_name(answers)
    assert embedding_name({"stochastic": answers["stochastic"]}, "hard") == "stochastic"
    with pytest.raises(PolyfaceError, match=r"inner \[1, 2\] for a table of 6 faces"):
        embedded(answers, "stochastic", six)
