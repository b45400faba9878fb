"""The randomisation check, and whether maps lie where what is asked is drawn: by hand, and on a trained network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small import GENDER, faces, network

from polyface.explain.maps import METHODS
from polyface.explain.questions import question
from polyface.explain.regions import REGIONS, pointed, region_masks
from polyface.explain.sanity import SHARES, layers_of, passes, randomise, randomised, rank_correlation
from polyface.models.bundle import Bundle


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([[1, 2], [3, 10]], [[0, 0.1], [0.2, 0.3]]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == 0  # a flat map has no order


def test_random_weights_are_the_trained_ones_in_another_order(small: None) -> None:
    own = network({"gender": 2})
    before = copy.deepcopy(own)
    layers = layers_of(own, question(own, GENDER, "gender"))
    assert layers == [*own.trunk.layers, own.heads["gender"]]  # type: ignore[misc]
    randomise(layers[1:])
    assert torch.equal(own.trunk.layers[0].weight, before.trunk.layers[0].weight)  # type: ignore[index]
    for name in ("trunk.layers.1.weight", "heads.gender.weight"):
        new, old = (dict(one.named_parameters())[name] for one in (own, before))
        assert not torch.equal(new, old)
        assert torch.equal(new.flatten().sort().values, old.flatten().sort().values)


def test_it_must_fall_by_the_half_of_the_layers_and_stay_there() -> None:
    falls, late, comes_back = ([1, 1, 0.4, 0.1, 0], [1, 1, 0.9, 0.2, 0], [1, 0, 0, 0.6, 0])
    assert [passes(np.array(one)[:, None].repeat(3, 1)) for one in (falls, late, comes_back)] == [True, False, False]


def test_the_question_stays_that_of_the_trained_network(small: None) -> None:
    """A random network may answer otherwise; its map is of the same class still."""
    own, images = network({"gender": 2}), 255 * torch.rand(4, 3, 32, 32)
    answered = own(images).outputs["gender"].argmax(1)
    settled = question(own, GENDER, "gender").settled(own(images).outputs["gender"])
    assert torch.equal(settled.places(torch.randn(4, 2)), answered)


@pytest.mark.parametrize("method", ["cam", "guided-cam", "occlusion"])
def test_a_trained_networks_maps_depend_on_what_it_learnt(small: None, teller: Bundle, method: str) -> None:
    if method == "occlusion":
        pytest.importorskip("captum")
    images = faces("yes", 7, 2 if method == "occlusion" else 12)[0]
    asked = question(teller.network, teller.tasks, "glasses=yes")
    before = copy.deepcopy(teller.network.state_dict())
    correlations = randomised(teller.network, images, asked, method)
    assert correlations.shape == (len(SHARES), len(images))
    assert passes(correlations), correlations.mean(1)
    assert all(torch.equal(before[name], now) for name, now in teller.network.state_dict().items())


def test_guided_backprop_does_not_pass_as_is_known(small: None, teller: Bundle) -> None:
    """Adebayo et al. 2018: it draws the picture's edges, whatever the layers near the answer hold."""
    asked = question(teller.network, teller.tasks, "glasses=yes")
    correlations = randomised(teller.network, faces("yes", 7, 12)[0], asked, "gradients")
    assert correlations.mean(1)[0] > 0.7  # the answer's own layer is random already
    assert not passes(correlations)


@pytest.mark.parametrize("method", METHODS)
def test_glasses_are_found_on_the_eyes(small: None, teller: Bundle, method: str) -> None:
    """The pointing game: the largest value lies on the eyes far more often than by chance."""
    if method == "occlusion":
        pytest.importorskip("captum")
    images, points = faces("yes", 9, 40)
    eyes = np.stack([region_masks(face, images.shape[-1])[REGIONS.index("eyes")] for face in points])
    heat = METHODS[method](teller.network, images, question(teller.network, teller.tasks, "glasses=yes"), "")
    assert eyes.mean() < 0.2
    assert pointed(heat.numpy(), eyes).mean() > 0.5
