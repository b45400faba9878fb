"""The one place where losses are reduced: means over labelled faces, term by term."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.tasks import masked_sums, mean_of_terms


def reduced(losses: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    return mean_of_terms(*masked_sums(losses, labelled))


def test_each_term_is_a_mean_over_its_own_labelled_faces() -> None:
    """Term 0: (1 + 3)/2, term 1: 10/1, term 2: nobody."""
    losses = torch.tensor([[1.0, 10, 7], [3, 99, 7], [100, 99, 7]])
    labelled = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert reduced(losses, labelled).item() == pytest.approx(12)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([math.nan, math.inf, 1e30]))
def test_what_is_unlabelled_has_no_influence(faces: int, terms: int, seed: int, wild: float) -> None:
    random = torch.Generator().manual_seed(seed)
    losses = torch.rand(faces, terms, generator=random)
    labelled = torch.rand(faces, terms, generator=random) < 0.5
    expected = sum(losses[labelled[:, k], k].double().mean().item() for k in range(terms) if labelled[:, k].any())
    polluted = losses.masked_fill(~labelled, wild).requires_grad_()
    loss = reduced(polluted, labelled)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    counts = labelled.sum(0).clamp(min=1)
    assert polluted.grad is not None
    torch.testing.assert_close(polluted.grad, labelled / counts)


def test_nobody_labelled_is_zero_with_a_zero_gradient() -> None:
    losses = torch.full((3, 2), 5.0, requires_grad=True)
    loss = reduced(losses, torch.zeros(3, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert losses.grad is not None
    assert (losses.grad == 0).all()


def test_no_face_at_all_is_zero() -> None:
    assert reduced(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool)).item() == 0


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_shares_of_a_batch_add_up_to_the_whole(seed: int, cut: int) -> None:
    """Sums and counts of two shares give the mean of the whole, however unequal the shares: what DDP relies on."""
    random = torch.Generator().manual_seed(seed)
    losses, labelled = torch.rand(8, 3, generator=random), torch.rand(8, 3, generator=random) < 0.5
    parts = [masked_sums(losses[rows], labelled[rows]) for rows in (slice(cut), slice(cut, None))]
    together = mean_of_terms(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])
    assert together.item() == pytest.approx(reduced(losses, labelled).item(), rel=1e-5)
