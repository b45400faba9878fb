"""BEGAN's objective (Berthelot et al. 2017), against gradients and numbers made apart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from polyface.networks import FaceNetwork
from polyface.training.adversarial.objectives import AutoEncoder, Began, Reconstruction, distance, picture
from polyface.training.adversarial.specs import AdversarialSpec, BeganSpec, ReconstructionSpec
from polyface.training.learners.adversarial import build_pair

TREE: dict[str, Any] = {
    "name": "one",
    "learner": "adversarial",
    "data": {"tables": [], "crop": {"size": 16, "channels": 1}},
    "network": {
        "trunk": {"name": "began", "size": 16, "widths": [4, 4, 4, 4]},
        "latent": 6,
        "decoder": {"kind": "decoder", "width": 4, "convolutions": [1, 1]},
    },
}


@pytest.fixture
def network() -> FaceNetwork:
    return build_pair(AdversarialSpec.model_validate(TREE), seed=1)


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(5, 1, 16, 16) * 2 - 1


Z = torch.linspace(-1, 1, 30).reshape(5, 6)


def began(k: float, gamma: float = 0.5, rate: float = 0.001) -> Began:
    made = Began(BeganSpec(gamma=gamma, lambda_k=rate))
    made.k.fill_(k)
    return made


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


def apart(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """The gradient of a loss by the parameters of one network, that of the other being of no account."""
    named = dict(module.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def plain(network: FaceNetwork, faces: Tensor) -> tuple[Tensor, Tensor]:
    """L(x) and L(G(z)), written down without any device."""
    model = AutoEncoder(network)
    made = picture(network.branches["generator"], Z)
    return (faces - model(faces)).abs().mean(), (made - model(made)).abs().mean()


@pytest.mark.parametrize("k", [0.0, 0.3, 1.0])
def test_one_backward_pass_is_a_step_of_both_networks(network, faces, k: float) -> None:
    """D learns from L(x) − k L(G(z)) alone, G from L(G(z)) alone (BEGAN's L_G)."""
    model, generator = AutoEncoder(network), network.branches["generator"]
    losses = began(k)(model, generator, faces, Z)
    sum(loss.mean() for loss in losses.values()).backward()
    found = gradients(model), gradients(generator)
    real, made = plain(network, faces)
    assert losses["real"].mean().item() == pytest.approx(real.item(), abs=1e-6)
    assert losses["generated"].mean().item() == pytest.approx(made.item(), abs=1e-6)
    for have, want in zip(
        found, (apart(real - k * made, model), apart(plain(network, faces)[1], generator)), strict=True
    ):
        assert have.keys() == want.keys()
        for name in want:
            torch.testing.assert_close(have[name], want[name], rtol=1e-4, atol=1e-7, msg=name)
    assert any(value.abs().max() > 1e-4 for value in found[1].values())  # at k = 0 too


def test_the_papers_loss_would_teach_the_generator_nothing_at_the_start(network, faces) -> None:
    """Barros et al. 2019, Eq. 1: L_G = −L_D, whose gradient is k times BEGAN's, and k begins at 0."""
    generator = network.branches["generator"]
    for k in (0.0, 0.25):
        real, made = plain(network, faces)
        printed = apart(-(real - k * made), generator)
        real, made = plain(network, faces)
        own = apart(made, generator)
        for name, value in printed.items():
            torch.testing.assert_close(value, k * own[name])
            assert (value == 0).all() == (k == 0)


@pytest.mark.parametrize("still, moving", [("generator", "decoder"), ("decoder", "generator")])
def test_a_step_of_one_network_leaves_the_other_bit_for_bit(network, faces, still: str, moving: str) -> None:
    """Of a network that does not learn nothing changes, and what the other learns is what it would learn beside it."""
    model = AutoEncoder(network)
    frozen: nn.Module = network.branches["generator"] if still == "generator" else model
    free: nn.Module = model if still == "generator" else network.branches["generator"]
    both = copy.deepcopy(network)
    sum(loss.mean() for loss in began(0.4)(AutoEncoder(both), both.branches["generator"], faces, Z).values()).backward()
    frozen.requires_grad_(False)
    optimiser = torch.optim.Adam([value for value in network.parameters() if value.requires_grad], lr=0.01)
    before = copy.deepcopy([frozen.state_dict(), free.state_dict()])
    sum(loss.mean() for loss in began(0.4)(model, network.branches["generator"], faces, Z).values()).backward()
    others = AutoEncoder(both) if still == "generator" else both.branches["generator"]
    for name, value in gradients(others).items():
        torch.testing.assert_close(gradients(free)[name], value)
    optimiser.step()
    assert all(torch.equal(value, before[0][name]) for name, value in frozen.state_dict().items())
    assert not all(torch.equal(value, before[1][name]) for name, value in free.state_dict().items())


def test_the_loss_is_the_mean_distance_of_pixels() -> None:
    pictures = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    assert distance(pictures, torch.ones(2, 1, 2, 2)).tolist() == [(1 + 0 + 1 + 2) / 4, 0.0]


# ---------------------------------------------------------------------------------------------------- equilibrium

LOSSES = st.floats(0, 10, allow_nan=False)


@given(st.lists(st.tuples(LOSSES, LOSSES), max_size=20), st.floats(0, 1), st.floats(0, 5))
def test_k_stays_between_0_and_1_and_m_is_no_less_than_the_faces_loss(steps, gamma: float, rate: float) -> None:
    made = began(0.0, gamma, rate)
    for real, generated in steps:
        before = made.state["k"]
        m = made.follow({"real": real, "generated": generated})
        after, balance = made.state["k"], gamma * real - generated
        assert 0 <= after <= 1
        assert m >= real
        assert after == pytest.approx(min(1, max(0, before + rate * balance)), abs=1e-12)
        if after > before:
            assert balance > 0
        if balance > 1e-9 and before < 1 and rate > 1e-9:
            assert after > before  # k rises if, and only if, γ L(x) > L(G(z))
        if balance <= 0:
            assert after <= before


def test_in_balance_k_stays_as_it_is() -> None:
    """γ L(x) = L(G(z))."""
    made = began(0.37, gamma=0.5)
    assert made.follow({"real": 0.25, "generated": 0.125}) == 0.25
    assert made.state == {"k": 0.37}


def test_equilibrium_by_hand() -> None:
    made = began(0.0, gamma=0.5, rate=0.1)
    assert made.follow({"real": 0.4, "generated": 0.1}) == pytest.approx(0.5)  # 0.4 + |0.2 − 0.1|
    assert made.state["k"] == pytest.approx(0.01)
    assert made.follow({"real": 0.4, "generated": 0.5}) == pytest.approx(0.7)
    assert made.state["k"] == 0.0  # 0.01 − 0.03, clipped


# ---------------------------------------------------------------------------------------------------- auto-encoders


def test_an_auto_encoder_has_the_faces_loss_alone(network, faces) -> None:
    made = Reconstruction(ReconstructionSpec(name="reconstruction"))
    losses = made(AutoEncoder(network), None, faces, Z)
    assert list(losses) == ["real"]
    assert losses["real"].mean().item() == pytest.approx(plain(network, faces)[0].item(), abs=1e-6)
    assert made.follow({"real": 0.3}) == 0.3
    assert made.state == {}
